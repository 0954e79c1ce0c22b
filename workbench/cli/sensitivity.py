"""`wb sensitivity FILE --data DATA`: the table of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import print_json, progress_display
from workbench.cli.shared_options import AsJson, Data, DeviceName

if TYPE_CHECKING:
    from workbench.quantization.explain.sensitivity_table import SensitivityTable


def sensitivity(
    file: Annotated[Path, typer.Argument(help="A float ONNX file.")],
    data: Data = None,
    preset: Annotated[str, typer.Option(help="fast, balanced or best.")] = "balanced",
    samples: Annotated[
        int | None, typer.Option(help="Calibration samples; as many as the preset takes.")
    ] = None,
    device: DeviceName = "cpu",
    out: Annotated[
        Path | None, typer.Option(help="A folder for the page with its plot; none without.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what INT8 costs each layer in accuracy, and what it gains in time: a table and a plot.

    Labels are not needed: outputs are held against FP32's.
    """
    from workbench.run.sensitivity import measure_sensitivity

    with progress_display(as_json) as display:
        table = measure_sensitivity(file, data, preset, samples, device, out, display)
    print_table(table, as_json, out)


def print_table(table: SensitivityTable, as_json: bool, out: Path | None = None) -> None:
    """The table on stdout, as text or as JSON."""
    if as_json:
        print_json(table.to_json())
        return
    from workbench.report.sensitivity_text import lines, remarks, summary

    calibration, figures = table.samples
    print(f"{table.model} in INT8 ({table.scheme}, {table.preset}), layer by layer")
    print(f"{calibration} calibration samples of {table.dataset}, figures on {figures} of these\n")
    for line in lines(table):
        print(line)
    print(f"\nall {len(table.layers)} in INT8: {summary(table.whole)}")
    for line in remarks(table):
        print(line)
    page = f"{out}/sensitivity.html  " if out is not None else ""
    print(f"\n{page}({table.seconds:.1f} s)")
