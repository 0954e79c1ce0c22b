"""MaxPool's padding written out, for onnx2tf and TFLite's quantizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.onnxgraph.rewrites import Weights, replace_nodes
from workbench.onnxgraph.shapes import known_shapes
from workbench.onnxgraph.signs import never_negative
from workbench.onnxgraph.walk import attributes, producers
from workbench.tflite.lowering import Inputs, Rewritten

if TYPE_CHECKING:
    import onnx


def padded_pools(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """MaxPool's padding as a Pad with values that never win: zeros, or reflected ones.

    onnx2tf pads with the least float there is, and INT8 takes its range from that. What a last
    window of `ceil_mode` has beyond the end is padding too.
    """
    import onnx

    weights = Weights(model.graph)
    makers = producers(model.graph.node)
    shapes = known_shapes(model)
    nodes = []
    for node in model.graph.node:
        options = attributes(node)
        source = node.input[0] if node.input else ""
        pads: list[int] = []
        if node.op_type == "MaxPool" and set(options.get("dilations", [1])) == {1}:
            pads = _pool_pads(options, shapes.get(source), shapes.get(node.output[0]))
        if any(pads):
            # A window that starts in p reflected values goes on to the p-th true one.
            wide = all(size >= 2 * pad + 1 for size, pad in
                       zip(options["kernel_shape"] * 2, pads, strict=True))  # fmt: skip
            positive = never_negative(makers.get(source), weights)
            if positive or wide:
                half = len(pads) // 2
                amounts = [0, 0, *pads[:half], 0, 0, *pads[half:]]
                name = weights.add(f"{source}_pads", np.array(amounts, np.int64))
                padded = f"{node.output[0]}_padded"
                mode = "constant" if positive else "reflect"
                nodes.append(
                    onnx.helper.make_node("Pad", [source, name], [padded], padded, mode=mode)
                )
                node.input[0] = padded
                left = [a for a in node.attribute if a.name not in ("pads", "ceil_mode")]
                del node.attribute[:]
                node.attribute.extend(left)
        nodes.append(node)
    replace_nodes(model.graph, nodes)
    return model, ""


def _pool_pads(
    options: Mapping[str, Any], before: list[int] | None, after: list[int] | None
) -> list[int]:
    """What a pool pads before and behind each axis; empty where that is not known."""
    kernel = options["kernel_shape"]
    pads = list(options.get("pads") or [0] * 2 * len(kernel))
    automatic = options.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET")
    if automatic or before is None or after is None:
        return []
    if options.get("ceil_mode"):
        half = len(kernel)
        strides = options.get("strides") or [1] * half
        for axis, (size, windows) in enumerate(zip(before[2:], after[2:], strict=True)):
            reach = (windows - 1) * strides[axis] + kernel[axis]
            pads[half + axis] = max(pads[half + axis], reach - size - pads[axis])
    return pads
