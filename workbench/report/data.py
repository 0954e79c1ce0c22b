"""`Report`: rows of (artifact, latency, scores), and every figure derived from them.

Deltas and ratios are computed here, against named baseline rows, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.errors import WorkbenchError
from workbench.intervals import Estimate
from workbench.measure.accuracy import Scores
from workbench.measure.latency import Latency, speedup

if TYPE_CHECKING:
    from workbench.measure.checks import Checks
    from workbench.recipe import Located
    from workbench.report.checklist import Verified

PRECISION = {
    "float32": "FP32", "float16": "FP16", "int8": "INT8", "dynamic-int8": "dynamic INT8",
    "dynamic": "dynamic INT8", "int8-io": "INT8", "int16": "INT16",
    "mixed-int8": "mixed INT8", "mixed-int16": "mixed INT16",
}  # fmt: skip
FORMAT = {
    "onnx": "ONNX", "ort": "ORT-mobile", "tflite": "TFLite", "torch": "PyTorch eager",
    "torchscript": "TorchScript", "pt2": "PT2",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. `key` is unique: `eager`, or the id of the step that made the file.

    path: relative to the run folder, empty for PyTorch eager, whose `bytes` are those of its
    parameters and buffers. error: what ended this row; the others stand. head: what the file
    applies to the original's outputs, "softmax" or "argmax". placement: how many nodes ran on each
    execution provider, for TFLite on XNNPACK and on LiteRT's own kernels. left: the operators that
    what should accelerate the file left to the CPU's kernels, with counts. checks: what the
    decision tables rest on, None where nothing was found. samples: files of code that loads the
    artifact, relative to the run folder. quantization: what the engine did, on the first row of its
    branch (see `quantization.evidence`). fidelity: of a device's outputs to this machine's, of the
    same file. operators: milliseconds of a run by operator, as the runtime's own profile has them.
    """

    key: str
    label: str
    format: str
    precision: str = ""
    path: str = ""
    bytes: int | None = None
    sha256: str = ""
    latency: Latency | None = None
    scores: Scores | None = None
    error: WorkbenchError | None = None
    notes: tuple[str, ...] = ()
    head: str = ""
    placement: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    checks: Checks | None = None
    samples: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None
    fidelity: Scores | None = None
    operators: Mapping[str, float] = field(default_factory=dict)


def label_of(artifact: Artifact) -> str:
    precision = PRECISION.get(artifact.precision, artifact.precision)
    parts = ["baked"] if any(spec.pixels for spec in artifact.inputs) else []
    parts += [precision, FORMAT.get(artifact.format, artifact.format)]
    parts += [f"with {spec.head}" for spec in artifact.outputs if spec.head]
    return " ".join(parts)


def label_of_step(located: Located) -> str:
    """What a step would have made, for the row that says why it did not."""
    precision = located.step.precision
    words = [PRECISION.get(precision, precision), FORMAT.get(located.step.gives, "")]
    return " ".join(word for word in words if word) or located.id


@dataclass(frozen=True)
class Figures:
    """What a row says, None where it was not measured.

    smaller, than_eager, than_onnx: ratios to the baselines, above 1 is better. delta: of the
    accuracy, in points (or the metric's unit). unit of times: milliseconds. like_host,
    like_host_sqnr: agreement in percent and SQNR of a device's outputs to this machine's.
    """

    bytes: int | None
    smaller: float | None
    load_ms: float | None
    first_ms: float | None
    median: Estimate | None
    p90: Estimate | None
    than_eager: Estimate | None
    than_onnx: Estimate | None
    peak_bytes: int | None
    accuracy: float | None
    top5: float | None
    delta: Estimate | None
    agreement: float | None
    sqnr: float | None
    like_host: float | None = None
    like_host_sqnr: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: plain(value) for key, value in vars(self).items()}


def plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return {key: plain(number) for key, number in value.to_json().items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinities
    return value


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a run found. `eager`, `onnx` and `reference` are keys of baseline rows, or ''.

    `onnx` is FP32 ONNX, in a profile or comparison the first file that ran. `reference` is
    the row that accuracy deltas, agreement and SQNR are taken against. `others` are the same
    artifacts on further devices. `away`: a runner measured them, see `Device.remote`. `emulated`:
    the times say nothing and are compared with nothing. `error`: what ended the whole device; its
    rows have what it gave before.
    """

    recipe: str
    model: str
    dataset: str
    device: str
    threads: int
    preset: str
    metric: str
    samples: int
    labelled: bool
    rows: tuple[Row, ...]
    eager: str
    onnx: str
    reference: str
    host: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    measured: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    verified: Verified | None = None
    others: tuple[Report, ...] = ()
    emulated: bool = False
    away: bool = False
    error: WorkbenchError | None = None

    @property
    def blocks(self) -> tuple[Report, ...]:
        """One report a device."""
        return (self, *self.others)

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    @property
    def baseline(self) -> str:
        """What the row is called that speed is compared with, besides PyTorch eager."""
        row = self.row(self.onnx)
        return row.label if row else "FP32 ONNX"

    @cached_property
    def figures(self) -> dict[str, Figures]:
        """Every row's figures by its key."""
        return {row.key: self._figures(row) for row in self.rows}

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.error is not None)

    @property
    def exit_code(self) -> int:
        """0, 3 where an artifact failed, 5 where a device did."""
        errors = [one.error for one in self.blocks if one.error is not None]
        if errors:
            return errors[0].exit_code
        away = [one for one in self.blocks if one.failed and one.away]
        return 5 if away else 3 if any(one.failed for one in self.blocks) else 0

    def _figures(self, row: Row) -> Figures:
        base = self.row(self.eager) or self.row(self.onnx)
        reference = self.row(self.reference)
        timed, scores = row.latency, row.scores
        smaller = base.bytes / row.bytes if base and base.bytes and row.bytes else None
        delta = None
        if scores and reference and reference.scores and row is not reference:
            delta = scores.delta(reference.scores)
        compared = scores is not None and row is not reference
        return Figures(
            bytes=row.bytes,
            smaller=smaller,
            load_ms=timed.load_ms if timed else None,
            first_ms=timed.first_ms if timed else None,
            median=timed.median if timed else None,
            p90=timed.p90 if timed else None,
            than_eager=self._speedup(self.eager, row),
            than_onnx=self._speedup(self.onnx, row),
            peak_bytes=timed.peak_bytes if timed else None,
            accuracy=scores.accuracy if scores else None,
            top5=scores.top5_accuracy if scores else None,
            delta=delta,
            agreement=scores.agreement if scores and compared else None,
            sqnr=scores.sqnr if scores and compared else None,
            like_host=row.fidelity.agreement if row.fidelity else None,
            like_host_sqnr=row.fidelity.sqnr if row.fidelity else None,
        )

    def _speedup(self, key: str, row: Row) -> Estimate | None:
        base = self.row(key)
        if base is None or base.latency is None or row.latency is None or row.key == key:
            return None
        if self.emulated:
            return None
        return speedup(base.latency, row.latency)

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """What the table says, in sentences, the unwelcome ones too."""
        from workbench.report.findings import findings

        return findings(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values: figures, and the raw latencies that they are derived from."""
        from workbench.report import checklist, formats

        return {
            "recipe": self.recipe,
            "model": self.model,
            "dataset": self.dataset,
            "device": self.device,
            "threads": self.threads,
            "preset": self.preset,
            "metric": self.metric,
            "samples": self.samples,
            "labelled": self.labelled,
            "baselines": {"eager": self.eager, "onnx": self.onnx, "reference": self.reference},
            "created": self.created,
            "measured": self.measured,
            "seconds": self.seconds,
            "host": dict(self.host),
            "versions": dict(self.versions),
            "notes": list(self.notes),
            "findings": list(self.findings),
            "rows": [self._row_json(row) for row in self.rows],
            "emulated": self.emulated,
            "error": _error_json(self.error),
            "devices": [one.to_json() for one in self.others],
            "formats": [entry.to_json() for entry in formats.entries(self)],
            "checklist": [line.to_json() for line in checklist.lines(self)],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        return {
            "key": row.key,
            "label": row.label,
            "format": row.format,
            "precision": row.precision,
            "path": row.path,
            "head": row.head,
            "sha256": row.sha256,
            "notes": list(row.notes),
            "samples": list(row.samples),
            "placement": {"nodes": dict(row.placement), "left": dict(row.left)},
            "error": _error_json(row.error),
            "operators": dict(row.operators),
            "figures": self.figures[row.key].to_json(),
            "latency": row.latency.to_json() if row.latency else None,
            "quantization": row.quantization,
        }


def _error_json(error: WorkbenchError | None) -> dict[str, str] | None:
    return {"what": error.what, "why": error.why, "fix": error.fix} if error else None
