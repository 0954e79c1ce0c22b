"""Channels of depthwise convolutions padded with zeros to what the INT8 kernels take at once.

A depthwise kernel works on 16 channels at a time on x86 and on 8 on ARM, the rest one by one. A
channel whose weights and bias are zeros costs less than that, and nothing takes its values: the
columns that the next convolutions get for it are zeros too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.view import Array, RewriteContext, View, is_real, set_attribute
from workbench.onnxgraph.walk import attributes

if TYPE_CHECKING:
    import onnx

# Operators of one input that compute each channel alone, and alike.
ALIKE = ("Relu", "LeakyRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Elu")
# Those of two, of tensors of the region or of one number.
COMBINED = ("Mul", "Add", "Sub", "Div")
MOST = 1 / 3  # of the channels, to be added


@dataclass
class ChannelRegion:
    """Tensors that have the same channels, and the convolutions that make, carry and take them.

    Attributes:
        channels: how many.
        makers, depthwise, takers: by name.
    """

    channels: int
    tensors: set[str] = field(default_factory=set)
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    depthwise: dict[str, onnx.NodeProto] = field(default_factory=dict)
    takers: dict[str, onnx.NodeProto] = field(default_factory=dict)


def align_for_target(model: onnx.ModelProto, context: RewriteContext) -> int:
    """Align to 16, which suits ARM too; LiteRT's kernels take any number as fast."""
    return align_channels(model) if context.target == "ort" else 0


def align_channels(model: onnx.ModelProto, multiple: int = 16, *, most: float = MOST) -> int:
    """Make the channels of depthwise convolutions a multiple of `multiple`; in how many regions.

    Only between plain convolutions with nothing but elementwise functions on the way, and where it
    adds at most the share `most` to the channels. Nodes need names of their own; weights that
    others take too are copied.
    """
    view = View(model)
    seen: set[str] = set()
    count = 0
    for node in view.nodes:
        channels = _depthwise_channels(view, node)
        if not channels or channels % multiple == 0 or node.name in seen:
            continue
        region = _region(view, node, channels)
        if region is None:
            continue
        seen |= region.depthwise.keys()
        more = -channels % multiple
        if more > most * channels:
            continue
        _pad(view, region, more)
        count += 1
    return view.write_if(count)


def _depthwise_channels(view: View, node: onnx.NodeProto) -> int:
    """The channels of a convolution of each channel alone; 0 of any other node."""
    weights = view.constant(node, 1) if node.op_type == "Conv" and not node.domain else None
    if not is_real(weights) or not _owns_bias(view, node):
        return 0
    group = attributes(node).get("group", 1)
    alone = group > 1 and weights.shape[0] == group and weights.shape[1] == 1
    return int(group) if alone else 0


def _is_plain(view: View, node: onnx.NodeProto, axis: int, channels: int) -> bool:
    """Whether a node is a convolution of all channels, with that many along its weights' axis."""
    if node.op_type != "Conv" or node.domain or attributes(node).get("group", 1) != 1:
        return False
    weights = view.constant(node, 1)
    return is_real(weights) and weights.shape[axis] == channels and _owns_bias(view, node)


def _owns_bias(view: View, node: onnx.NodeProto) -> bool:
    return len(node.input) < 3 or not node.input[2] or is_real(view.constant(node, 2))


def _region(view: View, node: onnx.NodeProto, channels: int) -> ChannelRegion | None:
    """All that has to get more channels where a depthwise convolution does; None where it cannot.

    A convolution that makes and takes tensors of one region would get rows and columns: `_pad`
    does each apart.
    """
    region = ChannelRegion(channels)
    waiting = [node.input[0]]
    while waiting:
        name = waiting.pop()
        if name in region.tensors:
            continue
        region.tensors.add(name)
        maker = view.makers.get(name)
        if maker is None or name in view.kept:
            return None
        if _is_plain(view, maker, 0, channels):
            region.makers[maker.name] = maker
        elif not _joins(view, region, maker, waiting):
            return None
        for taker in view.takers.get(name, []):
            if taker.input[0] == name and _is_plain(view, taker, 1, channels):
                region.takers[taker.name] = taker
            elif not _joins(view, region, taker, waiting):
                return None
    return region


def _joins(view: View, region: ChannelRegion, node: onnx.NodeProto, waiting: list[str]) -> bool:
    """Take a node that keeps channels into a region, with its tensors; False if it does not."""
    if _depthwise_channels(view, node) == region.channels:
        region.depthwise[node.name] = node
        waiting += [node.input[0], node.output[0]]
        return True
    tensors = [name for name in node.input if name and view.scalar(name) is None]
    if node.domain or (node.op_type, len(tensors)) not in {
        *((kind, 1) for kind in (*ALIKE, *COMBINED)),
        *((kind, 2) for kind in COMBINED[:2]),
    }:
        return False
    if node.op_type == "Div" and node.input[1] in tensors:
        return False  # by the zeros of the channels that are added
    waiting += [*tensors, node.output[0]]
    return True


def _pad(view: View, region: ChannelRegion, more: int) -> None:
    for node in (*region.makers.values(), *region.depthwise.values()):
        _extend(view, node, 1, 0, more)
        if len(node.input) > 2 and node.input[2]:
            _extend(view, node, 2, 0, more)
    for node in region.takers.values():
        _extend(view, node, 1, 1, more)
    for node in region.depthwise.values():
        set_attribute(node, "group", region.channels + more)


def _extend(view: View, node: onnx.NodeProto, index: int, axis: int, more: int) -> None:
    """Zeros at the end of an axis of a node's weights or bias."""
    array: Array | None = view.constant(node, index)
    assert array is not None  # `_is_plain` and `_depthwise_channels` saw it
    amounts = [(0, more if extended == axis else 0) for extended in range(array.ndim)]
    node.input[index] = view.weights.add(f"{node.input[index]}_aligned", np.pad(array, amounts))
