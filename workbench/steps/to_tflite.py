"""ToTflite: ONNX to TFLite, by way of a SavedModel made by onnx2tf."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.artifact import Artifact, Format, TensorSpec, feed
from workbench.errors import CrashError, StepError, first_line
from workbench.options import Between, validate

if TYPE_CHECKING:
    from workbench.measure.parity import Parity
    from workbench.recipe import Context

SAMPLES = "samples"

Precision = Literal["float32", "float16", "dynamic", "int8", "int8-io"]

# The least SQNR with which a file counts as converted. Float formats must agree to rounding. An
# INT8 file may lose much and still be an honest result, which the table shows; below 0 dB the
# noise is larger than the signal: that is not a loss of accuracy but a wrong conversion.
LEAST_SQNR: dict[str, float] = {
    "float32": 60, "float16": 30, "dynamic": 5, "int8": 0, "int8-io": 0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToTflite:
    """FP32 ONNX to `.tflite`, images as NHWC.

    precision: `float32`; `float16` weights; `dynamic`, INT8 weights alone; `int8`, weights and
    activations with float inputs and outputs; `int8-io`, with int8 inputs and outputs too.
    samples: calibration samples for the last two, all of the split by default.
    """

    precision: Precision = "int8"
    samples: Annotated[int, Between(1)] | None = None

    name: ClassVar[str] = "to_tflite"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.TFLITE
    packages: ClassVar[tuple[str, ...]] = (
        "tensorflow", "onnx2tf", "tf_keras", "onnx", "onnx-graphsurgeon", "sng4onnx", "numpy",
        "ai-edge-litert",
    )  # fmt: skip
    seconds: ClassVar[float] = 25

    def __post_init__(self) -> None:
        validate(self)

    @property
    def needs_data(self) -> bool:
        return self.precision in ("int8", "int8-io")

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.<precision>.tflite`.

        Raises StepError where a converter fails, naming the operator, or where the file does not
        load in LiteRT or disagrees with the ONNX file.
        """
        from workbench.process import Worker

        saved_model = _saved_model(subject, context)
        path = context.folder / f"model.{self.precision}.tflite"
        context.progress(0.7, f"quantizing to {self.precision}" if self.needs_data else "writing")
        samples = self._write_samples(subject, context) if self.needs_data else 0
        with Worker() as worker:
            worker.call("flatbuffer", saved_model, path, self.precision, context.folder / SAMPLES)
        shutil.rmtree(context.folder / SAMPLES, ignore_errors=True)
        context.progress(0.9, "comparing with the ONNX file")
        artifact = replace(
            subject,
            path=path,
            format=Format.TFLITE,
            precision={"int8-io": "int8", "dynamic": "dynamic-int8"}.get(
                self.precision, self.precision
            ),
            companions=(),
            history=(*subject.history, f"{self.name} precision={self.precision}"),
            notes=(*subject.notes, *self._notes(samples)),
        )
        return self._checked(artifact, subject, context)

    def _notes(self, samples: int) -> tuple[str, ...]:
        if not samples:
            return ()
        kind = "int8" if self.precision == "int8-io" else "float"
        return (
            "s8s8, per channel, TensorFlow's min-max",
            f"{samples} calibration samples",
            f"{kind} inputs and outputs",
        )

    def _write_samples(self, subject: Artifact, context: Context) -> int:
        """Calibration samples as the SavedModel takes them, one `.npy` an input; their number.

        Through files that are mapped, not through memory: the other process reads them one by one.
        """
        import numpy as np

        split, samples = context.dataset.calibrating(self.samples)
        folder = context.folder / SAMPLES
        folder.mkdir()
        files: dict[str, Any] = {}
        for batch in split.batches(8, samples):
            for name, array in feed(subject.inputs, batch.inputs).items():
                permutation = _channels_last(array.ndim) if array.ndim in (4, 5) else None
                stored = array.transpose(permutation) if permutation else array
                if name not in files:
                    files[name] = np.lib.format.open_memmap(
                        folder / f"{_word(name)}.npy",
                        "w+",
                        stored.dtype,
                        (samples, *stored.shape[1:]),
                    )
                files[name][batch.start : batch.start + len(batch)] = stored
        for file in files.values():
            file.flush()
        return samples

    def _checked(self, artifact: Artifact, subject: Artifact, context: Context) -> Artifact:
        """The artifact with the signature under which its outputs agree with the ONNX file's.

        A converter may keep an axis order or not, and shapes alone cannot always tell which.
        """
        from workbench.device.runner import infer, open_session
        from workbench.measure import parity

        examples = context.dataset.examples(4, context.seed)
        expected = infer(open_session(subject, threads=0), examples)
        best: tuple[Parity, Artifact] | None = None
        for candidate in _signatures(artifact, subject):
            found = infer(open_session(candidate, threads=0), examples)
            if [a.shape for a in found] != [a.shape for a in expected]:
                continue
            agreement = parity.compare(expected, found)
            if best is None or agreement.sqnr > best[0].sqnr:
                best = agreement, candidate
        least = LEAST_SQNR[self.precision]
        if best is None or not best[0].sqnr >= least:
            raise StepError(
                f"the {self.precision} TFLite file disagrees with the ONNX file",
                f"SQNR {best[0].sqnr:.1f} dB, at least {least:g} expected"
                if best
                else "no output has the shape expected",
                "onnx2tf does not convert this model correctly; the other branches stand",
            )
        return best[1]


def _saved_model(subject: Artifact, context: Context) -> Path:
    """The SavedModel of an ONNX file, made once for all precisions."""
    from filelock import FileLock

    from workbench.device.probe import versions
    from workbench.process import Worker

    work = context.work or context.folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    made_by = "-".join(versions(("onnx2tf", "tensorflow")).values())
    final = work / f"saved-model-{subject.sha256[:32]}-{made_by}"
    context.progress(0.0, "waiting for the SavedModel")
    with FileLock(work / f"{final.name}.lock"):
        if final.is_dir():
            return final
        context.progress(0.05, "onnx2tf")
        making = work / f"{final.name}.making"
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        # A copy: onnx2tf overwrites its input.
        source = Path(shutil.copyfile(subject.path, making / "model.onnx"))
        kept = [spec.name.replace(":", "__") for spec in subject.inputs
                if len(spec.shape) not in (4, 5)]  # fmt: skip
        try:
            with Worker() as worker:
                worker.call("saved_model", source, making / "saved_model", kept)
        except CrashError as error:
            raise StepError("onnx2tf died", error.why, error.fix) from error
        (making / "saved_model").rename(final)
        shutil.rmtree(making)
    return final


def _channels_last(rank: int) -> tuple[int, ...]:
    """The permutation from N, C, spatial axes to N, spatial axes, C."""
    return (0, *range(2, rank), 1)


def _signatures(artifact: Artifact, subject: Artifact) -> Iterator[Artifact]:
    """The artifact under every mapping of names and axis orders that its shapes allow."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_path=str(artifact.path))
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise StepError(
            "LiteRT cannot load the converted file",
            first_line(error),
            "an operator has no TFLite counterpart at this opset; try a higher export.opset",
        ) from error
    given, made = interpreter.get_input_details(), interpreter.get_output_details()
    inputs = [_choices(spec, given, len(subject.inputs)) for spec in subject.inputs]
    outputs = [_choices(spec, made, len(subject.outputs)) for spec in subject.outputs]
    pairs = ((left, right) for left in _distinct(inputs) for right in _distinct(outputs))
    for left, right in itertools.islice(pairs, 64):
        yield replace(artifact, inputs=left, outputs=right)


def _distinct(
    choices: list[list[TensorSpec]], taken: frozenset[str] = frozenset()
) -> Iterator[tuple[TensorSpec, ...]]:
    """Every way to choose a counterpart for each tensor, none of them twice."""
    if not choices:
        yield ()
        return
    for spec in choices[0]:
        if spec.stored not in taken:
            for rest in _distinct(choices[1:], taken | {spec.stored}):
                yield (spec, *rest)


def _choices(spec: TensorSpec, details: list[dict[str, Any]], count: int) -> list[TensorSpec]:
    """A tensor's possible counterparts in the file, by name where a name matches, else by shape."""
    named = [d for d in details if _plain(d["name"]) == _word(spec.name)]
    found = []
    for detail in named if named and count > 1 else details:
        shape = tuple(int(size) for size in detail["shape"])
        rank = len(spec.shape)
        if len(shape) != rank:
            continue
        # Channels-last first: where both fit the shape, parity decides, and this is the usual one.
        for permutation in ([_channels_last(rank)] if rank > 2 else []) + [()]:
            wanted = [spec.shape[axis] for axis in permutation] if permutation else spec.shape
            if all(a is None or a == b or i == 0 for i, (a, b) in enumerate(zip(wanted, shape))):  # noqa: B905
                found.append(
                    replace(
                        spec,
                        stored=detail["name"],
                        permutation=permutation,
                        shape=(1, *spec.shape[1:]),
                    )
                )
    return found


def _word(name: str) -> str:
    """An ONNX tensor's plain name: onnx2tf writes `:` as `__`."""
    return _plain(name.replace(":", "__"))


def _plain(name: str) -> str:
    """A tensor's name without what the converters put around it."""
    word = name.removeprefix("serving_default_").partition(":")[0].lower()
    return "".join(letter if letter.isalnum() else "_" for letter in word)
