"""LiteRT with XNNPACK, on `.tflite` files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from workbench.artifact import Artifact, feed
from workbench.device.runner import Array, Inputs
from workbench.errors import DeviceError


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
