"""Gelu written out with Erf as the operator that ONNX has from opset 20 on, and TFLite too."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, sqrt
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import Weights, replace_nodes
from workbench.onnxgraph.walk import consumers, output_names, producers
from workbench.tflite.lowering import Inputs, Rewritten

if TYPE_CHECKING:
    import onnx

GELU_OPSET = 20


def native_gelu(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """Gelu written out with Erf as the operator that ONNX has from opset 20 on, and TFLite too."""
    import onnx
    from onnxruntime.transformers.fusion_gelu import FusionGelu
    from onnxruntime.transformers.onnx_model import OnnxModel

    from workbench.onnxgraph import signature

    if not any(node.op_type == "Erf" for node in model.graph.node):
        return model, ""
    before = signature.opset(model)
    if before < GELU_OPSET:
        model = onnx.version_converter.convert_version(model, GELU_OPSET)
    fused = OnnxModel(model)
    FusionGelu(fused).apply()
    count = 0
    for node in fused.model.graph.node:
        if node.op_type == "Gelu" and node.domain == "com.microsoft":
            node.domain = ""
            count += 1
    count += _scaled_gelus(fused.model.graph)
    fused.topological_sort()
    kept = [opset for opset in fused.model.opset_import if opset.domain != "com.microsoft"]
    del fused.model.opset_import[:]
    fused.model.opset_import.extend(kept)
    raised = f"opset raised from {before} to {GELU_OPSET} for " if before < GELU_OPSET else ""
    return fused.model, f"{raised}{count} Gelu" if count else ""


@dataclass(frozen=True)
class _Product:
    """x (1 + erf(a x)) c in a graph.

    Attributes:
        x, factor, scale: of the formula: a tensor, a and c.
        result: the tensor that it makes.
        inner: those between, which nobody else takes.
    """

    x: str
    factor: float
    scale: float
    result: str
    inner: frozenset[str]


def _scaled_gelus(graph: onnx.GraphProto) -> int:
    """Write x (1 + erf(a x)) as Gelu(√2 a x) √2 / a, and say how often: in place.

    Gelu itself has a half before it, which onnxsim moves into the weights of a layer behind it;
    a factor in front may have gone the same way.
    """
    view = _View(graph)
    products = [view.product(node) for node in graph.node if node.op_type == "Erf"]
    written = {
        product.result: _gelu(product, view.weights) for product in products if product is not None
    }
    gone = {name for product in products if product is not None for name in product.inner}
    nodes = []
    for node in graph.node:
        if not gone & set(node.output):
            nodes += written.get(node.output[0], [node]) if node.output else [node]
    replace_nodes(graph, nodes)
    return len(written)


class _View:
    """A graph's constants, and who makes and takes its tensors."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.weights = Weights(graph)
        self.makers, self.takers = producers(graph.node), consumers(graph.node)
        self.results = output_names(graph)

    def constant(self, name: str) -> float | None:
        """A constant's value; None where it has several. Equalization writes one a channel."""
        value = self.weights.get(name)
        return None if value is None or not value.size or np.ptp(value) else float(value.flat[0])

    def only_taker(self, name: str, operator: str = "") -> onnx.NodeProto | None:
        """The only node that takes a tensor, where it is of that operator."""
        following = self.takers.get(name, [])
        if len(following) != 1 or name in self.results:
            return None
        return following[0] if operator in ("", following[0].op_type) else None

    def product(self, erf: onnx.NodeProto) -> _Product | None:
        """What an Erf is a part of."""
        add = self.only_taker(erf.output[0], "Add")
        end = self.only_taker(add.output[0], "Mul") if add is not None else None
        if add is None or end is None:
            return None
        (summand,) = [name for name in add.input if name != erf.output[0]] or [""]
        (x,) = [name for name in end.input if name != add.output[0]] or [""]
        factor = self._factor(erf.input[0], x)
        if not factor or not isclose(self.constant(summand) or 0, 1, rel_tol=1e-5):
            return None
        inner, scale = {erf.output[0], add.output[0]}, 1.0
        if erf.input[0] != x and self.only_taker(erf.input[0]) is not None:
            inner.add(erf.input[0])
        after = self.only_taker(end.output[0], "Mul")
        if after is not None:
            (other,) = [name for name in after.input if name != end.output[0]] or [""]
            if half := self.constant(other):
                inner.add(end.output[0])
                end, scale = after, half
        return _Product(x, factor, scale, end.output[0], frozenset(inner))

    def _factor(self, argument: str, x: str) -> float | None:
        """What x is multiplied by to be Erf's argument; None where that is no constant."""
        maker = self.makers.get(argument)
        if argument == x:
            return 1.0
        if maker is None or maker.op_type not in ("Mul", "Div") or x not in maker.input:
            return None
        if maker.op_type == "Div":
            divisor = self.constant(maker.input[1]) if maker.input[0] == x else None
            return 1 / divisor if divisor else None
        return self.constant(maker.input[1] if maker.input[0] == x else maker.input[0])


def _gelu(product: _Product, weights: Weights) -> list[onnx.NodeProto]:
    """A product's nodes with Gelu, and with factors where they are not 1."""
    from onnx import helper

    before, behind = sqrt(2) * product.factor, sqrt(2) / product.factor * product.scale
    nodes: list[onnx.NodeProto] = []
    source = product.x
    for operator, factor in (("Mul", before), ("Gelu", None), ("Mul", behind)):
        inputs = [source]
        if factor is not None:
            if isclose(factor, 1, rel_tol=1e-5):
                continue
            name = f"{product.result}_factor{len(nodes)}"
            inputs.append(weights.add(name, np.array(factor, np.float32)))
        source = f"{product.result}_gelu{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [source], source))
    nodes[-1].output[0] = product.result
    return nodes
