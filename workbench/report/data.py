"""`Report`: a block for each device, of rows (artifact, latency, scores), and what follows of them.

Deltas and ratios are computed here, against named baseline rows, and nowhere else.
"""

from __future__ import annotations

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
    """One line of the table.

    Attributes:
        key: `eager`, the id of the step that made the file, or a given file's label; unique.
        label: what readers call it.
        format, precision: of the file.
        path: relative to the run folder, empty for PyTorch eager.
        bytes: of the file; of PyTorch eager, those of its parameters and buffers.
        sha256: of the file; of PyTorch eager, its fingerprint.
        latency: raw samples of every process.
        scores: of its outputs, against the labels and the reference's.
        error: what ended this row; the others stand.
        notes: what a reader must know of it.
        head: what the file applies to the original's outputs, "softmax" or "argmax".
        placement: how many nodes ran on each execution provider, for TFLite on XNNPACK and on
            LiteRT's own kernels.
        left: the operators that what should accelerate the file left to the CPU's kernels, with
            counts.
        checks: what the decision tables rest on, None where nothing was looked into.
        samples: files of code that loads the artifact, relative to the run folder.
        quantization: what the engine did, on the first row of its branch (see
            `quantization.explain.evidence`).
        fidelity: of a device's outputs to this machine's, of the same file.
        operators: milliseconds of a run by operator, as the runtime's own profile has them.
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
    """What readers call a file: precision, format, and what is in it beside the network."""
    precision = PRECISION.get(artifact.precision, artifact.precision)
    parts = ["baked"] if any(spec.pixels for spec in artifact.inputs) else []
    parts += [precision, FORMAT.get(artifact.format, artifact.format)]
    parts += [f"with {spec.head}" for spec in artifact.outputs if spec.head]
    return " ".join(parts)


@dataclass(frozen=True)
class Figures:
    """What a row says, None where it was not measured. Times are in milliseconds.

    Attributes:
        smaller, than_eager, than_onnx: ratios to the baselines, above 1 is better.
        accuracy, top5, agreement: in percent; accuracy in the unit of a user's metric.
        delta: of the accuracy, in points or in the metric's unit.
        sqnr: in dB.
        like_host, like_host_sqnr: agreement in percent and SQNR of a device's outputs to this
            machine's.
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


@dataclass(frozen=True, kw_only=True)
class Block:
    """The rows of one device, and what they were measured with.

    Attributes:
        device: its profile's name.
        threads: that a run has there.
        dataset: the name of what was run.
        preset: the name of how much was measured.
        metric: the name of the accuracy.
        samples: how many were scored.
        labelled: whether they have labels.
        rows: one for each artifact.
        eager, onnx, reference: keys of baseline rows, or ''. `onnx` is FP32 ONNX, in a profile or
            comparison the first file that ran. `reference` is the row that accuracy deltas,
            agreement and SQNR are taken against.
        host: facts of the machine, by name.
        notes: what a reader must know of all rows.
        emulated: the times say nothing and are compared with nothing.
        away: a runner measured it, see `Device.remote`.
        error: what ended the whole device; its rows have what it gave before.
    """

    device: str
    threads: int
    dataset: str
    preset: str
    metric: str
    samples: int
    labelled: bool
    rows: tuple[Row, ...]
    eager: str
    onnx: str
    reference: str
    host: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    emulated: bool = False
    away: bool = False
    error: WorkbenchError | None = None

    def row(self, key: str) -> Row | None:
        """The row of a key, None where there is none."""
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
        """The rows that an error ended."""
        return tuple(row for row in self.rows if row.error is not None)

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """What the table says, in sentences, the unwelcome ones too."""
        from workbench.report.findings import findings

        return findings(self)

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


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Files of the run folder read back after writing.

    Attributes:
        files: how many artifacts and files beside them were compared with the digests of what the
            steps made.
        differing: those that were not equal.
    """

    files: int
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a run found: the same artifacts on one device after another.

    Attributes:
        recipe: its name; `profile` or `compare` where files were given.
        model: the name of what the artifacts were made of.
        blocks: one for each device, in the order asked for; at least one.
        versions: of the packages that had a part in it.
        created, measured: ISO dates; `measured` is '' where no latency was.
        seconds: that the run took.
        verified: None where no files were copied.
    """

    recipe: str
    model: str
    blocks: tuple[Block, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    measured: str = ""
    seconds: float = 0.0
    verified: Verified | None = None

    @property
    def first(self) -> Block:
        """The block of the device that was asked for first, where the files are told of."""
        return self.blocks[0]

    @property
    def several(self) -> bool:
        """Whether a reader must be told which device each figure is of."""
        return len(self.blocks) > 1 or self.first.away

    @property
    def failed(self) -> bool:
        """Whether an artifact failed, on any device."""
        return any(block.failed for block in self.blocks)

    @property
    def exit_code(self) -> int:
        """0, 3 where an artifact failed, 5 where a device did."""
        errors = [block.error for block in self.blocks if block.error is not None]
        if errors:
            return errors[0].exit_code
        if any(block.failed and block.away for block in self.blocks):
            return 5
        return 3 if self.failed else 0

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each artifact on each device.

        Raises DependencyError where pandas is not installed.
        """
        from workbench.notebook import data_frame
        from workbench.report.notebook import report_records

        return data_frame(report_records(self))

    def _repr_html_(self) -> str:
        """What a notebook's cell shows."""
        from workbench.report.notebook import report_html

        return report_html(self)
