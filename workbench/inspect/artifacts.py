"""Model files as they are, whoever made them: what is known of one as an `Artifact`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import ModelError
from workbench.onnxgraph import signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.inspect.facts import Facts, Tensor

LARGEST = 1 << 28  # elements of an input that is filled with random numbers
UNKNOWN = "unknown"  # the dtype of a tensor that its file does not declare


def open_artifact(path: Path) -> Artifact:
    """A deployable file of any format as an artifact, under its own names and in its own layout.

    It has no outputs where the file does not tell how many it gives, as TorchScript's dicts do not:
    see `with_outputs`.
    Raises ModelError where there is no such file, or it is none of the formats, or damaged.
    """
    from workbench import inspect

    return artifact_of(inspect.read(path))


def artifact_of(facts: Facts) -> Artifact:
    """The artifact that a file's facts describe."""
    companions: list[Path] = []
    if facts.format is Format.ONNX:
        companions = signature.files(facts.path)[1:]  # where its tensors are, if not in itself
    outputs = tuple(_output(tensor, i, facts) for i, tensor in enumerate(facts.outputs))
    if any(not _tensor(spec) for spec in outputs):  # a list or dict, of as many as it has
        outputs = ()
    return Artifact(
        path=facts.path,
        format=facts.format,
        precision=facts.precision,
        inputs=tuple(_spec(tensor) for tensor in facts.inputs),
        outputs=outputs,
        companions=tuple(companions),
    )


def _spec(tensor: Tensor) -> TensorSpec:
    # Sessions give an integer tensor with quantization parameters its values, and take them.
    quantized = tensor.quantization is not None and "int" in tensor.dtype
    dtype = "float32" if quantized else tensor.dtype
    return TensorSpec(name=tensor.name, dtype=dtype, shape=tensor.shape if tensor.ranked else ())


def _output(tensor: Tensor, index: int, facts: Facts) -> TensorSpec:
    # PyTorch's outputs have no names, but an order.
    ordered = facts.format in (Format.TORCHSCRIPT, Format.PT2)
    return replace(_spec(tensor), stored=f"#{index}" if ordered else "")


def _tensor(spec: TensorSpec) -> bool:
    """Whether it is one tensor, though its dtype may be unknown."""
    return "[" not in spec.dtype


def with_outputs(artifact: Artifact, arrays: Sequence[NDArray[Any]]) -> Artifact:
    """The artifact with the outputs that a run gave, where the file does not tell them."""
    if artifact.outputs:
        return artifact
    specs = [
        TensorSpec(
            name=f"output_{index}",
            dtype=str(array.dtype),
            shape=(None, *array.shape[1:]),
            stored=f"#{index}",
        )
        for index, array in enumerate(arrays)
    ]
    return replace(artifact, outputs=tuple(specs))


def total_bytes(artifact: Artifact) -> int:
    """Bytes of all the files that a user ships: an ONNX model's tensors may be in others."""
    tensor_files = artifact.companions if artifact.format is Format.ONNX else ()
    return artifact.size + sum(path.stat().st_size for path in tensor_files)


def unranked(artifact: Artifact) -> bool:
    """Whether the file does not say what shapes it takes, as TorchScript does not."""
    return artifact.format is Format.TORCHSCRIPT and any(not spec.shape for spec in artifact.inputs)


def fixed_batch(artifact: Artifact) -> int | None:
    """The number of samples that the file insists on, None where it takes any.

    None too where its inputs differ in their first axis, which then is not of samples alone.
    """
    sizes = {spec.shape[0] for spec in artifact.inputs if spec.shape}
    return sizes.pop() if len(sizes) == 1 else None


def closed_inputs(artifact: Artifact, requested: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The file's inputs with every axis but the batch known: its own, or what --input gives.

    Raises ModelError where an axis stays open, or where the file says otherwise.
    """
    specs = []
    for spec in artifact.inputs:
        request = request_for(spec, artifact, requested)
        if request is None:
            specs.append(_closed(spec, artifact))
            continue
        if spec.shape and not _fits(spec.shape, request.shape):
            raise ModelError(
                f"--input {request.name} has another shape than {artifact.path.name} takes",
                f"{_axes(request)} against {_axes(spec)}",
                "leave it out, or give the file's own shape",
            )
        shape = (spec.shape[0] if spec.shape else None, *request.shape[1:])
        dtype = request.dtype if spec.dtype == UNKNOWN else spec.dtype
        specs.append(replace(spec, shape=shape, dtype=dtype))
    for spec in specs:
        _check(spec, artifact)
    return tuple(specs)


def request_for(
    spec: TensorSpec, artifact: Artifact, requested: Sequence[TensorSpec]
) -> TensorSpec | None:
    """The --input for one of the file's: of its name, or the only one for its only one."""
    by_name = next((request for request in requested if request.name == spec.name), None)
    if by_name is not None or not len(requested) == len(artifact.inputs) == 1:
        return by_name
    # Where several files are given, it may be for another.
    return requested[0] if not spec.shape or _fits(spec.shape, requested[0].shape) else None


def _check(spec: TensorSpec, artifact: Artifact) -> None:
    """That arrays can be made for an input. Raises ModelError."""
    import numpy as np

    try:
        numeric = np.dtype(spec.dtype).kind in "fiub"
    except TypeError:
        numeric = False
    if not numeric:
        raise ModelError(f"{artifact.path.name}: input {spec} takes no numbers that wb can make")
    if math.prod(size or 1 for size in spec.shape) > LARGEST:
        raise ModelError(f"{artifact.path.name}: input {spec} is too large to be filled")


def _closed(spec: TensorSpec, artifact: Artifact) -> TensorSpec:
    if spec.dtype == UNKNOWN or (not spec.shape and unranked(artifact)):
        raise ModelError(
            f"{artifact.path.name} does not say what its input '{spec.name}' is",
            "TorchScript declares neither shapes nor types",
            f"give --input {spec.name}:1x… (:int64 where it is no float32), or --data FILE.toml",
        )
    if None in spec.shape[1:]:
        raise ModelError(
            f"{artifact.path.name}: input {spec} has open axes",
            "without samples there is nothing to fill them",
            f"give --input {spec.name}:1x…, or --data FILE.toml",
        )
    return spec


def _fits(own: Sequence[int | None], requested: Sequence[int | None]) -> bool:
    """Whether a given shape is one that the file takes; the batch is the file's own."""
    return len(own) == len(requested) and all(
        a is None or a == b for a, b in zip(own[1:], requested[1:], strict=True)
    )


def _axes(spec: TensorSpec) -> str:
    return "x".join("?" if size is None else str(size) for size in spec.shape)
