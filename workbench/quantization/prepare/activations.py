"""Hard-swish and hard sigmoid, however they are written, in the form that the target runs best.

hardswish(x) = x * relu6(x + 3) / 6 and hardsigmoid(x) = relu6(x + 3) / 6: Howard et al., Searching
for MobileNetV3, 2019, 5.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph import signature as graphs
from workbench.onnxgraph.view import Given, View, attributes, is_baked

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

SIXTH = 1 / 6
# HardSwish is an operator of its own from here on.
HARD_SWISH_OPSET = 14


def hard_swishes(model: onnx.ModelProto, given: Given) -> int:
    """Every hard-swish in the form that the target runs best.

    x * hardsigmoid(x), x * relu6(x + 3) / 6 with the division anywhere, and HardSwish are known.
    """
    view = View(model)
    form = FORMS[given.target]
    count = 0
    for node in reversed(view.nodes):  # the outermost product of several first
        source = _swished(view, node)
        if source is None or is_baked(node) or (node.op_type == "HardSwish" and _stays(given)):
            continue
        view.drop(node)
        form(view, source, node.output[0])
        count += 1
    return view.written(count)


def _stays(given: Given) -> bool:
    return FORMS[given.target] is as_operator


def hard_sigmoids(model: onnx.ModelProto, given: Given) -> int:
    """relu6(x + 3) / 6 as HardSigmoid for ONNX Runtime, and the other way round for TFLite.

    A constant per channel that the runtime would multiply anew stays visible as the gate it is.
    """
    view = View(model)
    count = 0
    for node in view.nodes:
        if is_baked(node):
            continue
        made = node.output[0] if node.output else ""
        if given.target == "tflite" and node.op_type == "HardSigmoid":
            gate = _gate(view, made)
            if gate is not None:
                view.drop(node)
                clipped = _relu6(view, gate[0], made)
                view.put("Mul", [clipped, _number(view, made, "sixth", SIXTH)], made)
                count += 1
        elif given.target == "ort" and node.op_type in ("Mul", "Div"):
            scale, inner = _peeled(view, made)
            gate = _gate(view, inner) if inner != made else None
            if gate is not None and gate[1] == 6 and math.isclose(6 * scale, 1, rel_tol=1e-5):
                view.drop(node)
                view.put("HardSigmoid", [gate[0]], made, alpha=SIXTH, beta=0.5)
                count += 1
    return view.written(count)


def _swished(view: View, node: onnx.NodeProto) -> str | None:
    """The x of a hard-swish that ends in this node."""
    if node.domain or view.dropped(node) or node.op_type not in ("HardSwish", "Mul", "Div"):
        return None
    if node.op_type == "HardSwish":
        return str(node.input[0])
    outer, product = _peeled(view, node.output[0])
    last = view.maker(product, "Mul")
    if last is None:
        return None
    for one, other in ((0, 1), (1, 0)):
        scale, inner = _peeled(view, last.input[one])
        gate = _gate(view, inner)
        if gate is None:
            continue
        source, factor = gate
        own, x = _peeled(view, last.input[other], source)
        if x == source and math.isclose(outer * scale * own * factor, 1, rel_tol=1e-5):
            return source
    return None


def _peeled(view: View, name: str, until: str = "") -> tuple[float, str]:
    """A tensor as a number times another one: Mul and Div by numbers taken off, up to `until`."""
    scale = 1.0
    while name != until:
        node = view.maker(name, "Mul", "Div")
        if node is None:
            break
        first, second = (view.scalar(one) for one in node.input)
        if second is not None and second != 0:
            scale *= second if node.op_type == "Mul" else 1 / second
            name = node.input[0]
        elif first is not None and node.op_type == "Mul":
            scale *= first
            name = node.input[1]
        else:
            break
    return scale, name


def _gate(view: View, name: str) -> tuple[str, float] | None:
    """The x of a hard sigmoid, and what the tensor is of it: once, or 6 times as relu6(x + 3)."""
    node = view.maker(name, "HardSigmoid", "Clip")
    if node is None:
        return None
    if node.op_type == "HardSigmoid":
        found = attributes(node)
        slope, offset = found.get("alpha", 0.2), found.get("beta", 0.5)
        usual = math.isclose(slope, SIXTH, rel_tol=1e-5) and math.isclose(offset, 0.5)
        return (node.input[0], 1.0) if usual else None
    if [view.scalar(one) for one in node.input[1:]] != [0.0, 6.0]:
        return None
    added = view.maker(node.input[0], "Add")
    if added is None:
        return None
    for one, other in ((0, 1), (1, 0)):
        if view.scalar(added.input[other]) == 3.0:
            return added.input[one], 6.0
    return None


def _number(view: View, made: str, word: str, value: float) -> str:
    return view.weights.add(f"{made}_{word}", np.array(value, np.float32))


def _relu6(view: View, x: str, made: str) -> str:
    """relu6(x + 3)."""
    shifted = view.put("Add", [x, _number(view, made, "three", 3)], f"{made}_shifted")
    limits = [_number(view, made, "least", 0), _number(view, made, "most", 6)]
    return view.put("Clip", [shifted, *limits], f"{made}_relu6")


def as_operator(view: View, x: str, made: str) -> None:
    """HardSwish; below its opset as_gated."""
    if graphs.opset(view.model) < HARD_SWISH_OPSET:
        as_gated(view, x, made)
    else:
        view.put("HardSwish", [x], made)


def as_gated(view: View, x: str, made: str) -> None:
    """x * hardsigmoid(x)"""
    gate = view.put("HardSigmoid", [x], f"{made}_gate", alpha=SIXTH, beta=0.5)
    view.put("Mul", [x, gate], made)


def as_scaled_first(view: View, x: str, made: str) -> None:
    """(x / 6) * relu6(x + 3)"""
    scaled = view.put("Mul", [x, _number(view, made, "sixth", SIXTH)], f"{made}_scaled")
    view.put("Mul", [scaled, _relu6(view, x, made)], made)


def as_scaled_last(view: View, x: str, made: str) -> None:
    """(x * relu6(x + 3)) / 6"""
    product = view.put("Mul", [x, _relu6(view, x, made)], f"{made}_product")
    view.put("Mul", [product, _number(view, made, "sixth", SIXTH)], made)


FORMS: dict[str, Callable[[View, str, str], None]] = {
    "ort": as_operator,
    # One XNNPACK partition; the product scaled last is fused back into HARD_SWISH, which splits it.
    "tflite": as_scaled_first,
}
