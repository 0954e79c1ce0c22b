"""Weights and biases that a node owns: the engine equalizes, rounds and corrects them by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import unshare
from workbench.onnxgraph.view import CONVOLUTIONS, Given, View, attributes, is_real

if TYPE_CHECKING:
    import onnx

# By operator, the inputs that are weights or a bias.
OWNED = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (1,)}


def own_weights(model: onnx.ModelProto, _given: Given) -> int:
    """Weights and biases that several nodes take, or a subgraph too, copied for each."""
    wanted = {
        node.name: tuple(place for place in OWNED[node.op_type] if place < len(node.input))
        for node in model.graph.node
        if node.op_type in OWNED and not node.domain
    }
    return unshare(model.graph, wanted)


def zero_biases(model: onnx.ModelProto, _given: Given) -> int:
    """A bias of zeros for each Conv, ConvTranspose and Gemm without one: it is to be corrected."""
    view = View(model)
    count = 0
    for node in view.nodes:
        if node.op_type not in (*CONVOLUTIONS, "Gemm") or node.domain:
            continue
        weights = view.constant(node, 1)
        if (len(node.input) > 2 and node.input[2]) or not is_real(weights):
            continue
        found = attributes(node)
        if node.op_type == "Gemm":
            channels = weights.shape[0 if found.get("transB", 0) else 1]
        elif node.op_type == "Conv":
            channels = weights.shape[0]
        else:
            channels = weights.shape[1] * found.get("group", 1)
        while len(node.input) < 3:
            node.input.append("")
        node.input[2] = view.weights.add(f"{node.name}_bias", np.zeros(channels, np.float32))
        count += 1
    return view.written(count)
