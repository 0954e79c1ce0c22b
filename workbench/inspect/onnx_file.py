"""Reading `.onnx` files, without the tensors that lie in other files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from workbench.artifact import Format
from workbench.errors import ModelError, first_line
from workbench.inspect import onnx_facts
from workbench.inspect.facts import Facts, printable
from workbench.onnxgraph import walk

if TYPE_CHECKING:
    import onnx


def read(path: Path) -> Facts:
    """The facts of an ONNX file. Raises ModelError."""
    import onnx

    data = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as ONNX", f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path} cannot be read as ONNX", "its graph is empty")
    if not walk.readable(model):
        raise ModelError(
            f"{path} cannot be read as ONNX", "it is damaged: a name in it is not UTF-8", ""
        )
    notes = note_external_files(model, path)
    if model.functions:
        model, note = _inlined(model)
        notes.append(note)
    onnx_facts.strip(model)
    graph_facts = onnx_facts.study(model)
    return Facts(
        path=path,
        format=Format.ONNX,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=tuple(onnx_facts.tensor_of(value) for value in walk.inputs(model.graph)),
        outputs=tuple(onnx_facts.tensor_of(value) for value in model.graph.output),
        opsets=onnx_facts.opsets(model),
        operators=graph_facts.operators,
        parameters=graph_facts.parameters,
        macs=graph_facts.macs,
        precision=graph_facts.precision,
        takes=graph_facts.takes,
        notes=(*notes, *graph_facts.notes),
    )


def _inlined(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The model with its local functions written out: they are counted as what they consist of."""
    import onnx.inliner

    count = len(model.functions)
    try:
        return onnx.inliner.inline_local_functions(model), f"{count} local functions, written out"
    except Exception as error:  # noqa: BLE001 - onnx's C++ raises RuntimeError, and what it derives
        return model, f"{count} local functions, not written out: {first_line(error)[:80]}"


def note_external_files(model: onnx.ModelProto, path: Path) -> list[str]:
    """A note on the files beside an ONNX file that hold its tensors.

    Raises ModelError for a location outside the file's folder.
    """
    locations: dict[str, Path] = {}
    for tensor in _tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                locations[entry.value] = _inside(path, entry.value)
    if not locations:
        return []
    missing = sorted(printable(name) for name, file in locations.items() if not file.is_file())
    size = sum(file.stat().st_size for file in locations.values() if file.is_file())
    notes = [
        f"weights in {len(locations)} more file{'s' * (len(locations) > 1)}: {size / 1e6:.2f} MB"
    ]
    if missing:
        notes.append(f"missing beside it: {', '.join(missing[:5])}: the model cannot be run")
    return notes


def _inside(path: Path, location: str) -> Path:
    """Where a tensor's data lies. Raises ModelError for a place outside the file's folder."""
    folder = path.parent.resolve()
    forms = (PurePosixPath(location), PureWindowsPath(location))
    refused = any(form.is_absolute() or form.drive or ".." in form.parts for form in forms)
    try:
        target = (folder / location).resolve()
        refused = refused or not target.is_relative_to(folder)
    except (OSError, ValueError, RuntimeError):  # a NUL in it; links in a circle
        refused = True
    if refused or not location:
        raise ModelError(
            f"{path} takes its weights from outside its folder",
            f"an external tensor is at '{printable(location)}'",
            "put the weights beside the model and save it again, with a location in its folder",
        )
    return target


def _tensors(graph: onnx.GraphProto) -> Iterator[Any]:
    """Every tensor that a graph stores, in the bodies of its nodes too."""
    for inner in walk.graphs(graph):
        yield from inner.initializer
        for sparse in inner.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
