"""`wb sweep RECIPE`: a recipe with many options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.front import print_front
from workbench.cli.output import progress_display
from workbench.cli.shared_options import (
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
    preset_name,
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
    from workbench.api import run_sweep

    preset = preset_name(quick, strict, no_latency)
    try:
        with progress_display(as_json) as display:
            result = run_sweep(
                name, vary, minimise=minimise, max_drop=max_drop, max_size=max_size,
                max_latency=max_latency, branch=branch, search=search, trials=trials,
                search_seed=search_seed, jobs=jobs, on=on, storage=storage, resume=resume, out=out,
                display=display, model=model, weights=weights, task=task, sha256=sha256, seed=seed,
                data=data, inputs=inputs, settings=settings, devices=device, preset=preset,
                samples=samples,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("what is finished is kept: the same command with --resume goes on", err=True)
        raise
    print_front(result, as_json)
    if not any(trial.state == "done" for trial in result.trials):
        raise typer.Exit(3)
