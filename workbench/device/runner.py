"""Artifacts in their runtimes: one `Session` for PyTorch, ONNX Runtime and TFLite each.

A session takes and gives canonical arrays (the model's names, order and layout), whatever the file
keeps inside: layout and integer inputs and outputs are converted here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import Artifact, Format, feed, is_fixed_to_one
from workbench.errors import DeviceError, first_line
from workbench.model import Model, ModelSource

if TYPE_CHECKING:
    import onnxruntime

Array = NDArray[Any]
Inputs = Mapping[str, Array]


class Session(Protocol):
    """A loaded model. `prepare` maps canonical inputs to what `run` takes; only `run` is timed."""

    def prepare(self, inputs: Inputs) -> Any: ...

    def run(self, prepared: Any) -> Any: ...

    def outputs(self, raw: Any) -> list[Array]: ...


def infer(session: Session, inputs: Inputs) -> list[Array]:
    """Canonical outputs for canonical inputs."""
    return session.outputs(session.run(session.prepare(inputs)))


def open_session(
    target: Artifact | ModelSource, threads: int, examples: Inputs | None = None
) -> Session:
    """A session on an artifact, or on a model source (PyTorch eager).

    Raises DeviceError where the runtime refuses the file.
    """
    if isinstance(target, ModelSource):
        return EagerSession(target, threads, examples or {})
    if target.format in (Format.ONNX, Format.ORT):
        return OrtSession(target, threads)
    if target.format is Format.TFLITE:
        return TfliteSession(target, threads)
    raise DeviceError(f"there is no runtime here for {target.format} files")


class EagerSession:
    """PyTorch as the user wrote it, in inference mode."""

    def __init__(self, source: ModelSource, threads: int, examples: Inputs) -> None:
        import torch

        from workbench.sources.factory import build, in_call_order

        torch.set_num_threads(threads or os.cpu_count() or 1)  # 0 is all, as elsewhere
        module, _ = build(source)
        self.model = Model(
            module=module, example_inputs=in_call_order(module, examples), output_names=()
        )
        self.mode = torch.inference_mode

    def prepare(self, inputs: Inputs) -> Any:
        import torch

        return [torch.from_numpy(inputs[name]) for name in self.model.input_names]

    def run(self, prepared: Any) -> Any:
        with self.mode():
            return self.model.module(*prepared)

    def outputs(self, raw: Any) -> list[Array]:
        from workbench.model import flatten

        return [tensor.numpy() for _, tensor in flatten(raw)]


def ort_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU with every optimization on, quiet.

    Spinning is off: on shared cores it doubled two-thread latency.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OrtSession:
    """ONNX Runtime on `.onnx` and `.ort` files."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        try:
            self.session = ort_session(artifact.path, threads)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime cannot load {artifact.path.name}",
                f"{type(error).__name__}: {first_line(error)}",
            ) from error
        self.artifact = artifact
        self.single = is_fixed_to_one(artifact.inputs)

    def prepare(self, inputs: Inputs) -> Any:
        fed = feed(self.artifact.inputs, inputs)
        if not self.single:
            return fed
        return [{k: v[i : i + 1] for k, v in fed.items()} for i in range(_length(fed))]

    def run(self, prepared: Any) -> Any:
        if isinstance(prepared, dict):
            return self.session.run(None, prepared)
        if len(prepared) == 1:
            return self.session.run(None, prepared[0])
        runs = [self.session.run(None, one) for one in prepared]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def outputs(self, raw: Any) -> list[Array]:
        return list(raw)


class TfliteSession:
    """LiteRT with XNNPACK on `.tflite` files, one sample at a time."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        try:
            # 0 means "all" to ONNX Runtime, and is refused by LiteRT, which says None for it.
            self.interpreter = Interpreter(str(artifact.path), num_threads=threads or None)
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"LiteRT cannot load {artifact.path.name}", str(error)) from error
        self.artifact = artifact
        given = {d["name"]: d for d in self.interpreter.get_input_details()}
        made = {d["name"]: d for d in self.interpreter.get_output_details()}
        self.input_details = [given[spec.stored_name] for spec in artifact.inputs]
        self.output_details = [made[spec.stored_name] for spec in artifact.outputs]

    def prepare(self, inputs: Inputs) -> list[list[Array]]:
        fed = feed(self.artifact.inputs, inputs)
        arrays = [
            np.ascontiguousarray(_permuted(fed[spec.name], spec.permutation))
            for spec in self.artifact.inputs
        ]
        stored = [
            _quantized(array, detail)
            for array, detail in zip(arrays, self.input_details, strict=True)
        ]
        return [[array[i : i + 1] for array in stored] for i in range(len(stored[0]))]

    def run(self, prepared: list[list[Array]]) -> list[list[Array]]:
        found = []
        for sample in prepared:
            for detail, array in zip(self.input_details, sample, strict=True):
                self.interpreter.set_tensor(detail["index"], array)
            self.interpreter.invoke()
            found.append([self.interpreter.get_tensor(d["index"]) for d in self.output_details])
        return found

    def outputs(self, raw: list[list[Array]]) -> list[Array]:
        joined = [np.concatenate(parts) for parts in zip(*raw, strict=True)]
        return [
            _permuted(_dequantized(array, detail), spec.inverse)
            for array, detail, spec in zip(
                joined, self.output_details, self.artifact.outputs, strict=True
            )
        ]


def _length(fed: Inputs) -> int:
    return len(next(iter(fed.values())))


def _permuted(array: Array, permutation: tuple[int, ...]) -> Array:
    return array.transpose(permutation) if permutation else array


def _quantized(array: Array, detail: Mapping[str, Any]) -> Array:
    """Float values as the integers that an input with quantization parameters takes."""
    scale, zero_point = detail["quantization"]
    if array.dtype == detail["dtype"] or scale == 0:
        return array.astype(detail["dtype"], copy=False)
    limits = np.iinfo(detail["dtype"])
    rounded = np.round(array / scale + zero_point)
    stored: Array = np.clip(rounded, limits.min, limits.max).astype(detail["dtype"])
    return stored


def _dequantized(array: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero_point = detail["quantization"]
    if scale == 0 or array.dtype.kind == "f":
        return array
    real: Array = ((array.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return real
