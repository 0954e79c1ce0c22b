"""ONNX operators in torch, by name; they raise NotImplementedError for forms that they lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from workbench.quantization.core import torch_layers as layers
from workbench.quantization.core.torch_layers import Inputs, ints, pad, text

if TYPE_CHECKING:
    from workbench.quantization.core.network import NetworkNode

Operator = Callable[["NetworkNode", Inputs], list[Tensor]]


def _reshape(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    shape = ints(inputs[1])
    if not node.attributes.get("allowzero"):
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return [x.reshape(shape)]


def _flatten(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axis = node.attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return [x.reshape(rows, -1)]


def _axes(node: NetworkNode, inputs: Inputs, position: int = 1) -> list[int] | None:
    """Axes from an attribute (older opsets) or an input; None where neither is there."""
    if "axes" in node.attributes:
        return ints(node.attributes["axes"])
    if len(inputs) > position and inputs[position] is not None:
        return ints(inputs[position])
    return None


def _squeeze(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axes = _axes(node, inputs)
    return [x.squeeze() if axes is None else x.squeeze(tuple(axes))]


def _unsqueeze(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axes = _axes(node, inputs) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return [x]


def _split(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axis = node.attributes.get("axis", 0)
    sizes = node.attributes.get("split") or (ints(inputs[1]) if len(inputs) > 1 else None)
    if not sizes:
        total, count = x.shape[axis], len(node.outputs)
        size = -(-total // count)
        sizes = [size] * (count - 1) + [total - size * (count - 1)]
    return list(torch.split(x, sizes, axis))


def _slice(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    if "starts" in node.attributes:
        raise NotImplementedError
    starts, ends = ints(inputs[1]), ints(inputs[2])
    axes = _axes(node, inputs, 3) or list(range(len(starts)))
    steps = ints(inputs[4]) if len(inputs) > 4 else [1] * len(starts)
    if any(step < 1 for step in steps):
        raise NotImplementedError
    slices = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        slices[axis] = slice(start, min(end, x.shape[axis]), step)
    return [x[tuple(slices)]]


def _gather(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x, indices = inputs[0], inputs[1]
    assert x is not None and indices is not None
    axis = node.attributes.get("axis", 0) % x.ndim
    flat = (indices.long() % x.shape[axis]).reshape(-1)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return [x.index_select(axis, flat).reshape(shape)]


def _pad(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    mode = text(node.attributes.get("mode"), "constant")
    if mode != "constant" or len(inputs) < 2 or (len(inputs) > 3 and inputs[3] is not None):
        raise NotImplementedError
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return [pad(x, ints(inputs[1]), value)]


def _clip(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    bounds = [inputs[i] if len(inputs) > i else None for i in (1, 2)]
    low = bounds[0] if bounds[0] is not None else node.attributes.get("min")
    high = bounds[1] if bounds[1] is not None else node.attributes.get("max")
    low, high = (float(b) if b is not None else None for b in (low, high))
    return [x if low is None and high is None else x.clamp(low, high)]


def _reduce(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axes = _axes(node, inputs)
    if axes is None and node.attributes.get("noop_with_empty_axes"):
        return [x]
    over = axes or list(range(x.ndim))
    keep = bool(node.attributes.get("keepdims", 1))
    functions: Mapping[str, Any] = {
        "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
        "ReduceMin": torch.amin,
        "ReduceL2": lambda value, dim, keepdim: value.pow(2).sum(dim, keepdim=keepdim).sqrt(),
    }  # fmt: skip
    return [functions[node.op](x, dim=over, keepdim=keep)]


def _cast(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    from onnx import TensorProto

    x = inputs[0]
    assert x is not None
    types = {
        TensorProto.FLOAT: torch.float32, TensorProto.INT64: torch.int64,
        TensorProto.INT32: torch.int32, TensorProto.BOOL: torch.bool,
        TensorProto.DOUBLE: torch.float64,
    }  # fmt: skip
    if node.attributes["to"] not in types:
        raise NotImplementedError
    return [x.to(types[node.attributes["to"]])]


def _shape(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    sizes = list(x.shape)[node.attributes.get("start", 0) : node.attributes.get("end")]
    return [torch.tensor(sizes, dtype=torch.int64)]


def _division(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _softmax(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    return [x.softmax(node.attributes.get("axis", -1))]


def _gelu(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    return [F.gelu(x, approximate=text(node.attributes.get("approximate"), "none"))]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _node, inputs: [function(inputs[0])]  # type: ignore[arg-type]


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _node, inputs: [function(inputs[0], inputs[1])]  # type: ignore[arg-type]


def _hard_sigmoid(node: NetworkNode, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    slope, offset = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return [(slope * x + offset).clamp(0, 1)]


OPERATORS: dict[str, Operator] = {
    "Conv": layers.conv, "ConvTranspose": layers.conv_transpose, "Gemm": layers.gemm,
    "MatMul": _binary(torch.matmul),
    "MaxPool": layers.pool, "AveragePool": layers.pool, "GlobalAveragePool": layers.global_pool,
    "GlobalMaxPool": layers.global_pool, "ReduceMean": _reduce, "ReduceSum": _reduce,
    "ReduceMax": _reduce, "ReduceMin": _reduce, "ReduceL2": _reduce,
    "Relu": _unary(F.relu), "Sigmoid": _unary(torch.sigmoid), "Tanh": _unary(torch.tanh),
    "Erf": _unary(torch.erf), "Gelu": _gelu, "Softmax": _softmax, "Clip": _clip,
    "LeakyRelu": lambda node, x: [F.leaky_relu(x[0], node.attributes.get("alpha", 0.01))],  # type: ignore[arg-type]
    "Elu": lambda node, x: [F.elu(x[0], node.attributes.get("alpha", 1.0))],  # type: ignore[arg-type]
    "PRelu": _binary(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "HardSigmoid": _hard_sigmoid, "HardSwish": _unary(F.hardswish),
    "Softplus": _unary(F.softplus),
    "Mish": _unary(F.mish), "Add": _binary(torch.add), "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul), "Div": _binary(_division), "Pow": _binary(torch.pow),
    "Sqrt": _unary(torch.sqrt), "Exp": _unary(torch.exp), "Log": _unary(torch.log),
    "Neg": _unary(torch.neg), "Abs": _unary(torch.abs), "Reciprocal": _unary(torch.reciprocal),
    "Identity": _unary(lambda x: x), "Dropout": _unary(lambda x: x),
    "Floor": _unary(torch.floor), "Ceil": _unary(torch.ceil), "Not": _unary(torch.logical_not),
    "Equal": _binary(torch.eq), "Greater": _binary(torch.gt), "Less": _binary(torch.lt),
    "And": _binary(torch.logical_and), "Or": _binary(torch.logical_or),
    "Where": lambda _node, x: [torch.where(x[0], x[1], x[2])],  # type: ignore[arg-type]
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": lambda node, x: [x[0].permute(  # type: ignore[union-attr]
        node.attributes.get("perm") or list(reversed(range(x[0].ndim))))],  # type: ignore[union-attr]
    "Concat": lambda node, x: [torch.cat(list(x), node.attributes["axis"])],  # type: ignore[arg-type]
    "Expand": lambda _node, x: [torch.mul(x[0], torch.ones(ints(x[1]), dtype=x[0].dtype))],  # type: ignore[union-attr, arg-type]
    "Split": _split, "Slice": _slice, "Gather": _gather, "Pad": _pad, "Shape": _shape,
    "Cast": _cast, "Resize": layers.resize, "LayerNormalization": layers.layer_norm,
    "BatchNormalization": layers.batch_norm,
}  # fmt: skip
