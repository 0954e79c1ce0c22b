"""The command line's options that several commands share, and the display that they draw on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.display import Display


def recipe_names(incomplete: str) -> list[str]:
    from workbench import library

    return [name for name in library.entries("recipes") if name.startswith(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    from workbench import library

    return [name for name in library.entries("calibration") if name.startswith(incomplete)]


RecipeName = Annotated[
    str, typer.Argument(help="A recipe's name or file.", autocompletion=recipe_names)
]
Settings = Annotated[
    list[str],
    typer.Option("--set", metavar="STEP.OPTION=VALUE", help="Replace a step's option; repeatable."),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="A dataset: a name in calibration/, or a .toml file.", autocompletion=dataset_names
    ),
]
Inputs = Annotated[
    list[str],
    typer.Option("--input", metavar="NAME:SHAPE[:DTYPE]", help="Inputs where there is no data."),
]
DeviceName = Annotated[str, typer.Option("--device", help="A device profile in devices/.")]
DeviceNames = Annotated[
    list[str],
    typer.Option(
        "--device", help="A profile in devices/, tag:NAME, class:NAME, or all; repeatable."
    ),
]
Samples = Annotated[
    int,
    typer.Option("--samples", min=0, help="Samples whose outputs a device gives back, scored."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep what an interrupted run finished on the devices.")
]
Operators = Annotated[
    bool, typer.Option("--op-profile", help="Ask devices for the time of each operator.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Measure briefly.")]
Strict = Annotated[bool, typer.Option("--strict", help="Measure for a minute an artifact.")]
NoLatency = Annotated[
    bool, typer.Option("--no-latency", help="Make and score the artifacts, time nothing.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="file.py:factory, package.module:factory, hf:org/name or hf:./folder, timm:name, "
        "torchvision:name, or a file: .onnx, .pt2 or TorchScript .pt."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="A state dict: .pt, .pth or .safetensors.")]
Task = Annotated[
    str, typer.Option(help="What an hf: model is for, where its config does not tell.")
]
Sha256 = Annotated[
    str | None, typer.Option(help="Digest that the weights (or the ONNX file) must have.")
]
Seed = Annotated[int, typer.Option(help="Seed of a factory without weights.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@contextlib.contextmanager
def shown(quiet: bool) -> Iterator[Display]:
    """A live display on stderr where that is a terminal, none otherwise."""
    from workbench.display import Live, Quiet

    if quiet or not sys.stderr.isatty():
        yield Quiet()
        return
    from rich.console import Console

    live = Live(Console(stderr=True))
    try:
        yield live
    finally:
        live.close()
