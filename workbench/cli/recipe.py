"""`wb recipe NAME`: a recipe run, or its plan."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.output import print_json, progress_display, table_console
from workbench.cli.shared_options import (
    Data,
    DeviceNames,
    Inputs,
    Model,
    NoLatency,
    Operators,
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
from workbench.cli.show import print_recipe

if TYPE_CHECKING:
    from workbench.cache import Cache
    from workbench.engine.request import Request
    from workbench.measure.plan import MeasurePlan
    from workbench.run.recipe_run import Finished


def recipe(
    name: RecipeName,
    model: Model = None,
    weights: Weights = None,
    task: Task = "",
    data: Data = None,
    settings: Settings = [],  # noqa: B006 - typer copies it
    inputs: Inputs = [],  # noqa: B006
    device: DeviceNames = [],  # noqa: B006
    samples: Samples = 64,
    op_profile: Operators = False,
    out: Annotated[Path | None, typer.Option(help="The run's folder, instead of runs/….")] = None,
    sha256: Sha256 = None,
    seed: Seed = 0,
    quick: Quick = False,
    strict: Strict = False,
    no_latency: NoLatency = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of accuracy that INT8 may lose; layers go back to float until it holds."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, do nothing.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Make and measure everything anew.")
    ] = False,
    point: Annotated[
        str | None,
        typer.Option("--from", metavar="RUN:TRIAL", help="Repeat a trial of a sweep."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a recipe: make the artifacts, measure them, write a report.

    Without --model and --data it runs on the embedded digits classifier.
    """
    from workbench.api import run_recipe
    from workbench.cache import Cache
    from workbench.run.run_options import RunOptions, steps_beyond_budget

    options = RunOptions(
        recipe=name, model=model, weights=weights, task=task, sha256=sha256, seed=seed, data=data,
        inputs=tuple(inputs), settings=tuple(settings), max_drop=max_drop, devices=tuple(device),
        preset=preset_name(quick, strict, no_latency), samples=samples, operators=op_profile,
    )  # fmt: skip
    if point is not None:
        from workbench.sweep.command import repeat_trial

        options = repeat_trial(point, options)
    if max_drop is not None:
        for step in steps_beyond_budget(options.resolve()[0].recipe):
            typer.echo(f"note: {step} takes no --max-drop: its file may lose more", err=True)
    cache = Cache(enabled=not no_cache)
    if dry_run:
        _print_plan(*options.resolve(), cache, as_json)
        return
    with contextlib.closing(cache), progress_display(as_json) as display:
        finished = run_recipe(options, out=out, cache=cache, display=display)
    _print_report(finished, as_json)
    if finished.report.exit_code:
        raise typer.Exit(finished.report.exit_code)


def _print_plan(request: Request, plan: MeasurePlan, cache: Cache, as_json: bool) -> None:
    """The plan of a run: what it would do, and about how long where nothing is cached."""
    from workbench.device.providers import PROVIDERS
    from workbench.run.recipe_run import expected

    seconds = expected(request, plan, cache)
    if as_json:
        print_json({"recipe": request.recipe.to_json(), "expected_seconds": seconds})
        return
    print_recipe(request.recipe)
    source = request.source
    print(f"model    {source.spec}{f' with {source.weights}' if source.weights else ''}")
    print(f"data     {request.data if isinstance(request.data, str) else 'random inputs'}")
    for device in plan.devices:
        provider = "" if device.provider == "cpu" else f"{PROVIDERS[device.provider].ort}, "
        scheme = device.quantization if device.architecture else "its CPU asks, once it is asked"
        print(f"device   {device.name}: {provider}{device.threads} thread(s), INT8 as {scheme}")
    print(f"measure  {plan.preset.name}: {plan.preset.processes} processes an artifact")
    print(f"time     about {sum(seconds.values()):.0f} s where nothing is cached")


def _print_report(finished: Finished, as_json: bool) -> None:
    """The table in a terminal, or the report as JSON."""
    if as_json:
        from workbench.report.report_json import report_json

        print_json({"folder": str(finished.folder), **report_json(finished.report)})
        return
    from workbench.report import table

    table.show(finished.report, table_console())
    print(f"\n{finished.folder}/report.html  ({finished.report.seconds:.1f} s)")
