"""A report in a notebook: a table of all devices, and what it says; or its figures for pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workbench.notebook import html_lines, html_table
from workbench.report import words

if TYPE_CHECKING:
    from workbench.report.data import Figures, Report


def report_html(report: Report) -> str:
    """The report's figures in one table, its findings and its errors below."""
    columns = _columns(report)
    several = len(report.blocks) > 1
    rows = []
    lines = []
    for block in report.blocks:
        device = [block.device] if several else []
        if block.error is not None:
            lines.append(f"{block.device}: {block.error}")
        for row in block.rows:
            figures = block.figures[row.key]
            cells = [text(figures) for text in columns.values()]
            if row.error is not None:
                cells = ["failed", *[words.NOTHING] * (len(columns) - 1)]
                lines.append(f"{row.label}: {row.error}")
            rows.append([*device, row.label, *cells])
        lines += block.findings
    headings = [*(["device"] if several else []), "", *columns]
    title = f"{report.recipe} of {report.model}"
    return html_table(headings, rows, title) + html_lines(lines)


def report_records(report: Report) -> list[dict[str, Any]]:
    """A record for each artifact on each device: what it is, and every figure of it."""
    return [
        {
            "device": block.device,
            "key": row.key,
            "artifact": row.label,
            "format": row.format,
            "precision": row.precision,
            "path": row.path,
            **vars(block.figures[row.key]),
            "error": None if row.error is None else str(row.error),
        }
        for block in report.blocks
        for row in block.rows
    ]


def _columns(report: Report) -> dict[str, Callable[[Figures], str]]:
    """The columns that some row has figures for, by heading."""
    figures = [block.figures[row.key] for block in report.blocks for row in block.rows]
    first = report.blocks[0]
    metric = first.metric
    columns: dict[str, tuple[str, Callable[[Figures], str]]] = {
        "size": ("bytes", lambda f: words.size(f.bytes)),
        "smaller": ("smaller", lambda f: words.times(f.smaller)),
        "load ms": ("load_ms", lambda f: words.milliseconds(f.load_ms)),
        "memory": ("peak_bytes", lambda f: words.size(f.peak_bytes)),
        "median ms": ("median", lambda f: words.milliseconds_interval(f.median)),
        "than eager": ("than_eager", lambda f: words.faster(f.than_eager)),
        f"than {first.baseline}": ("than_onnx", lambda f: words.faster(f.than_onnx)),
        metric: ("accuracy", lambda f: words.accuracy(f.accuracy, metric)),
        "delta": ("delta", lambda f: words.points(f.delta, metric)),
        "agreement": ("agreement", lambda f: words.percent(f.agreement)),
        "SQNR": ("sqnr", lambda f: words.decibels(f.sqnr)),
        "as on this machine": (
            "like_host",
            lambda f: words.fidelity(f.like_host, f.like_host_sqnr),
        ),
    }
    return {
        heading: text
        for heading, (name, text) in columns.items()
        if name == "bytes" or any(getattr(row, name) is not None for row in figures)
    }
