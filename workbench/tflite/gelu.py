"""Gelu written out with Erf as the operator that ONNX has from opset 20 on, and TFLite too."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose, sqrt
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import Weights, replace_nodes
from workbench.onnxgraph.view import View
from workbench.tflite.lowering import Inputs, Rewritten

if TYPE_CHECKING:
    import onnx

# Gelu is an operator of its own from here on.
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
    count += _scaled_gelus(fused.model)
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


def _scaled_gelus(model: onnx.ModelProto) -> int:
    """Write x (1 + erf(a x)) as Gelu(√2 a x) √2 / a, and say how often: in place.

    Gelu itself has a half before it, which onnxsim moves into the weights of a layer behind it;
    a factor in front may have gone the same way.
    """
    view = View(model)
    products = [_product(view, node) for node in view.nodes if node.op_type == "Erf"]
    written = {
        product.result: _gelu(product, view.weights) for product in products if product is not None
    }
    gone = {name for product in products if product is not None for name in product.inner}
    nodes = []
    for node in view.nodes:
        if not gone & set(node.output):
            nodes += written.get(node.output[0], [node]) if node.output else [node]
    replace_nodes(view.graph, nodes)
    return len(written)


def _product(view: View, erf: onnx.NodeProto) -> _Product | None:
    """What an Erf is a part of."""
    add = _only_taker(view, erf.output[0], "Add")
    end = _only_taker(view, add.output[0], "Mul") if add is not None else None
    if add is None or end is None:
        return None
    x = _other(end, add.output[0])
    factor = _factor(view, erf.input[0], x)
    summand = _value(view, _other(add, erf.output[0]))
    if not factor or not isclose(summand or 0, 1, rel_tol=1e-5):
        return None
    inner, scale = {erf.output[0], add.output[0]}, 1.0
    if erf.input[0] != x and view.only_taker(erf.input[0]) is not None:
        inner.add(erf.input[0])
    after = _only_taker(view, end.output[0], "Mul")
    if after is not None and (half := _value(view, _other(after, end.output[0]))):
        inner.add(end.output[0])
        end, scale = after, half
    return _Product(x, factor, scale, end.output[0], frozenset(inner))


def _only_taker(view: View, name: str, operator: str) -> onnx.NodeProto | None:
    """The only node that takes a tensor, where it is of that operator."""
    taker = view.only_taker(name)
    return taker if taker is not None and taker.op_type == operator else None


def _other(node: onnx.NodeProto, name: str) -> str:
    """What a node of two inputs takes beside a tensor; '' where it takes that twice."""
    return next((taken for taken in node.input if taken != name), "")


def _value(view: View, name: str) -> float | None:
    """A constant's value; None where it has several. Equalization writes one a channel."""
    array = view.weights.get(name)
    return None if array is None or not array.size or np.ptp(array) else float(array.flat[0])


def _factor(view: View, argument: str, x: str) -> float | None:
    """What x is multiplied by to be Erf's argument; None where that is no constant."""
    if argument == x:
        return 1.0
    maker = view.maker(argument, "Mul", "Div")
    if maker is None or x not in maker.input:
        return None
    value = _value(view, _other(maker, x))
    if maker.op_type == "Mul":
        return value
    return 1 / value if value and maker.input[0] == x else None


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
