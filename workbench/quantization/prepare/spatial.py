"""Padding, pooling and changes of shape, as few operators as they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.signs import never_negative
from workbench.onnxgraph.view import RewriteContext, View, axes_of, is_baked, set_attribute
from workbench.onnxgraph.walk import attributes
from workbench.quantization.prepare.constants import bypass
from workbench.quantization.prepare.node_rewrites import each_node

if TYPE_CHECKING:
    import onnx

POOLS = ("AveragePool", "MaxPool")


@each_node
def fold_pads(view: View, node: onnx.NodeProto, context: RewriteContext) -> bool:
    """Explicit Pads with zeros folded into every convolution or pool that takes them.

    A pool must cover at least one true value with each window. MaxPool pads with what never wins:
    zeros are that where no value is negative. For TFLite it keeps its Pad: the converter to it
    would write the pool's own padding as a Pad with the least float there is.
    """
    amounts = _zero_padding(view, node)
    takers = list(view.takers.get(node.output[0], [])) if amounts is not None else []
    if amounts is None or not takers or node.output[0] in view.kept or is_baked(node):
        return False
    if not all(_can_pad(view, node, taker, amounts, context) for taker in takers):
        return False
    for taker in takers:
        own = attributes(taker).get("pads", [0] * len(amounts))
        set_attribute(taker, "auto_pad", None)
        set_attribute(taker, "pads", [a + b for a, b in zip(own, amounts, strict=True)])
        if taker.op_type == "AveragePool":
            set_attribute(taker, "count_include_pad", 1)
        view.reroute(taker, 0, node.input[0])
    view.drop(node)
    return True


def _zero_padding(view: View, node: onnx.NodeProto) -> list[int] | None:
    """How far a Pad goes with zeros, [begin..., end...] of the spatial axes; None for others."""
    if node.op_type != "Pad" or attributes(node).get("mode", b"constant") != b"constant":
        return None
    amounts = view.constant(node, 1)
    if amounts is None:
        return None
    if len(node.input) > 2 and node.input[2]:
        value = view.constant(node, 2)
        if value is None or value.any():
            return None
    half = len(amounts) // 2
    begin, end = amounts[:half].tolist(), amounts[half:].tolist()
    if len(node.input) > 3 and node.input[3]:
        axes = view.constant(node, 3)
        rank = view.rank(node.input[0])
        if axes is None or not rank:
            return None
        padded = [int(axis) % rank for axis in axes]
        begin, end = (
            [dict(zip(padded, side, strict=True)).get(axis, 0) for axis in range(rank)]
            for side in (begin, end)
        )
    if len(begin) < 3 or any([*begin[:2], *end[:2]]) or min(*begin, *end) < 0:
        return None
    return [int(amount) for amount in (*begin[2:], *end[2:])]


def _can_pad(
    view: View,
    pad: onnx.NodeProto,
    node: onnx.NodeProto,
    amounts: list[int],
    context: RewriteContext,
) -> bool:
    """Whether a node may do a Pad's padding itself."""
    options = attributes(node)
    if node.domain or node.op_type not in ("Conv", *POOLS) or node.input[0] != pad.output[0]:
        return False
    explicit = options.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    if pad.output[0] in node.input[1:] or not explicit:
        return False
    own = any(options.get("pads", []))
    if node.op_type == "Conv":
        return True
    kernel = options["kernel_shape"]
    total = [a + b for a, b in zip(options.get("pads", [0] * len(amounts)), amounts, strict=True)]
    covered = all(amount < size for amount, size in zip(total, kernel * 2, strict=True))
    plain = not options.get("ceil_mode") and set(options.get("dilations", [1])) == {1}
    if not (covered and plain):
        return False
    if node.op_type == "AveragePool":
        return not own or bool(options.get("count_include_pad", 0))
    positive = never_negative(view.makers.get(pad.input[0]), view.weights)
    return context.target == "ort" and positive and len(node.output) == 1


@each_node
def mean_to_global_pool(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """ReduceMean over the two spatial axes of [N, C, H, W] as GlobalAveragePool (and Flatten)."""
    if node.op_type != "ReduceMean" or view.rank(node.input[0]) != 4:
        return False
    axes = axes_of(view, node)
    if axes is None or sorted(axis % 4 for axis in axes) != [2, 3] or is_baked(node):
        return False
    view.drop(node)
    output = node.output[0]
    if attributes(node).get("keepdims", 1):
        view.put("GlobalAveragePool", [node.input[0]], output)
    else:
        pooled = view.put("GlobalAveragePool", [node.input[0]], f"{output}_pooled")
        view.put("Flatten", [pooled], output, axis=1)
    return True


@each_node
def merge_shape_changes(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """A Reshape, Flatten or Transpose right after another, where one of them does for both."""
    first = view.makers.get(node.input[0]) if node.input else None
    if first is None or is_baked(node) or is_baked(first) or view.is_dropped(first):
        return False
    if view.only_taker(node.input[0]) is None:
        return False
    if node.op_type == first.op_type == "Transpose":
        before, after = attributes(first).get("perm"), attributes(node).get("perm")
        if before is None or after is None:
            return False
        order = [before[axis] for axis in after]
        set_attribute(node, "perm", order)
        view.reroute(node, 0, first.input[0])
        view.drop(first)
        if order == sorted(order):
            bypass(view, node)
        return True
    if not _overrules(view, first, node):
        return False
    view.reroute(node, 0, first.input[0])
    view.drop(first)
    return True


def _overrules(view: View, first: onnx.NodeProto, second: onnx.NodeProto) -> bool:
    """Whether a change of shape gives the same whatever shape the one before it gave."""
    if first.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        return False
    if second.op_type == "Reshape":
        target = view.constant(second, 1)
        if target is None or attributes(second).get("allowzero"):
            return False
        zeros = np.flatnonzero(target == 0)
        return not len(zeros) or (zeros.tolist() == [0] and _keeps_batch(view, first))
    flat = second.op_type == "Flatten" and attributes(second).get("axis", 1) == 1
    return flat and _keeps_batch(view, first)


def _keeps_batch(view: View, node: onnx.NodeProto) -> bool:
    """Whether a change of shape leaves axis 0 as it is."""
    if node.op_type == "Reshape":
        target = view.constant(node, 1)
        zero = target is not None and target.size > 0 and target[0] == 0
        return bool(zero) and not attributes(node).get("allowzero")
    if node.op_type == "Flatten":
        return bool(attributes(node).get("axis", 1) == 1)
    axes = axes_of(view, node)
    return axes is not None and min(axes, default=1) >= 1
