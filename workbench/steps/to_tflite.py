"""ToTflite: ONNX to TFLite, by way of a SavedModel made by onnx2tf."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import CrashError, DeviceError, StepError
from workbench.options import Between, validate
from workbench.process import Worker
from workbench.recipe import Context, Step
from workbench.tflite.conversion_inputs import PACKAGES, form, saved_model, write_samples
from workbench.tflite.firmware import INT8, c_array
from workbench.tflite.quantized import CONVERSION, notes
from workbench.worker_pool import kept_worker

SAMPLES = "samples"
# Calibration samples for the tensors that a quantized file has no range for.
FEW = 64

Precision = Literal["float32", "float16", "dynamic", "int8", "int8-io", "int16"]

# The least SQNR with which a file counts as converted. Float formats must agree to rounding. An
# INT8 file may lose much and still be an honest result, which the table shows; below 0 dB the
# noise is larger than the signal: that is not a loss of accuracy but a wrong conversion.
LEAST_SQNR: dict[str, float] = {
    "float32": 60, "float16": 30, "dynamic": 5, "int8": 0, "int8-io": 0, "int16": 10,
}  # fmt: skip

# Of classes alone the ratio counts the changed ones, 10 log10(all / (2 * changed)): one of 16 may
# change by a tie in a float file, three of four where INT8 loses much.
LEAST_CLASSES: dict[str, float] = {"float32": 9, "float16": 9}
LEAST_CLASSES_INT8 = -2.0

_SCHEMES = {
    "int8": "s8s8, per channel, TensorFlow's min-max",
    "int8-io": "s8s8, per channel, TensorFlow's min-max",
    "int16": "16-bit activations, 8-bit weights per channel, TensorFlow's min-max",
}


@dataclass(frozen=True, kw_only=True)
class ToTflite(Step):
    """ONNX to `.tflite`, images as NHWC.

    Of a float file TensorFlow takes the ranges; a quantized one (QDQ) keeps its own ranges, weights
    and biases in `int8` and `int8-io`.

    precision: `float32`; `float16` weights; `dynamic`, INT8 weights alone; `int8`, weights and
    activations with float inputs and outputs; `int8-io`, with int8 inputs and outputs too, and
    nothing that computes in float; `int16`, activations of 16 bits, weights of 8, float inputs and
    outputs. samples: calibration samples for the last three, all of the split by default; for a
    quantized file, which needs them where TFLite has tensors that it has not, a few.
    c_array: also write the file as a C++ array, as firmware takes it.
    """

    precision: Precision = "int8"
    samples: Annotated[int, Between(1)] | None = None
    c_array: bool = False

    name: ClassVar[str] = "to_tflite"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.TFLITE
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    seconds: ClassVar[float] = 25

    def __post_init__(self) -> None:
        validate(self)

    @property
    def needs_data(self) -> bool:
        """Whether activations are quantized, and so need samples."""
        return self.precision in INT8

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.<precision>.tflite`.

        Raises StepError where a converter fails, naming the operator, or where the file does not
        load in LiteRT or disagrees with the ONNX file.
        """

        path = context.folder / f"model.{self.precision}.tflite"
        with kept_worker("tensorflow") as worker:
            graph_form = form(subject, self.precision)
            folder = saved_model(subject, context, worker, graph_form)
            conversion = json.loads((folder / CONVERSION).read_text(encoding="utf-8"))
            doing = f"quantizing to {self.precision}" if self.needs_data else "writing"
            context.progress(0.7, doing)
            samples = 0
            if self.needs_data:
                count = self._few(context) if graph_form == "quantized" else self.samples
                samples = write_samples(
                    subject, context, context.folder / SAMPLES, conversion, count
                )
            try:
                facts = worker.call(
                    "flatbuffer", folder, path, self.precision, context.folder / SAMPLES
                )
            except CrashError as error:
                raise StepError("TensorFlow's converter died", error.why, error.fix) from error
            shutil.rmtree(context.folder / SAMPLES, ignore_errors=True)
            artifact = replace(
                subject,
                path=path,
                format=Format.TFLITE,
                precision=self._precision(facts["floats"]),
                inputs=_placed(subject.inputs, conversion["inputs"], facts["inputs"]),
                outputs=_placed(subject.outputs, conversion["outputs"], facts["outputs"]),
                companions=(),
                intermediate=False,
                history=(*subject.history, f"{self.name} precision={self.precision}"),
                notes=(*subject.notes, *conversion["notes"], *self._notes(samples, facts, subject)),
            )
            context.progress(0.9, "comparing with the ONNX file")
            try:
                self._refuse_floats(facts["floats"])
                self._check(artifact, subject, context, worker)
            except StepError:
                path.unlink()
                raise
        return replace(artifact, companions=self._companions(path))

    def _refuse_floats(self, floats: dict[str, int]) -> None:
        """No INT8 file for firmware computes in float anywhere."""
        from workbench.onnxgraph.walk import describe_counts

        if self.precision == "int8-io" and floats:
            raise StepError(
                "the model cannot be written as INT8 TFLite alone",
                f"TensorFlow leaves operators in float: {describe_counts(Counter(floats))}",
                "--set to_tflite.precision=int8 lets these compute in float",
            )

    def _precision(self, floats: dict[str, int]) -> str:
        plain = {"int8-io": "int8", "dynamic": "dynamic-int8"}.get(self.precision, self.precision)
        return f"mixed-{plain}" if floats and self.needs_data else plain

    def _notes(self, samples: int, facts: dict[str, Any], subject: Artifact) -> tuple[str, ...]:
        from workbench.onnxgraph.walk import describe_counts

        if not samples:
            return ()
        floats = facts["floats"]
        kind = "int8" if self.precision == "int8-io" else "float"
        baked = any(spec.pixels or spec.head for spec in (*subject.inputs, *subject.outputs))
        texts = [
            *(notes(facts["injected"]) if facts["injected"] else [_SCHEMES[self.precision]]),
            f"{samples} calibration samples",
            f"{kind} inputs and outputs{', but for what is baked' if baked else ''}",
        ]
        if floats:
            count = sum(floats.values())
            few = (
                f"{count} operator{'s' * (count > 1)} in float: {describe_counts(Counter(floats))}"
            )
            texts.append(f"{self.precision.upper()} but for {few}")
        if self.c_array and facts["arena"]:
            texts.append(f"tensor arena: at least {facts['arena']} bytes, the activations alive "
                         "at once; the runtime needs more for itself")  # fmt: skip
        return tuple(texts)

    def _few(self, context: Context) -> int:
        """Samples for a quantized file: all where its outputs, left float, have to be 8 bits."""
        have = context.dataset.calibrating(self.samples)[1]
        return have if self.samples or self.precision == "int8-io" else min(have, FEW)

    def _companions(self, path: Path) -> tuple[Path, ...]:
        """The file as `model_data.h` and `model_data.cc`, where these are asked for."""
        if not self.c_array:
            return ()
        files = path.with_name("model_data.h"), path.with_name("model_data.cc")
        for file, text in zip(files, c_array(path.read_bytes(), "g_model_data"), strict=True):
            file.write_text(text, encoding="ascii")
        return files

    def _check(
        self, artifact: Artifact, subject: Artifact, context: Context, worker: Worker
    ) -> None:
        """Raises StepError where the file's outputs are not the ONNX file's.

        In the worker: some of what TensorFlow writes crashes LiteRT.
        """
        from workbench import parity
        from workbench.device.session import infer_each, open_session

        classes = any(spec.head == "argmax" for spec in subject.outputs)
        examples = context.dataset.examples(16 if classes else 4, context.seed)
        expected = infer_each(open_session(subject, threads=0), examples)
        try:
            worker.call("open", artifact, 0, None)
            outputs = worker.call("infer", examples)
            worker.call("drop")
        except DeviceError as error:
            raise StepError(
                f"LiteRT cannot run the {self.precision} TFLite file",
                f"{error.what}: {error.why}",
                "the other branches stand",
            ) from error
        least = LEAST_SQNR[self.precision]
        if classes:
            least = LEAST_CLASSES.get(self.precision, LEAST_CLASSES_INT8)
        agreement = parity.compare(expected, outputs)
        if not agreement.sqnr >= least:
            raise StepError(
                f"the {self.precision} TFLite file disagrees with the ONNX file",
                f"SQNR {agreement.sqnr:.1f} dB, at least {least:g} expected",
                "the model does not survive this precision; the other branches stand",
            )


def _placed(
    specs: tuple[TensorSpec, ...], places: dict[str, Any], names: dict[str, str]
) -> tuple[TensorSpec, ...]:
    """The ONNX file's tensors as the `.tflite` file has them: its names, axes and fixed shapes."""

    def placed(spec: TensorSpec) -> TensorSpec:
        location = places[spec.stored_name]
        # Pixels are channels last in the ONNX file already; of a class's index there is no axis.
        permutation = spec.permutation if spec.pixels else tuple(location["permutation"])
        shape = (1, *spec.shape[1:]) if spec.head == "argmax" else tuple(location["shape"])
        stored = names[location["key"]]
        return replace(spec, stored=stored, permutation=permutation, shape=shape)

    return tuple(placed(spec) for spec in specs)
