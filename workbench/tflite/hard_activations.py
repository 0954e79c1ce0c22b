"""Hard-swish and hard-sigmoid as products of relu6, the form that XNNPACK keeps in one piece.

LiteRT's HARD_SWISH falls out of XNNPACK in INT8, and a hard-sigmoid becomes four operators with a
rounding each. (x / 6) * relu6(x + 3) is ADD, with relu6 in it, and two MUL; x / 6 has the integers
of x on a grid of a sixth the scale, so that it rounds nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph import signature
from workbench.onnxgraph.rewrites import Weights, copy_model, replace_nodes
from workbench.onnxgraph.walk import attributes, output_names, taken_names
from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph, strip_qdq

if TYPE_CHECKING:
    import onnx

# From here on ONNX has HardSwish.
HARD_SWISH_OPSET = 14
SIX, THREE = 6.0, 3.0
FULL = ActivationGrid(SIX / 255, -128)  # of a relu6 whose own grid is not known


def taken_apart(model: onnx.ModelProto) -> StrippedGraph:
    """A QDQ graph taken apart, in the operators that TFLite's INT8 kernels take; a float one too.

    Raises StepError for a QDQ graph that cannot be taken apart.
    """
    return hard_products(strip_qdq(model))


def is_hard(model: onnx.ModelProto) -> bool:
    """Whether there is anything to write out."""
    return any(node.op_type == "HardSwish" or _is_hard_sigmoid(node) for node in model.graph.node)


def hard_products(stripped: StrippedGraph) -> StrippedGraph:
    """Write hard-swish and hard-sigmoid out, with the grids of what is between.

    In a quantized graph those alone whose two ends are quantized: LiteRT's float kernels take
    HARD_SWISH as it is.
    """
    model = copy_model(stripped.model)
    work = _Work(model.graph, dict(stripped.grids))
    uses = Counter(taken_names(model.graph)) + Counter(output_names(model.graph))
    nodes = list(model.graph.node)
    native = signature.opset(model) >= HARD_SWISH_OPSET
    written: list[onnx.NodeProto] = []
    gates = {node.output[0]: node for node in nodes if _is_hard_sigmoid(node)}
    swished = {
        name: gate
        for node in nodes
        if node.op_type == "Mul"
        for name in node.input
        if (gate := gates.get(name)) is not None
        and uses[name] == 1
        and {*node.input} == {name, gate.input[0]}
        and (native or work.takes(gate.input[0], node.output[0]))
    }
    for node in nodes:
        output = node.output[0] if node.output else ""
        if node.op_type == "HardSwish":
            written += work.swish(node.input[0], output, None)
        elif node.op_type == "Mul" and (name := next((n for n in node.input if n in swished), "")):
            written += work.swish(swished[name].input[0], output, name)
        elif output in swished:
            continue
        elif output in gates and work.takes(node.input[0], output):
            written += work.sigmoid(node.input[0], output)
        else:
            written.append(node)
    replace_nodes(model.graph, written)
    return replace(stripped, model=model, grids=work.grids)


def _is_hard_sigmoid(node: onnx.NodeProto) -> bool:
    """Of the slope 1/6 that networks have: max(0, min(1, x / 6 + 1/2))."""
    if node.op_type != "HardSigmoid":
        return False
    options = attributes(node)
    near = abs(options.get("alpha", 0.2) - 1 / SIX) < 1e-4
    return bool(near and options.get("beta", 0.5) == 0.5)


class _Work:
    """The graph's constants and grids, to which the products add theirs."""

    def __init__(self, body: onnx.GraphProto, grids: dict[str, ActivationGrid]) -> None:
        weights = Weights(body)
        self.ends = [weights.add(f"hard_{name}", np.array(value, np.float32))
                     for name, value in (("zero", 0), ("six", SIX))]  # fmt: skip
        self.three = weights.add("hard_three", np.array(THREE, np.float32))
        self.sixth = weights.add("hard_sixth", np.array(1 / SIX, np.float32))
        self.whole = not grids
        self.grids = grids

    def takes(self, source: str, result: str) -> bool:
        """Whether an operator from one tensor to another computes on integers, or all may."""
        return self.whole or {source, result} <= self.grids.keys()

    def swish(self, source: str, result: str, gate: str | None) -> list[onnx.NodeProto]:
        """Hard-swish from one tensor to another; gate: the tensor whose grid the gate has."""
        if not self.takes(source, result):
            return [_node("HardSwish", [source], result)]
        nodes = self._relu6(source, result, gate or "")
        sixth = f"{result}_sixth"
        if source in self.grids:
            grid = self.grids[source]
            self.grids[sixth] = ActivationGrid(grid.scale / SIX, grid.zero)
        return [
            *nodes,
            _node("Mul", [source, self.sixth], sixth),
            _node("Mul", [sixth, f"{result}_relu6"], result),
        ]

    def sigmoid(self, source: str, result: str) -> list[onnx.NodeProto]:
        """Hard-sigmoid from one tensor to another."""
        nodes = self._relu6(source, result, result)
        return [*nodes, _node("Mul", [f"{result}_relu6", self.sixth], result)]

    def _relu6(self, source: str, result: str, gate: str) -> list[onnx.NodeProto]:
        """relu6(given + 3), on six times the gate's grid."""
        if result in self.grids:
            grid = self.grids.get(gate)
            self.grids[f"{result}_relu6"] = (
                FULL if grid is None else ActivationGrid(grid.scale * SIX, grid.zero)
            )
        shifted, relu6 = f"{result}_shifted", f"{result}_relu6"
        return [
            _node("Add", [source, self.three], shifted),
            _node("Clip", [shifted, *self.ends], relu6),
        ]


def _node(op: str, inputs: list[str], output: str) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node(op, inputs, [output], output)
