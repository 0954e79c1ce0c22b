"""`wb inspect FILE`: the facts of a model file, as a table or JSON."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.output import print_json
from workbench.cli.shared_options import AsJson


def inspect(
    file: Annotated[Path, typer.Argument(help=".onnx, .ort, .tflite, .pt2 or TorchScript .pt.")],
    as_json: AsJson = False,
) -> None:
    """Say what a model file holds: signature, operators, parameters, MACs, what takes it."""
    from workbench.inspect import read
    from workbench.report.inspection_text import lines

    facts = read(file)
    if as_json:
        print_json(facts.to_json())
        return
    for line in lines(facts, shutil.get_terminal_size((100, 24)).columns):
        print(line)
