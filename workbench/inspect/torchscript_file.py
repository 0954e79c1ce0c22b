"""Reading TorchScript archives: what a `torch.jit.save` file holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.artifact import Format, digest
from workbench.inspect.facts import Facts, Tensor, precision, printable
from workbench.inspect.pt2_file import (
    NOT_TAKEN,
    activation_dtype,
    dtype_name,
    elements,
)

# What of prim:: is work; the rest builds lists, reads attributes and holds constants.
_CONTROL = ("prim::If", "prim::Loop")


def read(path: Path) -> Facts:
    """The facts of a TorchScript archive. Raises ModelError."""
    from workbench.sources.torchscript import open_archive

    module = open_archive(path)
    graph = module.inlined_graph
    nodes = list(_nodes(graph))
    kinds = (printable(node.kind()) for node in nodes)
    operators = Counter(kind for kind in kinds if not kind.startswith("prim::") or kind in _CONTROL)
    constants = [
        node.t("value")
        for node in nodes
        if node.kind() == "prim::Constant" and node.hasAttribute("value")
        and node.kindOf("value") == "t"
    ]  # fmt: skip
    weights = elements([*module.parameters(), *module.buffers(), *constants])
    inputs, outputs = _signature(module, graph)
    word, note = precision(weights, activation_dtype(operators), inputs)
    # Such weights are inside objects of the archive that torch does not show as tensors.
    packed = any(kind.startswith("quantized::") for kind in operators)
    if packed and not weights:
        word = "dynamic-int8" if activation_dtype(operators) == "dynamic" else "int8"
    notes = [note] if note else []
    if packed:
        notes.append("parameters unknown: quantized weights are packed")
    notes.append("MACs unknown: TorchScript holds no shapes")
    return Facts(
        path=path,
        format=Format.TORCHSCRIPT,
        bytes=path.stat().st_size,
        sha256=digest(path),
        inputs=inputs,
        outputs=outputs,
        opsets={},
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=None if packed else sum(weights.values()),
        macs=None,
        precision=word,
        takes={},
        notes=(*notes, NOT_TAKEN),
    )


def _nodes(block: Any) -> Iterator[Any]:
    """The nodes of a graph or block and of the blocks inside them."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _signature(module: Any, graph: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs by the names of forward's arguments; outputs, a tuple's members apart."""
    arguments = [
        argument for argument in module.forward.schema.arguments if argument.name != "self"
    ]
    values = list(graph.inputs())[1:]
    inputs = tuple(
        _tensor(argument.name, value.type())
        for argument, value in zip(arguments, values, strict=False)
    )
    (returned,) = [value.type() for value in graph.outputs()] or [None]
    if returned is None:
        return inputs, ()
    members = returned.elements() if returned.kind() == "TupleType" else [returned]
    names = (
        [f"output_{position}" for position in range(len(members))]
        if len(members) > 1
        else ["output"]
    )
    return inputs, tuple(
        _tensor(name, argument) for name, argument in zip(names, members, strict=True)
    )


def _tensor(name: str, kind: Any) -> Tensor:
    """What the archive says of a value: often no more than that it is a tensor."""
    plain = re.sub(r"\.\d+$", "", name)
    if kind.kind() != "TensorType":
        return Tensor(name=plain, dtype=printable(str(kind)), shape=(), ranked=False)
    dtype, sizes = kind.dtype(), kind.sizes()
    return Tensor(
        name=plain,
        dtype=dtype_name(dtype) if dtype is not None else "unknown",
        shape=tuple(sizes) if sizes is not None else (),
        ranked=sizes is not None,
    )
