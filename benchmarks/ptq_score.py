"""Figures of quantized files against FP32, and their table. Outputs come from the real runtimes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device.profile import Device
from workbench.intervals import Estimate, paired_difference
from workbench.parity import sqnr
from workbench.process import Worker

Array = NDArray[Any]
BATCH = 10


@dataclass(frozen=True)
class Figures:
    """Of one file. top1, agreement, in percent, and drop, in points: None without classes.

    drop: FP32's top-1 less this one's on the same samples, with its paired 95 % interval. sqnr: of
    all outputs, dB. cosine, worst: of each sample's outputs, the mean and the smallest.
    """

    top1: float | None
    drop: Estimate | None
    agreement: float | None
    sqnr: float
    cosine: float
    worst: float

    def to_json(self) -> dict[str, Any]:
        drop = self.drop.to_json() if self.drop else None
        return {**self.__dict__, "drop": drop}


def onnx_artifact(path: Path, precision: str) -> Artifact:
    """An ONNX file with the inputs and outputs that it declares."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph

    def spec(value: Any) -> TensorSpec:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        sizes = [one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim]
        return TensorSpec(name=value.name, dtype=dtype, shape=tuple(sizes))

    names = {one.name for one in graph.initializer}
    inputs = tuple(spec(one) for one in graph.input if one.name not in names)
    outputs = tuple(spec(one) for one in graph.output)
    return Artifact(
        path=path, format=Format.ONNX, precision=precision, inputs=inputs, outputs=outputs
    )


def outputs(artifact: Artifact, inputs: Mapping[str, Array], device: Device) -> Array:
    """First outputs [N, …] of all samples, from the file's own runtime in a process of its own.

    A file with ranges taken at run time sees one sample at a time, as an app gives them.
    """
    count = len(next(iter(inputs.values())))
    size = 1 if artifact.precision == "dynamic" else BATCH
    parts = []
    with Worker() as worker:
        first = {name: value[:1] for name, value in inputs.items()}
        worker.call("open", artifact, 1, first, device)
        for start in range(0, count, size):
            batch = {name: value[start : start + size] for name, value in inputs.items()}
            parts.append(worker.call("infer", batch)[0])
    return np.concatenate(parts)


def score(reference: Array, found: Array, labels: Array) -> Figures:
    """Figures of outputs [N, …] against FP32's; labels [N], or empty where there are none."""
    before, after = (one.reshape(len(one), -1).astype(np.float64) for one in (reference, found))
    noise = float(((after - before) ** 2).sum())
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = (before * after).sum(1) / np.maximum(lengths, np.finfo(float).tiny)
    top1 = drop = agreement = None
    if len(labels):
        first, second = before.argmax(1), after.argmax(1)
        change = paired_difference(first == labels, second == labels)
        top1 = 100 * float((second == labels).mean())
        drop = Estimate(0.0 - change.value, 0.0 - change.high, 0.0 - change.low)
        agreement = 100 * float((first == second).mean())
    decibels = sqnr(float((before**2).sum()), noise)
    return Figures(top1, drop, agreement, decibels, float(cosines.mean()), float(cosines.min()))


@dataclass(frozen=True)
class Line:
    """A row of the table: figures, or why there are none."""

    key: str
    label: str
    figures: Figures | None = None
    speed: Estimate | None = None
    size: float | None = None  # of the file, relative to FP32 ONNX
    seconds: float | None = None  # of the procedure
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "figures": self.figures.to_json() if self.figures else None,
            "speed": self.speed.to_json() if self.speed else None,
        }


HEADER = (
    "", "top-1 %", "drop, points", "agree %", "SQNR dB", "cosine", "worst", "speed ×", "size ×", "s"
)  # fmt: skip


def markdown(title: str, lines: Sequence[Line]) -> Iterator[str]:
    """A section with the table, and the notes below it."""
    yield f"## {title}"
    yield ""
    yield f"| {' | '.join(HEADER)} |"
    yield f"| --- |{' ---: |' * (len(HEADER) - 1)}"
    for line in lines:
        yield f"| {' | '.join(_cells(line))} |"
    yield ""
    noted = [line for line in lines if line.note and not line.figures]
    for line in noted:
        yield f"- {line.label}: {line.note}"
    if noted:
        yield ""


def _cells(line: Line) -> list[str]:
    one = line.figures
    cells = [line.label]
    if one is None:
        cells += ["–"] * 6
    else:
        cells += [
            _number(one.top1, ".2f"),
            _interval(one.drop),
            _number(one.agreement, ".1f"),
            _number(one.sqnr, ".1f"),
            f"{one.cosine:.5f}",
            f"{one.worst:.5f}",
        ]
    cells += [_interval(line.speed), _number(line.size, ".2f"), _number(line.seconds, ".1f")]
    return cells


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" if math.isfinite(value) else "equal"


def _interval(one: Estimate | None) -> str:
    if one is None:
        return "–"
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
