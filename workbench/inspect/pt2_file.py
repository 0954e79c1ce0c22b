"""Reading `.pt2` files: what a program exported by `torch.export` holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Format, digest
from workbench.errors import first_line
from workbench.inspect.facts import Facts, Tensor, precision, printable
from workbench.inspect.macs import Tally

if TYPE_CHECKING:
    import torch

NOT_TAKEN = "NNAPI, CoreML and XNNPACK take what this is converted to, not the file itself"


def read(path: Path) -> Facts:
    """The facts of a `.pt2` file. Raises ModelError."""
    from workbench.sources.pt2 import open_program

    program = open_program(path).exported
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    inputs = tuple(_tensor(name, nodes.get(name)) for name in signature.user_inputs)
    outputs = tuple(_tensor(name, nodes.get(str(name))) for name in signature.user_outputs)
    weights = elements([*program.state_dict.values(), *program.constants.values()])
    operators = Counter(
        name for graph in _graphs(program) for node in graph.nodes if (name := _operator(node))
    )
    word, note = precision(weights, activation_dtype(operators), inputs)
    tally = Tally()
    _count(program, tally)
    return Facts(
        path=path,
        format=Format.PT2,
        bytes=path.stat().st_size,
        sha256=digest(path),
        inputs=inputs,
        outputs=outputs,
        opsets={},
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(weights.values()),
        macs=tally.total,
        precision=word,
        takes={},
        notes=(*((note,) if note else ()), *tally.notes(), NOT_TAKEN),
    )


def elements(tensors: Iterable[Any]) -> Counter[str]:
    """Elements by dtype of floating and quantized tensors, each memory once."""
    import torch

    seen, counts = set(), Counter[str]()
    for tensor in tensors:
        if not isinstance(tensor, torch.Tensor):
            continue
        memory = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        dtype = dtype_name(tensor.dtype)
        counted = "float" in dtype or dtype in ("int8", "uint8", "int16")
        if counted and (memory not in seen or not tensor.data_ptr()):
            seen.add(memory)
            counts[dtype] += tensor.numel()
    return counts


def dtype_name(dtype: torch.dtype) -> str:
    """numpy's name for torch's dtype: qint8 is stored as int8."""
    name = str(dtype).removeprefix("torch.")
    return {"qint8": "int8", "quint8": "uint8", "qint32": "int32"}.get(name, name)


def activation_dtype(operators: Iterable[str]) -> str:
    """What activations are quantized to, by the names of the operators."""
    names = list(operators)
    dynamic = any("dynamic" in name and "quantize" in name for name in names)
    static = any(name.startswith(("quantized::", "quantized_decomposed::quantize_per_tensor"))
                 and "dynamic" not in name for name in names)  # fmt: skip
    return "mixed" if dynamic and static else "dynamic" if dynamic else "int8" if static else ""


def _graphs(program: Any) -> Iterator[Any]:
    """The program's graph and those of the branches inside it."""
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield module.graph


def _operator(node: Any) -> str:
    """`aten::conv2d`; '' for what only reshuffles Python values."""
    import torch

    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return printable(node.target._schema.name)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        return printable(f"higher_order::{node.target}")
    return ""


def _tensor(name: Any, node: Any) -> Tensor:
    """An input or output, by the value that the exporter noted for it."""
    import torch

    value = node.meta.get("val") if node is not None else None
    if not isinstance(value, torch.Tensor):
        kind = type(value if node is not None else name).__name__
        return Tensor(name=str(name), dtype=kind, shape=(), ranked=False)
    return Tensor(
        name=str(name),
        dtype=dtype_name(value.dtype),
        shape=tuple(size if isinstance(size, int) else None for size in value.shape),
    )


def _count(program: Any, tally: Tally) -> None:
    """Add the multiply-accumulates, by torch's own count once all is decomposed.

    `torch.utils.flop_counter` counts a multiply-accumulate as two operations.
    """
    import torch
    from torch.utils.flop_counter import flop_registry

    batch = _batch_symbols(program)
    try:
        plain = program.run_decompositions()
    except Exception as error:  # noqa: BLE001 - decompositions raise what the operators raise
        tally.unknown(f"torch cannot decompose it: {type(error).__name__}: {first_line(error)}")
        return
    for node in plain.graph.nodes:
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            tally.unknown(f"{_operator(node)}: which branch runs is not in the file")
            continue
        formula = flop_registry.get(getattr(node.target, "overloadpacket", None))
        if formula is None:
            name = _operator(node)
            if name and not name.startswith(("aten::", "prim", "_operator", "quantized_decomp")):
                tally.unknown(f"{name} is no operator that wb knows")
            continue
        arguments, keywords = torch.fx.node.map_arg(
            (node.args, node.kwargs), lambda argument: argument.meta["val"]
        )
        operations: Any = formula(*arguments, **keywords, out_val=node.meta["val"])
        if not isinstance(operations, int):
            operations = operations.node.expr.subs(dict.fromkeys(batch, 1))
            if operations.free_symbols:
                tally.unknown(f"{_operator(node)}: an axis besides the batch is open")
                continue
        tally.add(int(operations) // 2)


def _batch_symbols(program: Any) -> set[Any]:
    """The symbols of the inputs' open first axes."""
    import torch

    symbols: set[Any] = set()
    for node in program.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        first: Any = value.shape[0] if isinstance(value, torch.Tensor) and value.dim() else 0
        if not isinstance(first, int):
            symbols |= first.node.expr.free_symbols
    return symbols
