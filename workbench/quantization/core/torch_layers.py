"""ONNX's convolutions, products, pools, norms and Resize in torch (see `torch_operators`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

if TYPE_CHECKING:
    from workbench.quantization.core.network import NetworkNode

Inputs = Sequence[Tensor | None]


def ints(value: Tensor | Sequence[int] | None) -> list[int]:
    """Whole numbers of a tensor or an attribute."""
    if value is None:
        return []
    return [int(number) for number in (value.tolist() if isinstance(value, Tensor) else value)]


def text(value: Any, default: str = "") -> str:
    """A text attribute."""
    return value.decode() if isinstance(value, bytes) else (value or default)


def pads(node: NetworkNode, x: Tensor, kernel: Sequence[int]) -> list[int]:
    """Explicit pads of a convolution or pool: [begin…, end…] of the spatial axes."""
    rank = len(kernel)
    auto = text(node.attributes.get("auto_pad"), "NOTSET")
    if auto in ("NOTSET", "VALID"):
        return ints(node.attributes.get("pads", [0] * 2 * rank))
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    begin, end = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        less, more = total // 2, total - total // 2
        begin.append(less if auto == "SAME_UPPER" else more)
        end.append(more if auto == "SAME_UPPER" else less)
    return begin + end


def pad(x: Tensor, around: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the spatial axes by ONNX's [begin…, end…]."""
    if not any(around):
        return x
    rank = len(around) // 2
    order = [edge for axis in reversed(range(rank)) for edge in (around[axis], around[rank + axis])]
    return F.pad(x, order, value=value)


NEAREST_MODES = (
    "round_prefer_floor",
    "round_prefer_ceil",
)  # the same where sizes grow by whole factors
_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def conv(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """Conv of one to three spatial axes."""
    x, w = inputs[0], inputs[1]
    assert x is not None and w is not None
    bias = inputs[2] if len(inputs) > 2 else None
    rank = x.ndim - 2
    around = pads(node, x, w.shape[2:])
    same = around[:rank] == around[rank:]
    if not same:
        x = pad(x, around)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    group = node.attributes.get("group", 1)
    padding = around[:rank] if same else 0
    return [_CONVOLUTIONS[x.ndim](x, w, bias, strides, padding, dilations, group)]


def conv_transpose(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """ConvTranspose with explicit pads, alike at both ends."""
    x, w = inputs[0], inputs[1]
    assert x is not None and w is not None
    attributes = node.attributes
    if "output_shape" in attributes or text(attributes.get("auto_pad"), "NOTSET") != "NOTSET":
        raise NotImplementedError
    rank = x.ndim - 2
    around = attributes.get("pads", [0] * 2 * rank)
    if around[:rank] != around[rank:]:
        raise NotImplementedError
    function: Any = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.ndim]
    bias = inputs[2] if len(inputs) > 2 else None
    return [
        function(
            x, w, bias, attributes.get("strides", [1] * rank), around[:rank],
            attributes.get("output_padding", [0] * rank), attributes.get("group", 1),
            attributes.get("dilations", [1] * rank),
        )
    ]  # fmt: skip


def gemm(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """Gemm."""
    a, b = inputs[0], inputs[1]
    assert a is not None and b is not None
    a = a.T if node.attributes.get("transA") else a
    b = b.T if node.attributes.get("transB") else b
    product = node.attributes.get("alpha", 1.0) * (a @ b)
    if len(inputs) > 2 and inputs[2] is not None:
        product = product + node.attributes.get("beta", 1.0) * inputs[2]
    return [product]


def pool(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """MaxPool or AveragePool."""
    x = inputs[0]
    assert x is not None
    attributes = node.attributes
    kernel = attributes["kernel_shape"]
    rank = len(kernel)
    around = pads(node, x, kernel)
    strides = attributes.get("strides", [1] * rank)
    ceil = bool(attributes.get("ceil_mode", 0))
    if len(node.outputs) > 1 or ceil or any(d != 1 for d in attributes.get("dilations", [1])):
        raise NotImplementedError
    if node.op == "MaxPool":
        function: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[rank]
        return [function(pad(x, around, float("-inf")), kernel, strides)]
    function = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[rank]
    pooled = function(pad(x, around), kernel, strides)
    if any(around) and not attributes.get("count_include_pad", 0):
        pooled = pooled / function(pad(torch.ones_like(x[:1, :1]), around), kernel, strides)
    return [pooled]


def global_pool(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """GlobalMaxPool or GlobalAveragePool."""
    x = inputs[0]
    assert x is not None
    over = list(range(2, x.ndim))
    return [x.mean(over, keepdim=True) if "Average" in node.op else x.amax(over, keepdim=True)]


def layer_norm(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """LayerNormalization with one output."""
    x = inputs[0]
    assert x is not None
    if len(node.outputs) > 1:
        raise NotImplementedError
    axis = node.attributes.get("axis", -1) % x.ndim
    bias = inputs[2] if len(inputs) > 2 else None
    epsilon = node.attributes.get("epsilon", 1e-5)
    return [F.layer_norm(x, x.shape[axis:], inputs[1], bias, epsilon)]


def batch_norm(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """BatchNormalization at inference."""
    x, scale, bias, mean, variance = inputs[:5]
    assert x is not None and mean is not None and variance is not None
    epsilon = node.attributes.get("epsilon", 1e-5)
    return [F.batch_norm(x, mean, variance, scale, bias, eps=epsilon)]


def resize(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    """Resize of images, in the modes that torch computes alike."""
    x = inputs[0]
    assert x is not None
    attributes = {key: text(value) if isinstance(value, bytes) else value
                  for key, value in node.attributes.items()}  # fmt: skip
    sizes = ints(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
    scales = inputs[2] if len(inputs) > 2 and inputs[2] is not None else None
    if sizes is None and scales is not None and scales.numel():
        sizes = [int(a * b) for a, b in zip(x.shape, scales.tolist(), strict=True)]
    if sizes is None or len(sizes) != 4 or sizes[:2] != list(x.shape[:2]):
        raise NotImplementedError
    whole = all(s % a == 0 for s, a in zip(sizes[2:], x.shape[2:], strict=True))
    form = (
        attributes.get("mode", "nearest"),
        attributes.get("coordinate_transformation_mode", "half_pixel"),
    )
    if form[0] == "nearest" and whole and form[1] in ("asymmetric", "half_pixel"):
        rounding = attributes.get("nearest_mode", "round_prefer_floor")
        if rounding not in (("floor",) if form[1] == "asymmetric" else NEAREST_MODES):
            raise NotImplementedError
        return [F.interpolate(x, sizes[2:], mode="nearest")]
    if form in (("linear", "half_pixel"), ("linear", "pytorch_half_pixel")) and min(sizes[2:]) > 1:
        return [F.interpolate(x, sizes[2:], mode="bilinear", align_corners=False)]
    if form == ("linear", "align_corners"):
        return [F.interpolate(x, sizes[2:], mode="bilinear", align_corners=True)]
    raise NotImplementedError
