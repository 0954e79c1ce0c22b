"""`wb sweep` and `wb front`: the words of the command line; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.shared_options import (  # fmt: skip
    AsJson,
    Data,
    DeviceNames,
    Inputs,
    Model,
    NoLatency,
    Quick,
    RecipeName,
    Samples,
    Seed,
    Settings,
    Sha256,
    Strict,
    Task,
    Weights,
    shown,
)


def sweep(
    name: RecipeName,
    vary: Annotated[
        list[str],
        typer.Option(
            metavar="STEP.OPTION=VALUES",
            help="An option to vary: a list A,B,C, a range LOW:HIGH, LOW:HIGH:STEP or "
            "LOW:HIGH:log, or without = all that it takes; repeatable.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    minimise: Annotated[
        str, typer.Option(help="size, latency, drop, load, memory; latency@DEVICE; with commas.")
    ] = "size,latency",
    max_drop: Annotated[
        float | None, typer.Option(help="Points of accuracy that a trial may lose.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Of the file: 500kB, 1.5MB.")] = None,
    max_latency: Annotated[
        list[str], typer.Option(metavar="DEVICE=MS", help="Median latency; repeatable.")
    ] = [],  # noqa: B006
    branch: Annotated[
        str | None, typer.Option(help="Whose last file is the point; the recipe's first, if none.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="grid, random, nsga2 or tpe; grid where it fits --trials.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="How many; 40, or all of a grid.")] = None,
    search_seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(help="Trials side by side; as cores and memory take.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="ray, or ray://HOST:PORT: trials on a Ray cluster.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna's storage, as a URL; SQLite in the folder, if none.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a sweep.")] = False,
    model: Model = None,
    weights: Weights = None,
    task: Task = "",
    data: Data = None,
    settings: Settings = [],  # noqa: B006
    inputs: Inputs = [],  # noqa: B006
    device: DeviceNames = [],  # noqa: B006
    samples: Samples = 64,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder, instead of runs/….")] = None,
    sha256: Sha256 = None,
    seed: Seed = 0,
    quick: Quick = False,
    strict: Strict = False,
    no_latency: NoLatency = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe with many options, and find what they trade: the Pareto front.

    Every trial is a run folder; what trials share is made once. 'wb front' shows it again.
    """
    from workbench.sweep import command as tool

    words = {
        "name": name, "model": model, "weights": weights, "data": data, "settings": settings,
        "inputs": inputs, "devices": device, "sha256": sha256, "seed": seed,
        "presets": {"quick": quick, "strict": strict, "none": no_latency}, "task": task,
        "samples": samples,
    }  # fmt: skip
    limits = {"max_drop": max_drop, "max_size": max_size, "max_latency": max_latency}
    spec = tool.specified(words, vary, minimise, limits, branch, search, trials, search_seed)
    try:
        with shown(as_json) as display:
            found = tool.command(
                spec, out=out, storage=storage, resume=resume, jobs=jobs, on=on, display=display
            )
    except KeyboardInterrupt:
        typer.echo("what is finished is kept: the same command with --resume goes on", err=True)
        raise
    tool.show(found, as_json)
    if not any(one.state == "done" for one in found.trials):
        raise typer.Exit(3)


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

    tool.show(tool.front(run, out, minimise), as_json, out)
