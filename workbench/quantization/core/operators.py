"""ONNX operators in torch, by name; one raises NotImplementedError for a form that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor

from workbench.quantization.core import operators_nn as nn
from workbench.quantization.core.operators_nn import Inputs, ints, padded, text

if TYPE_CHECKING:
    from workbench.quantization.core.network import Node

Operator = Callable[["Node", Inputs], list[Tensor]]


def _reshape(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    wanted = ints(inputs[1])
    if not node.attributes.get("allowzero"):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return [x.reshape(wanted)]


def _flatten(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axis = node.attributes.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return [x.reshape(rows, -1)]


def _axes(node: Node, inputs: Inputs, place: int = 1) -> list[int] | None:
    """Axes from an attribute (older opsets) or an input; None where neither is there."""
    if "axes" in node.attributes:
        return ints(node.attributes["axes"])
    if len(inputs) > place and inputs[place] is not None:
        return ints(inputs[place])
    return None


def _squeeze(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axes = _axes(node, inputs)
    return [x.squeeze() if axes is None else x.squeeze(tuple(axes))]


def _unsqueeze(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axes = _axes(node, inputs) or []
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return [x]


def _split(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    axis = node.attributes.get("axis", 0)
    sizes = node.attributes.get("split") or (ints(inputs[1]) if len(inputs) > 1 else None)
    if not sizes:
        whole, count = x.shape[axis], len(node.outputs)
        each = -(-whole // count)
        sizes = [each] * (count - 1) + [whole - each * (count - 1)]
    return list(torch.split(x, sizes, axis))


def _slice(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    if "starts" in node.attributes:
        raise NotImplementedError
    starts, ends = ints(inputs[1]), ints(inputs[2])
    axes = _axes(node, inputs, 3) or list(range(len(starts)))
    steps = ints(inputs[4]) if len(inputs) > 4 else [1] * len(starts)
    if any(step < 1 for step in steps):
        raise NotImplementedError
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, min(end, x.shape[axis]), step)
    return [x[tuple(where)]]


def _gather(node: Node, inputs: Inputs) -> list[Tensor]:
    x, indices = inputs[0], inputs[1]
    assert x is not None and indices is not None
    axis = node.attributes.get("axis", 0) % x.ndim
    flat = (indices.long() % x.shape[axis]).reshape(-1)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return [x.index_select(axis, flat).reshape(shape)]


def _pad(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    mode = text(node.attributes.get("mode"), "constant")
    if mode != "constant" or len(inputs) < 2 or (len(inputs) > 3 and inputs[3] is not None):
        raise NotImplementedError
    value = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return [padded(x, ints(inputs[1]), value)]


def _clip(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    bounds = [inputs[i] if len(inputs) > i else None for i in (1, 2)]
    low = bounds[0] if bounds[0] is not None else node.attributes.get("min")
    high = bounds[1] if bounds[1] is not None else node.attributes.get("max")
    low, high = (float(b) if b is not None else None for b in (low, high))
    return [x if low is None and high is None else x.clamp(low, high)]


def _reduce(node: Node, inputs: Inputs) -> list[Tensor]:
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


def _cast(node: Node, inputs: Inputs) -> list[Tensor]:
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


def _shape(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    found = list(x.shape)[node.attributes.get("start", 0) : node.attributes.get("end")]
    return [torch.tensor(found, dtype=torch.int64)]


def _division(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _softmax(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    return [x.softmax(node.attributes.get("axis", -1))]


def _gelu(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    return [F.gelu(x, approximate=text(node.attributes.get("approximate"), "none"))]


def _of_one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda _node, inputs: [function(inputs[0])]  # type: ignore[arg-type]


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda _node, inputs: [function(inputs[0], inputs[1])]  # type: ignore[arg-type]


def _hard_sigmoid(node: Node, inputs: Inputs) -> list[Tensor]:
    x = inputs[0]
    assert x is not None
    slope, offset = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return [(slope * x + offset).clamp(0, 1)]


OPERATORS: dict[str, Operator] = {
    "Conv": nn.conv, "ConvTranspose": nn.conv_transpose, "Gemm": nn.gemm,
    "MatMul": _of_two(torch.matmul),
    "MaxPool": nn.pool, "AveragePool": nn.pool, "GlobalAveragePool": nn.global_pool,
    "GlobalMaxPool": nn.global_pool, "ReduceMean": _reduce, "ReduceSum": _reduce,
    "ReduceMax": _reduce, "ReduceMin": _reduce, "ReduceL2": _reduce,
    "Relu": _of_one(F.relu), "Sigmoid": _of_one(torch.sigmoid), "Tanh": _of_one(torch.tanh),
    "Erf": _of_one(torch.erf), "Gelu": _gelu, "Softmax": _softmax, "Clip": _clip,
    "LeakyRelu": lambda node, x: [F.leaky_relu(x[0], node.attributes.get("alpha", 0.01))],  # type: ignore[arg-type]
    "Elu": lambda node, x: [F.elu(x[0], node.attributes.get("alpha", 1.0))],  # type: ignore[arg-type]
    "PRelu": _of_two(lambda x, slope: torch.where(x < 0, x * slope, x)),
    "HardSigmoid": _hard_sigmoid, "HardSwish": _of_one(F.hardswish),
    "Softplus": _of_one(F.softplus),
    "Mish": _of_one(F.mish), "Add": _of_two(torch.add), "Sub": _of_two(torch.sub),
    "Mul": _of_two(torch.mul), "Div": _of_two(_division), "Pow": _of_two(torch.pow),
    "Sqrt": _of_one(torch.sqrt), "Exp": _of_one(torch.exp), "Log": _of_one(torch.log),
    "Neg": _of_one(torch.neg), "Abs": _of_one(torch.abs), "Reciprocal": _of_one(torch.reciprocal),
    "Identity": _of_one(lambda x: x), "Dropout": _of_one(lambda x: x),
    "Floor": _of_one(torch.floor), "Ceil": _of_one(torch.ceil), "Not": _of_one(torch.logical_not),
    "Equal": _of_two(torch.eq), "Greater": _of_two(torch.gt), "Less": _of_two(torch.lt),
    "And": _of_two(torch.logical_and), "Or": _of_two(torch.logical_or),
    "Where": lambda _node, x: [torch.where(x[0], x[1], x[2])],  # type: ignore[arg-type]
    "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
    "Transpose": lambda node, x: [x[0].permute(  # type: ignore[union-attr]
        node.attributes.get("perm") or list(reversed(range(x[0].ndim))))],  # type: ignore[union-attr]
    "Concat": lambda node, x: [torch.cat(list(x), node.attributes["axis"])],  # type: ignore[arg-type]
    "Expand": lambda _node, x: [torch.mul(x[0], torch.ones(ints(x[1]), dtype=x[0].dtype))],  # type: ignore[union-attr, arg-type]
    "Split": _split, "Slice": _slice, "Gather": _gather, "Pad": _pad, "Shape": _shape,
    "Cast": _cast, "Resize": nn.resize, "LayerNormalization": nn.layer_norm,
    "BatchNormalization": nn.batch_norm,
}  # fmt: skip
