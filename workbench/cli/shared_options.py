"""The command line's options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipe_names(incomplete: str) -> list[str]:
    """The recipes whose names begin so, for the shell's completion."""
    from workbench import library

    return [name for name in library.entries("recipes") if name.startswith(incomplete)]


def dataset_names(incomplete: str) -> list[str]:
    """The datasets whose names begin so, for the shell's completion."""
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


def preset_name(quick: bool = False, strict: bool = False, no_latency: bool = False) -> str:
    """The preset whose flag is set. Raises InputError where several are."""
    flags = {"quick": quick, "strict": strict, "none": no_latency}
    names = [name for name, flag in flags.items() if flag]
    if len(names) > 1:
        from workbench.errors import InputError

        raise InputError("--quick, --strict and --no-latency exclude each other")
    return names[0] if names else "standard"
