"""Hard-swish and hard sigmoid, however they are written, in the form that the target runs best.

hardswish(x) = x * relu6(x + 3) / 6 and hardsigmoid(x) = relu6(x + 3) / 6: Howard et al., Searching
for MobileNetV3, 2019, 5.2.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph import signature as graphs
from workbench.onnxgraph.view import RewriteContext, View, is_baked
from workbench.onnxgraph.walk import attributes
from workbench.quantization.prepare.node_rewrites import each_node

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

SIXTH = 1 / 6
# HardSwish is an operator of its own from here on.
HARD_SWISH_OPSET = 14


def rewrite_hard_swish(model: onnx.ModelProto, context: RewriteContext) -> int:
    """Every hard-swish in the form that the target runs best.

    x * hardsigmoid(x), x * relu6(x + 3) / 6 with the division anywhere, and HardSwish are known.
    """
    view = View(model)
    form = FORMS[context.target]
    count = 0
    for node in reversed(view.nodes):  # the outermost product of several first
        source = _swished_input(view, node)
        stays = node.op_type == "HardSwish" and form is as_operator
        if source is None or stays or is_baked(node):
            continue
        view.drop(node)
        form(view, source, node.output[0])
        count += 1
    return view.write_if(count)


@each_node
def rewrite_hard_sigmoid(view: View, node: onnx.NodeProto, context: RewriteContext) -> bool:
    """relu6(x + 3) / 6 as HardSigmoid for ONNX Runtime, and the other way round for TFLite.

    A constant per channel that the runtime would multiply anew stays visible as the gate it is.
    """
    if is_baked(node):
        return False
    output = node.output[0] if node.output else ""
    if context.target == "tflite" and node.op_type == "HardSigmoid":
        gate = _gate(view, output)
        if gate is None:
            return False
        view.drop(node)
        clipped = _relu6(view, gate[0], output)
        view.put("Mul", [clipped, _number(view, output, "sixth", SIXTH)], output)
        return True
    if context.target == "ort" and node.op_type in ("Mul", "Div"):
        scale, inner = _split_scale(view, output)
        gate = _gate(view, inner) if inner != output else None
        if gate is None or gate[1] != 6 or not math.isclose(6 * scale, 1, rel_tol=1e-5):
            return False
        view.drop(node)
        view.put("HardSigmoid", [gate[0]], output, alpha=SIXTH, beta=0.5)
        return True
    return False


def _swished_input(view: View, node: onnx.NodeProto) -> str | None:
    """The x of a hard-swish that ends in this node."""
    if node.domain or view.is_dropped(node) or node.op_type not in ("HardSwish", "Mul", "Div"):
        return None
    if node.op_type == "HardSwish":
        return str(node.input[0])
    outer, product = _split_scale(view, node.output[0])
    last = view.maker(product, "Mul")
    if last is None:
        return None
    for gated, plain in ((0, 1), (1, 0)):
        scale, inner = _split_scale(view, last.input[gated])
        gate = _gate(view, inner)
        if gate is None:
            continue
        source, factor = gate
        own, x = _split_scale(view, last.input[plain], source)
        if x == source and math.isclose(outer * scale * own * factor, 1, rel_tol=1e-5):
            return source
    return None


def _split_scale(view: View, name: str, until: str = "") -> tuple[float, str]:
    """A tensor as a number times another one: Mul and Div by numbers taken off, up to `until`."""
    scale = 1.0
    while name != until:
        node = view.maker(name, "Mul", "Div")
        if node is None:
            break
        first, second = map(view.scalar, node.input)
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
        slope, offset = (attributes(node).get(key, default) for key, default in
                         (("alpha", 0.2), ("beta", 0.5)))  # fmt: skip
        usual = math.isclose(slope, SIXTH, rel_tol=1e-5) and math.isclose(offset, 0.5)
        return (node.input[0], 1.0) if usual else None
    if [view.scalar(name) for name in node.input[1:]] != [0.0, 6.0]:
        return None
    shifted = view.maker(node.input[0], "Add")
    if shifted is None:
        return None
    for x, number in ((0, 1), (1, 0)):
        if view.scalar(shifted.input[number]) == 3.0:
            return shifted.input[x], 6.0
    return None


def _number(view: View, output: str, word: str, value: float) -> str:
    return view.weights.add(f"{output}_{word}", np.array(value, np.float32))


def _relu6(view: View, x: str, output: str) -> str:
    """relu6(x + 3)."""
    shifted = view.put("Add", [x, _number(view, output, "three", 3)], f"{output}_shifted")
    limits = [_number(view, output, "least", 0), _number(view, output, "most", 6)]
    return view.put("Clip", [shifted, *limits], f"{output}_relu6")


def as_operator(view: View, x: str, output: str) -> None:
    """HardSwish; below its opset x * hardsigmoid(x)."""
    if graphs.opset(view.model) >= HARD_SWISH_OPSET:
        view.put("HardSwish", [x], output)
        return
    gate = view.put("HardSigmoid", [x], f"{output}_gate", alpha=SIXTH, beta=0.5)
    view.put("Mul", [x, gate], output)


def as_scaled_first(view: View, x: str, output: str) -> None:
    """(x / 6) * relu6(x + 3)"""
    scaled = view.put("Mul", [x, _number(view, output, "sixth", SIXTH)], f"{output}_scaled")
    view.put("Mul", [scaled, _relu6(view, x, output)], output)


FORMS: dict[str, Callable[[View, str, str], None]] = {
    "ort": as_operator,
    # One XNNPACK partition; the product scaled last is fused back into HARD_SWISH, which splits it.
    "tflite": as_scaled_first,
}
