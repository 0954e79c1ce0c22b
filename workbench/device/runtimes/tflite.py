"""LiteRT with XNNPACK, on `.tflite` files."""

from __future__ import annotations

import numpy as np

from workbench.arrays import concatenate
from workbench.artifact import Artifact, canonical_output, feed, stored_input
from workbench.device.conversion import dequantize_output, quantize_input
from workbench.device.runtimes.base import Array, Inputs
from workbench.errors import DeviceError, first_line


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
        inputs = {d["name"]: d for d in self.interpreter.get_input_details()}
        outputs = {d["name"]: d for d in self.interpreter.get_output_details()}
        self.input_details = [inputs[spec.stored_name] for spec in artifact.inputs]
        self.output_details = [outputs[spec.stored_name] for spec in artifact.outputs]

    def prepare(self, inputs: Inputs) -> list[list[Array]]:
        """Single samples, each in the file's order and types."""
        fed = feed(self.artifact.inputs, inputs)
        arrays = [
            np.ascontiguousarray(stored_input(spec, fed[spec.name]))
            for spec in self.artifact.inputs
        ]
        taken = [
            quantize_input(array, detail["dtype"], detail["quantization"], spec.name)
            for array, detail, spec in zip(
                arrays, self.input_details, self.artifact.inputs, strict=True
            )
        ]
        return [[array[i : i + 1] for array in taken] for i in range(len(taken[0]))]

    def run(self, prepared: list[list[Array]]) -> list[list[Array]]:
        """The file's outputs for each sample."""
        results = []
        for sample in prepared:
            for detail, array in zip(self.input_details, sample, strict=True):
                self.interpreter.set_tensor(detail["index"], array)
            try:
                self.interpreter.invoke()
            except RuntimeError as error:
                raise DeviceError(
                    f"LiteRT cannot run {self.artifact.path.name}", first_line(error)
                ) from error
            results.append([self.interpreter.get_tensor(d["index"]) for d in self.output_details])
        return results

    def outputs(self, raw: list[list[Array]]) -> list[Array]:
        """The outputs as real values, as the original model has them."""
        joined = concatenate(raw)
        return [
            canonical_output(spec, dequantize_output(array, detail["quantization"]))
            for array, detail, spec in zip(
                joined, self.output_details, self.artifact.outputs, strict=True
            )
        ]
