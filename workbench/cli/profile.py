"""`wb profile FILE…`: model files measured as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import print_json, progress_display, table_console
from workbench.cli.shared_options import (
    AsJson,
    Data,
    DeviceNames,
    Inputs,
    Operators,
    Quick,
    Resume,
    Samples,
    Strict,
    preset_name,
)

if TYPE_CHECKING:
    from workbench.report.data import Report


def profile(
    files: Annotated[list[Path], typer.Argument(help="Model files of any formats.")],
    data: Data = None,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    device: DeviceNames = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option(help="A folder for the report; none is written without.")
    ] = None,
    samples: Samples = 64,
    resume: Resume = False,
    op_profile: Operators = False,
    quick: Quick = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Measure model files as they are: size, load time, latency, memory; accuracy with --data.

    The first file is what the others are held against. On several devices, a block for each.
    """
    from workbench import api

    preset = preset_name(quick, strict)
    with progress_display(as_json) as display:
        report = api.profile(
            files, data, device or "cpu", inputs=inputs, preset=preset, samples=samples,
            resume=resume, operators=op_profile, out=out, display=display,
        )  # fmt: skip
    _print_profile(report, as_json, out)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _print_profile(report: Report, as_json: bool, out: Path | None) -> None:
    if as_json:
        from workbench.report.report_json import report_json

        print_json(report_json(report))
        return
    from workbench.report import table

    table.show(report, table_console())
    for row in report.first.rows:
        for note in row.notes:
            print(f"  {row.label}: {note}")
    for block in report.blocks if report.several else ():
        for note in block.notes:
            print(f"  {block.device}: {note}")
    page = "" if out is None else f"{out}/report.html  "
    print(f"\n{page}({report.seconds:.1f} s)")
