"""`wb compare A B`: two files' outputs, sizes and latency, and where their graphs diverge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import print_json, progress_display, table_console
from workbench.cli.shared_options import (
    AsJson,
    Data,
    DeviceName,
    Inputs,
    NoLatency,
    Quick,
    Strict,
    preset_name,
)

if TYPE_CHECKING:
    from workbench.run.comparison import Comparison


def compare(
    reference: Annotated[Path, typer.Argument(help="The file that the other is held against.")],
    candidate: Annotated[Path, typer.Argument(help="Any other file, of any format.")],
    data: Data = None,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    device: DeviceName = "cpu",
    quick: Quick = False,
    strict: Strict = False,
    no_latency: NoLatency = False,
    as_json: AsJson = False,
) -> None:
    """Compare two model files: outputs, size, latency, and the first layer that diverges.

    Without --data it runs on seeded random inputs.
    """
    from workbench.run.comparison import CompareOptions, compare_files

    options = CompareOptions(
        reference=reference, candidate=candidate, data=data, inputs=tuple(inputs), device=device,
        preset=preset_name(quick, strict, no_latency),
    )  # fmt: skip
    with progress_display(as_json) as display:
        comparison = compare_files(options, display)
    print_comparison(comparison, as_json)
    if comparison.report.failed:
        raise typer.Exit(3)


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """The comparison on stdout, as tables or as JSON."""
    if as_json:
        print_json(comparison.to_json())
        return
    from workbench.report import comparison_text, table

    report = comparison.report
    for line in comparison_text.titles(comparison):
        print(line)
    print()
    table.show(report, table_console(), quality=report.first.labelled)
    for line in comparison_text.details(comparison):
        print(line)
    print(f"\n({report.seconds:.1f} s)")
