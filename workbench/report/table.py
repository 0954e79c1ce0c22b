"""The report in a terminal: two tables, that a narrow window may fold, and findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.report import words

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.report.data import Report


def show(report: Report, console: Console) -> None:
    """Print size and speed, then accuracy, then what they say."""
    from rich.markup import escape
    from rich.table import Table

    # Escaped: a name such as [/x] is not markup, and "[unknown]" would vanish as an unknown style.
    title = f"Size and speed · {report.device}, {report.threads} thread(s), batch 1"
    speed = Table(title=escape(title), title_justify="left")
    for name in ("", "size", "smaller", "load ms", "median ms", "p90 ms",
                 "than eager", "than FP32 ONNX", "memory"):  # fmt: skip
        speed.add_column(name, justify="left" if not name else "right", no_wrap=True)
    title = f"Accuracy · {report.samples} evaluation samples of {report.dataset}"
    quality = Table(title=escape(title), title_justify="left")
    for name in ("", escape(report.metric), "delta", "agreement", "SQNR"):
        quality.add_column(name, justify="left" if not name else "right")
    for row in report.rows:
        figures = report.figures[row.key]
        if row.error is not None:
            speed.add_row(escape(row.label), "[red]failed[/red]", *[words.NOTHING] * 7)
            quality.add_row(escape(row.label), "[red]failed[/red]", *[words.NOTHING] * 3)
            continue
        said = [
            row.label,
            words.size(figures.bytes),
            words.times(figures.smaller),
            words.milliseconds(figures.load_ms),
            words.milliseconds_interval(figures.median),
            words.milliseconds_interval(figures.p90),
            words.faster(figures.than_eager),
            words.faster(figures.than_onnx),
            words.size(figures.peak_bytes),
        ]
        speed.add_row(*map(escape, said))
        said = [
            row.label,
            words.accuracy(figures.accuracy, report.metric),
            words.points(figures.delta, report.metric),
            words.percent(figures.agreement),
            words.decibels(figures.sqnr),
        ]
        quality.add_row(*map(escape, said))
    console.print(speed)
    if report.samples:
        console.print(quality)
    for finding in report.findings:
        console.print(f"• {finding}", highlight=False, markup=False)
    for row in report.failed:
        console.print(f"[red]{escape(row.label)}[/red]: {escape(str(row.error))}", highlight=False)
