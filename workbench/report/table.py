"""The report in a terminal: tables that fit its width, and findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.report import checklist, words

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.report.data import Figures, Report

Columns = dict[str, Callable[["Figures"], str]]

SIZE: Columns = {
    "size": lambda f: words.size(f.bytes),
    "smaller": lambda f: words.times(f.smaller),
    "load ms": lambda f: words.milliseconds(f.load_ms),
    "memory": lambda f: words.size(f.peak_bytes),
}
SPEED: Columns = {
    "median ms": lambda f: words.milliseconds_interval(f.median),
    "p90 ms": lambda f: words.milliseconds_interval(f.p90),
}
# What size and speed take on one line each; below it they are two tables of two-line cells, which
# fit 80 columns.
WIDE = 160


def show(report: Report, console: Console, *, quality: bool = True) -> None:
    """Print size and speed, then accuracy where `quality` is wanted, then what they say."""
    from rich.markup import escape

    where = f"{report.device}, {report.threads} thread(s), batch 1"
    speed = dict(SPEED)
    if report.eager:
        speed["than eager"] = lambda f: words.faster(f.than_eager)
    if report.onnx:
        speed[f"than {report.baseline}"] = lambda f: words.faster(f.than_onnx)
    if all(row.latency is None for row in report.rows):
        _print(report, console, "Size", {name: SIZE[name] for name in ("size", "smaller")})
    elif console.width >= WIDE:
        _print(report, console, f"Size and speed · {where}", SIZE | speed)
    else:
        _print(report, console, "Size", SIZE)
        _print(report, console, f"Speed · {where}", speed, folded=True)
    if report.samples and quality:
        columns: Columns = {
            "agreement": lambda f: words.percent(f.agreement),
            "SQNR": lambda f: words.decibels(f.sqnr),
        }
        title = f"Outputs · {report.samples} samples of {report.dataset}"
        if report.labelled:
            columns = {
                report.metric: lambda f: words.accuracy(f.accuracy, report.metric),
                "delta": lambda f: words.points(f.delta, report.metric),
                **columns,
            }
            title = f"Accuracy · {report.samples} evaluation samples of {report.dataset}"
        _print(report, console, title, columns)
    for finding in report.findings:
        console.print(f"• {finding}", highlight=False, markup=False)
    wanting = checklist.attention(report) if any(row.checks for row in report.rows) else ()
    if wanting:
        said = f"• Checklist, the evidence is in report.html: {'; '.join(wanting)}."
        console.print(said, highlight=False, markup=False)
    for row in report.failed:
        console.print(f"[red]{escape(row.label)}[/red]: {escape(str(row.error))}", highlight=False)


def _print(
    report: Report, console: Console, title: str, columns: Columns, *, folded: bool = False
) -> None:
    """One table, a row an artifact; `folded` puts intervals on a line of their own."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    # Escaped: a name such as [/x] is not markup, and "[unknown]" would vanish as an unknown style.
    table = Table(
        title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
    table.add_column("")
    for name in columns:
        table.add_column(escape(name), justify="right", no_wrap=not folded)
    for row in report.rows:
        if row.error is not None:
            empty = [words.NOTHING] * (len(columns) - 1)
            table.add_row(escape(row.label), "[red]failed[/red]", *empty)
            continue
        cells = [say(report.figures[row.key]) for say in columns.values()]
        if folded:
            cells = [cell.replace(" [", "\n[") for cell in cells]
        table.add_row(*map(escape, [row.label, *cells]))
    console.print(table)
