"""report.json: the first device's block with the run's facts, further devices' under `devices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from workbench.codec import to_plain
from workbench.errors import WorkbenchError
from workbench.report import checklist, formats
from workbench.report.data import Block, Report, Row, Verified


def report_json(report: Report) -> dict[str, Any]:
    """Plain values: figures, and the raw latencies that they are derived from.

    What the files are is told once, in the first block.
    """
    first, *others = report.blocks
    devices = [_plain(report, _figures_alone(block), None, []) for block in others]
    return _plain(report, first, report.verified, devices)


def _figures_alone(block: Block) -> Block:
    rows = tuple(replace(row, checks=None, samples=(), quantization=None) for row in block.rows)
    return replace(block, rows=rows)


def _plain(
    report: Report, block: Block, verified: Verified | None, devices: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "recipe": report.recipe,
        "model": report.model,
        "dataset": block.dataset,
        "device": block.device,
        "threads": block.threads,
        "preset": block.preset,
        "metric": block.metric,
        "samples": block.samples,
        "labelled": block.labelled,
        "baselines": {"eager": block.eager, "onnx": block.onnx, "reference": block.reference},
        "created": report.created,
        "measured": report.measured,
        "seconds": report.seconds,
        "host": dict(block.host),
        "versions": dict(report.versions),
        "notes": list(block.notes),
        "findings": list(block.findings),
        "rows": [_row(block, row) for row in block.rows],
        "emulated": block.emulated,
        "error": _error(block.error),
        "devices": list(devices),
        "formats": to_plain(formats.entries(block, report.versions)),
        "checklist": [line.to_json() for line in checklist.lines(block, verified)],
    }


def _row(block: Block, row: Row) -> dict[str, Any]:
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
        "error": _error(row.error),
        "operators": dict(row.operators),
        "figures": to_plain(block.figures[row.key]),
        "latency": row.latency.to_json() if row.latency else None,
        "quantization": row.quantization,
    }


def _error(error: WorkbenchError | None) -> dict[str, str] | None:
    return {"what": error.what, "why": error.why, "fix": error.fix} if error else None
