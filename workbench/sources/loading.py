"""From a `ModelSource` to its model: the files it names, what they declare, and `load` itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, TensorSpec, digest
from workbench.errors import ModelError
from workbench.model import Model, ModelSource
from workbench.onnxgraph import signature
from workbench.sources import hf, live, onnx_model, pt2_archive

if TYPE_CHECKING:
    from numpy.typing import NDArray


def source_files(source: ModelSource) -> tuple[Path, ...]:
    """The files that decide a model, its weights last; none for a package's or a hub's.

    Raises ModelError for a folder that holds no model.
    """
    files = [source.folder / source.spec] if source.is_file else []
    if source.kind == "hf":
        files = hf.local_files(source)
    return tuple(files + ([source.weights] if source.weights else []))


def check_files(source: ModelSource) -> None:
    """That named files are there and have the digest asked for, before anything opens them.

    Raises ModelError.
    """
    files = source_files(source)
    for path in files:
        if not path.is_file():
            raise ModelError(f"there is no file {path}", "", _hint(source, path))
    if source.sha256 is not None:
        if not files:
            raise ModelError("--sha256 is given, but no file to check", "", "give --weights")
        actual = digest(files[-1])
        if actual != source.sha256.lower().removeprefix("sha256:"):
            raise ModelError(
                f"{files[-1]} is not the file expected",
                f"its SHA-256 is {actual}",
                "fetch the file again, or correct --sha256",
            )


def _hint(source: ModelSource, path: Path) -> str:
    if source.kind != "torchscript" or path == source.weights:
        return ""
    return "--model takes TorchScript; weights go to --weights, with their factory as --model"


def declared_inputs(source: ModelSource) -> tuple[TensorSpec, ...]:
    """The inputs that an ONNX or `.pt2` file declares, for a run without samples.

    Raises ModelError where the file cannot be read, or leaves an axis besides the batch open.
    """
    check_files(source)
    path = source_files(source)[0]
    specs = _pt2_inputs(path) if source.kind == "pt2" else _onnx_inputs(path)
    for spec in specs:
        if None in spec.shape[1:]:
            raise ModelError(
                f"{path}: input {spec} has open axes",
                "without samples there is nothing to fill them",
                f"give --data FILE.toml, or --input {spec.name}:1x…",
            )
    return specs


def _onnx_inputs(path: Path) -> tuple[TensorSpec, ...]:
    import onnx

    try:
        return signature.signature(onnx.load(path, load_external_data=False))[0]
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as ONNX", f"{type(error).__name__}: {error}"
        ) from error


def _pt2_inputs(path: Path) -> tuple[TensorSpec, ...]:
    specs = pt2_archive.read(path).inputs
    return tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in specs)


def load(
    source: ModelSource, examples: Mapping[str, NDArray[Any]], folder: Path
) -> Model | Artifact:
    """The model that a source names: a live module, or an ONNX file (copied into `folder`).

    `examples` are named inputs [N, ...] that it must take. Raises ModelError.
    """
    check_files(source)
    if source.kind == "onnx":
        return onnx_model.load_onnx(source, examples, folder)
    return live.load_module(source, examples)
