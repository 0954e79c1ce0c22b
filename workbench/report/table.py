"""The report in a terminal: tables that fit its width, and findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.report import checklist, words
from workbench.report.blocks import title

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
    """Print size and speed, then accuracy where `quality` is wanted, then what they say.

    Of several devices each table has a block for each.
    """
    from rich.markup import escape

    blocks = report.blocks
    several = len(blocks) > 1 or report.away
    where = "" if several else f"{report.device}, {report.threads} thread(s), "
    speed = dict(SPEED)
    if any(one.eager for one in blocks):
        speed["than eager"] = lambda f: words.faster(f.than_eager)
    if report.onnx:
        speed[f"than {report.baseline}"] = lambda f: words.faster(f.than_onnx)
    if all(row.latency is None for one in blocks for row in one.rows):
        _print(report, console, "Size", {name: SIZE[name] for name in ("size", "smaller")})
    elif console.width >= WIDE:
        _print(report, console, f"Size and speed · {where}batch 1", SIZE | speed)
    else:
        _print(report, console, "Size", SIZE)
        _print(report, console, f"Speed · {where}batch 1", speed, folded=True)
    if quality and (any(one.samples for one in blocks) or _compared(report)):
        _print_quality(report, console)
    if several:
        for one in blocks:
            console.print(title(one), highlight=False, markup=False, soft_wrap=True)
    for one in blocks:
        for finding in one.findings:
            named = len(blocks) == 1 or finding.startswith(one.device)
            begin = "" if named else f"{one.device}: "
            console.print(f"• {begin}{finding}", highlight=False, markup=False)
        for row in one.rows:
            if row.operators:
                said = f"• {one.device}: {row.label}: {words.operators(row.operators)}"
                console.print(said, highlight=False, markup=False)
    wanting = checklist.attention(report) if any(row.checks for row in report.rows) else ()
    if wanting:
        said = f"• Checklist, the evidence is in report.html: {'; '.join(wanting)}."
        console.print(said, highlight=False, markup=False)
    for one in blocks:
        begin = f"{one.device}, " if len(blocks) > 1 else ""
        if one.error is not None:
            said = f"[red]{escape(one.device)}[/red]: {escape(str(one.error))}"
            console.print(said, highlight=False)
        for row in one.failed:
            said = f"[red]{escape(begin + row.label)}[/red]: {escape(str(row.error))}"
            console.print(said, highlight=False)


def _compared(report: Report) -> bool:
    """Whether a device's outputs were held against this machine's."""
    return any(row.fidelity for one in report.blocks for row in one.rows)


def _print_quality(report: Report, console: Console) -> None:
    blocks = report.blocks
    scored = any(one.samples for one in blocks)
    columns: Columns = {}
    if any(one.labelled for one in blocks):
        columns[report.metric] = lambda f: words.accuracy(f.accuracy, report.metric)
        columns["delta"] = lambda f: words.points(f.delta, report.metric)
    if scored:
        columns["agreement"] = lambda f: words.percent(f.agreement)
        columns["SQNR"] = lambda f: words.decibels(f.sqnr)
    if _compared(report):
        columns["as on this machine"] = lambda f: words.fidelity(f.like_host, f.like_host_sqnr)
    count = f"{report.samples} " if len(blocks) == 1 and report.samples else ""
    title = f"Outputs · {count}samples of {report.dataset}"
    if any(one.labelled for one in blocks):
        title = f"Accuracy · {count}evaluation samples of {report.dataset}"
    _print(report, console, title, columns)


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
    several = len(report.blocks) > 1 or report.away
    for one in report.blocks:
        if several:
            table.add_row(f"[bold]{escape(one.device)}[/bold]")
        empty = [words.NOTHING] * (len(columns) - 1)
        for row in one.rows:
            label = escape(f"  {row.label}" if several else row.label)
            if row.error is not None:
                table.add_row(label, "[red]failed[/red]", *empty)
                continue
            cells = [say(one.figures[row.key]) for say in columns.values()]
            if folded:
                cells = [cell.replace(" [", "\n[") for cell in cells]
            table.add_row(label, *map(escape, cells))
    console.print(table)
