"""A TorchScript module run operator by operator from Python, as exporters want a module.

Exporters follow Python code: of a TorchScript module one takes nothing, the other neither dicts
nor what needs a tensor's rank. Run so, both see PyTorch's operators with all their shapes.

Imported only where torch is.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from workbench.sources.wrappers import with_signature


class NotInterpretedError(Exception):
    """The archive has something that this does not run: a loop, an object, an own operator."""


def interpret(module: torch.jit.ScriptModule) -> nn.Module:
    """A module with the archive's weights and outputs. Raises NotInterpretedError."""
    frozen = torch.jit.freeze(module.eval(), optimize_numerics=False)
    method: Any = frozen.forward
    names = [argument.name for argument in method.schema.arguments[1:]]
    kind: Any = with_signature(Interpreted, tuple(names))
    interpreter: nn.Module = kind(frozen.graph, module).eval()
    return interpreter


def source_line(frame: FrameType) -> str:
    """The line of the archive's code that a frame of this file runs: `net.py:42 (if x > 0:)`."""
    while "node" not in frame.f_locals and frame.f_back is not None:
        frame = frame.f_back
    source_range = str(frame.f_locals["node"].sourceRange())
    location = re.search(r'File "(.+)", line (\d+)', source_range) or re.search(
        r"(\S+)\((\d+)\): ", source_range
    )
    if location is None:
        return "the archive's code"
    text = re.search(r"^ *(\S.*)\n *~+ <--- HERE", source_range, re.MULTILINE)
    return f"{Path(location[1]).name}:{location[2]}" + (f" ({text[1][:60]})" if text else "")


class Interpreted(nn.Module):
    """A frozen TorchScript graph; the tensors among its constants are buffers."""

    def __init__(self, graph: Any, archive: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.block = graph
        self.archive = (archive,)  # in a tuple: as a submodule it would be exported too
        for number, node in enumerate(_nodes(graph)):
            if not node.kind().startswith(("prim::", "aten::")):
                raise NotInterpretedError(node.kind())
            if node.kind() == "prim::Constant":
                value = node.output().toIValue()
                if isinstance(value, Tensor):
                    self.register_buffer(f"constant_{number}", value.detach())
        self.constants = {
            _name(node.output()): f"constant_{number}"
            for number, node in enumerate(_nodes(graph))
            if f"constant_{number}" in self._buffers
        }

    def forward(self, *tensors: Tensor) -> Any:
        """The graph's outputs for its inputs, in their order: a tensor, or a tuple of several."""
        input_names = [_name(value) for value in self.block.inputs()][1:]  # without self
        values: dict[str, Any] = dict(zip(input_names, tensors, strict=True))
        results = self._run(self.block, values)
        return results[0] if len(results) == 1 else tuple(results)

    def __deepcopy__(self, memo: Any) -> Interpreted:
        copy: Interpreted = type(self)(
            self.block, *self.archive
        )  # the graph is shared: nothing writes to it
        return copy

    def _run(self, block: Any, values: dict[str, Any]) -> list[Any]:
        for node in block.nodes():
            arguments = [values.get(_name(value)) for value in node.inputs()]
            results = self._results(node, arguments, values)
            for value, result in zip(node.outputs(), results, strict=True):
                values[_name(value)] = result
        return [values[_name(value)] for value in block.outputs()]

    def _results(self, node: Any, arguments: list[Any], values: dict[str, Any]) -> list[Any]:
        """What the node gives, one for each of its outputs."""
        kind = node.kind()
        if kind == "prim::Constant":
            name = self.constants.get(_name(node.output()))
            return [getattr(self, name) if name else node.output().toIValue()]
        if kind == "prim::If":
            then, otherwise = node.blocks()
            return self._run(then if bool(arguments[0]) else otherwise, values)
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return list(arguments[0])
        if kind in _PRIMITIVES:
            result = _PRIMITIVES[kind](*arguments)
        elif kind in _SCALARS and not _is_tensor_operator(node):
            result = _SCALARS[kind](*map(_number, node.inputs(), arguments))
        elif kind == "aten::_convolution":  # as a trace has it: with flags of cuDNN at the end
            result = torch.convolution(*arguments[:9])
        elif kind.startswith("aten::"):
            result = _call(node, arguments)
        else:
            raise NotInterpretedError(kind)
        many = node.outputsSize()
        return [result] if many == 1 else list(result) if many else []


def _name(value: Any) -> str:
    return str(value.debugName())


def _nodes(block: Any) -> list[Any]:
    collected = []
    for node in block.nodes():
        collected.append(node)
        for inner in node.blocks():
            collected += _nodes(inner)
    return collected


def _dict(*pairs: Any) -> dict[Any, Any]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def _integer(value: Any) -> Any:
    """A size as it is: traced, it is a tensor; to be followed it must stay one."""
    if isinstance(value, Tensor):
        return value if torch._C._is_tracing() and not value.is_floating_point() else int(value)
    return value if isinstance(value, torch.SymInt) else int(value)


def _raise(*arguments: Any) -> None:
    raise RuntimeError(f"the archive raises an exception: {arguments[0] if arguments else ''}")


_PRIMITIVES: Mapping[str, Callable[..., Any]] = {
    "prim::ListConstruct": lambda *items: list(items),
    "prim::TupleConstruct": lambda *items: tuple(items),
    "prim::DictConstruct": _dict,
    "prim::TupleIndex": operator.getitem,
    "prim::NumToTensor": lambda value: value,
    "prim::unchecked_cast": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::RaiseException": _raise,
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::device": lambda tensor: tensor.device,
    "prim::is_cuda": lambda tensor: tensor.is_cuda,
    "prim::min": min,
    "prim::max": max,
}

# Operators on numbers and lists, which are Python's here.
_SCALARS: Mapping[str, Callable[..., Any]] = {
    "aten::Int": _integer,
    "aten::IntImplicit": _integer,
    "aten::ScalarImplicit": lambda value: value,
    "aten::Float": float,
    "aten::Bool": bool,
    "aten::add": lambda a, b, *_: a + b,
    "aten::sub": lambda a, b, *_: a - b,
    "aten::mul": operator.mul,
    "aten::div": lambda a, b, mode=None: a // b if mode else a / b,  # sizes: trunc is floor
    "aten::floordiv": operator.floordiv,
    "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::pow": operator.pow,
    "aten::neg": operator.neg,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "aten::__not__": operator.not_,
    "aten::__is__": operator.is_,
    "aten::__isnot__": operator.is_not,
    "aten::__contains__": operator.contains,
    "aten::__getitem__": operator.getitem,
    "aten::len": len,
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::size": lambda tensor, *dim: tensor.size(*dim) if dim else list(tensor.size()),
    "aten::list": list,
    "aten::append": lambda items, item: items.append(item) or items,
    "aten::slice": lambda items, start, end, step: items[start:end:step],
    "aten::format": lambda text, *values: text.format(*values),
    "aten::warn": lambda *_: None,
}
_ALWAYS = ("aten::Int", "aten::Float", "aten::Bool", "aten::IntImplicit", "aten::ScalarImplicit",
           "aten::dim", "aten::size", "aten::list", "aten::len", "aten::warn")  # fmt: skip


def _is_tensor_operator(node: Any) -> bool:
    """Whether an operator that numbers have too is the one of tensors, by its first input."""
    if node.kind() in _ALWAYS:
        return False
    first = next(iter(node.inputs()), None)
    if first is None or first.type().kind() != "TensorType":
        return False
    # What was a size before prim::NumToTensor is a size here.
    return not _is_size(first)


def _is_size(value: Any) -> bool:
    node = value.node()
    if node.kind() == "prim::NumToTensor":
        return True
    arithmetic = ("aten::mul", "aten::add", "aten::sub", "aten::floor_divide", "aten::div",
                  "aten::pow")  # fmt: skip
    return node.kind() in arithmetic and _is_size(next(iter(node.inputs())))


def _number(value: Any, argument: Any) -> Any:
    """A constant that a size is computed with, as the number that it is: traces hold tensors."""
    constant = isinstance(argument, Tensor) and value.node().kind() == "prim::Constant"
    return argument.item() if constant and argument.dim() == 0 else argument


def _call(node: Any, arguments: list[Any]) -> Any:
    """An operator of tensors."""
    schema = torch._C.parse_schema(node.schema())
    keywords: dict[str, Any] = {}
    positional: list[Any] = []
    for argument, value in zip(schema.arguments, arguments, strict=False):
        if str(argument.type) == "Tensor" and not isinstance(value, Tensor):
            value = torch.scalar_tensor(value, dtype=_dtype_of(value))  # noqa: PLW2901
        if argument.kwarg_only:
            keywords[argument.name] = value
        else:
            positional.append(value)
    name = schema.name.partition("::")[2]
    packet = getattr(torch.ops.aten, name)
    pairs = zip(arguments, schema.arguments, strict=False)
    if not any(_followed(value, argument) for value, argument in pairs):
        return getattr(packet, schema.overload_name or "default")(*positional, **keywords)
    return _in_python(name, positional, keywords)


def _dtype_of(value: Any) -> torch.dtype:
    return torch.get_default_dtype() if isinstance(value, float | torch.SymFloat) else torch.int64


def _followed(value: Any, argument: Any) -> bool:
    """Whether a size, which tracing follows as a tensor, stands where an operator takes a number:
    called as torch.ops it would become a constant.
    """
    if "Tensor" in str(argument.type):
        return False
    items = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(item, Tensor) for item in items)


def _in_python(name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    """The operator through torch's own Python functions, which follow traced sizes."""
    if name == "slice":
        tensor, dim, start, end, step = positional
        return tensor[(*[slice(None)] * (dim % tensor.dim()), slice(start, end, step))]
    keywords = {
        key: _DTYPES.get(value, value) if key == "dtype" else value
        for key, value in keywords.items()
    }
    if positional and isinstance(positional[0], Tensor) and hasattr(Tensor, name):
        return getattr(positional[0], name)(*positional[1:], **_present(keywords))
    for namespace in (torch, torch._C._nn):
        if hasattr(namespace, name):
            return getattr(namespace, name)(*positional, **_present(keywords))
    raise NotInterpretedError(f"aten::{name} of a size")


def _present(keywords: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keywords.items() if value is not None}


# c10's ScalarType, as TorchScript counts them.
_DTYPES = dict(enumerate((
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float32,
    torch.float64, torch.complex32, torch.complex64, torch.complex128, torch.bool,
)))  # fmt: skip
