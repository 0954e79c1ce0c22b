"""A device's block: its rows from what was measured there, and its heading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.report.data import Block, Row

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.measure.measurement import DeviceMeasurements, Measurement
    from workbench.measure.target import MeasureTarget


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Keys of the rows that others are compared with, '' where there is none; see `Block`."""

    eager: str = ""
    onnx: str = ""
    reference: str = ""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all rows of a table were measured with.

    Attributes:
        dataset, preset, metric: names.
        labelled: whether the dataset's samples have labels.
        baselines: what is compared with what.
        notes: what a reader must know of all rows.
    """

    dataset: str
    preset: str
    metric: str
    labelled: bool
    baselines: Baselines
    notes: tuple[str, ...] = ()


def block_of(
    targets: Sequence[MeasureTarget], measurements: DeviceMeasurements, terms: Terms
) -> Block:
    """A row for each target, with what the device gave of it."""
    device = measurements.device
    samples = measurements.samples
    return Block(
        device=device.name,
        threads=device.threads,
        dataset=terms.dataset,
        preset=terms.preset,
        metric=terms.metric,
        samples=samples,
        labelled=terms.labelled and (samples > 0 or not device.remote),
        rows=tuple(
            _row(target, measurements.targets.get(target.key), device) for target in targets
        ),
        eager=terms.baselines.eager,
        onnx=terms.baselines.onnx,
        reference=terms.baselines.reference,
        host=measurements.host,
        notes=(*terms.notes, *measurements.notes),
        emulated=device.remote and device.emulated,
        away=device.remote,
        error=measurements.error,
    )


def _row(target: MeasureTarget, measurement: Measurement | None, device: Device) -> Row:
    row = Row(
        key=target.key,
        label=target.label,
        format=target.format,
        precision=target.precision,
        path=target.path,
        bytes=target.bytes,
        sha256=target.sha256,
        error=target.error,
        notes=target.notes,
        head=target.head,
        quantization=target.quantization,
    )
    return row if measurement is None else _measured(row, measurement, device)


def _measured(row: Row, measurement: Measurement, device: Device) -> Row:
    error = row.error or measurement.error
    placement = measurement.placement
    # What ended the row says why nothing is known of its nodes too.
    notes = [*row.notes, *(() if error else placement.notes)]
    if measurement.on_cpu:
        notes.append(_on_cpu(row, measurement, device))
    return replace(
        row,
        latency=measurement.latency,
        scores=measurement.scores,
        fidelity=measurement.fidelity,
        error=error,
        notes=tuple(notes),
        placement=placement.nodes,
        left=placement.left,
        checks=measurement.checks,
        operators=measurement.operators,
    )


def _on_cpu(row: Row, measurement: Measurement, device: Device) -> str:
    if measurement.scores is None:
        return f"its runtime knows nothing of {device.name}: latency was not measured"
    runtime = "LiteRT" if row.format == "tflite" else "PyTorch"
    return (
        f"{runtime} ran it on the CPU, not on {device.name}: accuracy is the CPU's, "
        "latency was not measured"
    )


def title(block: Block) -> str:
    """A block's heading: the device, and what it is."""
    host = block.host
    parts = [block.device, str(host.get("device") or ""), str(host.get("soc") or "")]
    parts.append(f"{block.threads} {'thread' if block.threads == 1 else 'threads'}")
    if scheme := host.get("INT8"):
        parts.append(f"INT8 as {scheme}")
    if block.emulated:
        parts.append("EMULATED")
    if block.samples:
        parts.append(f"{block.samples} samples")
    return " · ".join(part for part in dict.fromkeys(parts) if part)
