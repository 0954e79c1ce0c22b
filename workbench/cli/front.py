"""`wb front RUN`: what a sweep has come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import print_json, table_console
from workbench.cli.shared_options import AsJson

if TYPE_CHECKING:
    from workbench.sweep.result import Result


def front(
    run: Annotated[Path, typer.Argument(help="A sweep's folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Where its files are written, instead of its folder.")
    ] = None,
    minimise: Annotated[
        str | None, typer.Option(help="Other goals than the sweep's, of what its trials know.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a sweep's front: a table, and CSV, JSON, Markdown, SVG and HTML in its folder."""
    from workbench.sweep import command as tool

    print_front(tool.rank_again(run, out, minimise), as_json, out)


def print_front(result: Result, as_json: bool, out: Path | None = None) -> None:
    """The table in a terminal, or all of it as JSON."""
    if as_json:
        print_json(result.to_json())
        return
    from rich.table import Table

    from workbench.sweep.result import summary

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, heading in enumerate(result.headings()):
        table.add_column(heading, justify="left" if column == 1 else "right", no_wrap=column < 2)
    for point in result.points:
        style = {"front": "bold", "near": ""}.get(point.state, "dim")
        table.add_row(*result.cells(point), style=style)
    console = table_console()
    console.print(table)
    for line in summary(result):
        print(line)
    print(f"\n{out or result.record.folder}/front.html")
