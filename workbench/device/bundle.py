"""An artifact with the inputs it is run on, as a runner takes them: files, and a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import Artifact, Format, canonical_output, feed, stored_input
from workbench.device.conversion import dequantize_output, match_dtype, quantize_input
from workbench.device.runner_plan import Plan, lay_out
from workbench.errors import DeviceError
from workbench.onnxgraph import signature

if TYPE_CHECKING:
    from workbench.inspect.facts import Facts, Tensor

Array = NDArray[Any]

RUNTIMES = {Format.ONNX: "onnxruntime", Format.ORT: "onnxruntime", Format.TFLITE: "litert"}
NONE = (0.0, 0)  # the quantization parameters of a tensor without


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model file, the bytes of its inputs, and what a plan says of them.

    Attributes:
        model: one file, with all of its weights.
        data: of the inputs, see `plan`.
        samples: how many.
    """

    artifact: Artifact
    model: Path
    data: bytes
    plan: Plan
    samples: int
    facts: Facts

    def canonical(self, outputs: Sequence[Array]) -> list[Array]:
        """Outputs of the file as the original's: values, names' order and layout."""
        declared = {tensor.name: tensor for tensor in self.facts.outputs}
        return [
            canonical_output(
                spec, dequantize_output(array, _parameters(declared.get(spec.stored_name)))
            )
            for spec, array in zip(self.artifact.outputs, outputs, strict=True)
        ]


def bundle(
    artifact: Artifact, facts: Facts, inputs: Mapping[str, Array], samples: int, folder: Path
) -> Bundle:
    """A bundle of canonical inputs; `folder` is for a copy of a model that is in several files.

    Raises DeviceError for a format that no runner runs, InputError for inputs that do not fit.
    """
    runtime = RUNTIMES.get(artifact.format)
    if runtime is None:
        raise DeviceError(
            f"{artifact.path.name}: no runner on a device runs {artifact.format} files",
            "it runs .onnx and .ort in ONNX Runtime, .tflite in LiteRT",
            "convert it with a recipe, or measure it with --device cpu",
        )
    declared = {tensor.name: tensor for tensor in facts.inputs}
    fed = feed(artifact.inputs, inputs)
    arrays = {
        spec.stored_name: _as_taken(
            stored_input(spec, fed[spec.name]), declared.get(spec.stored_name), spec.name, runtime
        )
        for spec in artifact.inputs
    }
    data, tensors = lay_out(arrays, samples)
    return Bundle(
        artifact=artifact,
        model=_single(artifact, folder),
        data=data,
        plan=Plan(
            runtime=runtime,
            library="",
            model="",
            inputs="",
            tensors=tensors,
            output_names=tuple(spec.stored_name for spec in artifact.outputs),
            samples=samples,
        ),
        samples=samples,
        facts=facts,
    )


def _as_taken(array: Array, declared: Tensor | None, name: str, runtime: str) -> Array:
    if declared is None or declared.dtype == "unknown":
        return array
    if runtime == "litert":
        return quantize_input(array, declared.dtype, _parameters(declared), name)
    return match_dtype(array, np.dtype(declared.dtype))


def _parameters(declared: Tensor | None) -> tuple[float, int]:
    if declared is None or declared.quantization is None:
        return NONE
    return declared.quantization


def _single(artifact: Artifact, folder: Path) -> Path:
    """The model in one file: a device keeps files by their digests, not by their names."""
    if artifact.format is not Format.ONNX or len(signature.files(artifact.path)) == 1:
        return artifact.path
    import onnx

    whole = folder / f"{artifact.sha256[:16]}.onnx"
    if not whole.exists():
        try:
            onnx.save(onnx.load(artifact.path), whole)
        except ValueError as error:  # protobuf's limit of 2 GB
            raise DeviceError(
                f"{artifact.path.name} cannot be sent as one file",
                str(error),
                "a file of more than 2 GB is measured on this machine only",
            ) from error
    return whole
