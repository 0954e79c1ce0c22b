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

    blocks, first, several = report.blocks, report.first, report.several
    where = "" if several else f"{first.device}, {first.threads} thread(s), "
    speed = dict(SPEED)
    if any(block.eager for block in blocks):
        speed["than eager"] = lambda f: words.faster(f.than_eager)
    if first.onnx:
        speed[f"than {first.baseline}"] = lambda f: words.faster(f.than_onnx)
    if all(row.latency is None for block in blocks for row in block.rows):
        _print(report, console, "Size", {name: SIZE[name] for name in ("size", "smaller")})
    elif console.width >= WIDE:
        _print(report, console, f"Size and speed · {where}batch 1", SIZE | speed)
    else:
        _print(report, console, "Size", SIZE)
        _print(report, console, f"Speed · {where}batch 1", speed, folded=True)
    if quality and (any(block.samples for block in blocks) or _compared(report)):
        _print_quality(report, console)
    if several:
        for block in blocks:
            console.print(title(block), highlight=False, markup=False, soft_wrap=True)
    for block in blocks:
        for finding in block.findings:
            named = len(blocks) == 1 or finding.startswith(block.device)
            begin = "" if named else f"{block.device}: "
            console.print(f"• {begin}{finding}", highlight=False, markup=False)
        for row in block.rows:
            if row.operators:
                text = f"• {block.device}: {row.label}: {words.operators(row.operators)}"
                console.print(text, highlight=False, markup=False)
    checked = any(row.checks for row in first.rows)
    wanting = checklist.attention(first, report.verified) if checked else ()
    if wanting:
        text = f"• Checklist, the evidence is in report.html: {'; '.join(wanting)}."
        console.print(text, highlight=False, markup=False)
    for block in blocks:
        begin = f"{block.device}, " if len(blocks) > 1 else ""
        if block.error is not None:
            text = f"[red]{escape(block.device)}[/red]: {escape(str(block.error))}"
            console.print(text, highlight=False)
        for row in block.failed:
            text = f"[red]{escape(begin + row.label)}[/red]: {escape(str(row.error))}"
            console.print(text, highlight=False)


def _compared(report: Report) -> bool:
    """Whether a device's outputs were held against this machine's."""
    return any(row.fidelity for block in report.blocks for row in block.rows)


def _print_quality(report: Report, console: Console) -> None:
    blocks, first = report.blocks, report.first
    metric = first.metric
    scored = any(block.samples for block in blocks)
    columns: Columns = {}
    if any(block.labelled for block in blocks):
        columns[metric] = lambda f: words.accuracy(f.accuracy, metric)
        columns["delta"] = lambda f: words.points(f.delta, metric)
    if scored:
        columns["agreement"] = lambda f: words.percent(f.agreement)
        columns["SQNR"] = lambda f: words.decibels(f.sqnr)
    if _compared(report):
        columns["as on this machine"] = lambda f: words.fidelity(f.like_host, f.like_host_sqnr)
    count = f"{first.samples} " if len(blocks) == 1 and first.samples else ""
    title = f"Outputs · {count}samples of {first.dataset}"
    if any(block.labelled for block in blocks):
        title = f"Accuracy · {count}evaluation samples of {first.dataset}"
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
    for block in report.blocks:
        if report.several:
            table.add_row(f"[bold]{escape(block.device)}[/bold]")
        empty = [words.NOTHING] * (len(columns) - 1)
        for row in block.rows:
            label = escape(f"  {row.label}" if report.several else row.label)
            if row.error is not None:
                table.add_row(label, "[red]failed[/red]", *empty)
                continue
            cells = [say(block.figures[row.key]) for say in columns.values()]
            if folded:
                cells = [cell.replace(" [", "\n[") for cell in cells]
            table.add_row(label, *map(escape, cells))
    console.print(table)
