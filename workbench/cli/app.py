"""`wb`: parse, call, print; no logic. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from workbench import __version__
from workbench.cli import devices, sweep
from workbench.cli.shared_options import (  # fmt: skip
    AsJson,
    Data,
    DeviceName,
    DeviceNames,
    Inputs,
    Model,
    NoLatency,
    Operators,
    Quick,
    RecipeName,
    Resume,
    Samples,
    Seed,
    Settings,
    Sha256,
    Strict,
    Task,
    Weights,
    recipe_names,
    shown,
)

INTERRUPTED = 130  # 128 + SIGINT, as shells count

# Plain help: rich costs more time than the rest of `wb --help`.
app = typer.Typer(
    name="wb",
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root(context: typer.Context) -> None:
    """Edge/mobile model-optimization workbench: one command from a checkpoint to measured mobile
    artifacts. Nothing leaves this machine. `wb --version` prints the version.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
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
    from workbench.run import words as commands

    words: dict[str, Any] = {
        "name": name, "model": model, "weights": weights, "data": data, "settings": settings,
        "inputs": inputs, "devices": device, "sha256": sha256, "seed": seed,
        "presets": {"quick": quick, "strict": strict, "none": no_latency}, "task": task,
        "samples": samples,
    }  # fmt: skip
    if point is not None:
        from workbench.sweep.command import repetition

        words = repetition(name, point, words)
    request, plan = commands.request(**words, max_drop=max_drop, operators=op_profile)
    from workbench.cache import Cache

    for step in commands.beyond_budget(request.recipe) if max_drop is not None else ():
        typer.echo(f"note: {step} takes no --max-drop: its file may lose more", err=True)
    cache = Cache(enabled=not no_cache)
    if dry_run:
        commands.print_plan(request, plan, cache, as_json)
        return
    from workbench.run.recipe_run import execute

    with contextlib.closing(cache), shown(as_json) as display:
        finished = execute(request, plan, cache, display, out)
    commands.print_report(finished, as_json)
    if finished.report.exit_code:
        raise typer.Exit(finished.report.exit_code)


@app.command()
def recipes() -> None:
    """List the recipes."""
    from workbench.library import recipe_summaries

    found = recipe_summaries()
    width = max((len(name) for name in found), default=0)
    for name, text in found.items():
        typer.echo(f"{name:{width}}  {text}")


@app.command()
def show(name: RecipeName, settings: Settings = []) -> None:  # noqa: B006
    """Print a recipe's resolved plan: its steps with their options."""
    from workbench.recipe import load
    from workbench.run import words as commands

    commands.print_recipe(load(name).with_options(settings))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new recipe's name.")],
    source: Annotated[
        str, typer.Option("--from", help="The recipe to copy.", autocompletion=recipe_names)
    ] = "mobile-int8",
) -> None:
    """Copy a recipe to ./recipes for editing."""
    from workbench.run import words as commands

    typer.echo(f"wrote {commands.copy_recipe(name, source)}: edit it, then 'wb recipe {name}'")


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
) -> None:
    """Show where the cache is and how much it holds."""
    from workbench.cache import Cache

    one = Cache()
    if clear:
        one.clear()
    typer.echo(f"{one.folder}  {one.size() / 1e6:.1f} MB")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help=".onnx, .ort, .tflite, .pt2 or TorchScript .pt.")],
    as_json: AsJson = False,
) -> None:
    """Say what a model file holds: signature, operators, parameters, MACs, what takes it."""
    from workbench.cli import inspection as tool

    tool.command(file, as_json)


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(help="The file that the other is held against.")],
    candidate: Annotated[Path, typer.Argument(help="Any other file, of any format.")],
    data: Data = None,
    inputs: Inputs = [],  # noqa: B006
    device: DeviceName = "cpu",
    quick: Quick = False,
    strict: Strict = False,
    no_latency: NoLatency = False,
    as_json: AsJson = False,
) -> None:
    """Compare two model files: outputs, size, latency, and the first layer that diverges.

    Without --data it runs on seeded random inputs.
    """
    from workbench.run import comparison as tool

    presets = {"quick": quick, "strict": strict, "none": no_latency}
    with shown(as_json) as display:
        found = tool.command(reference, candidate, data, inputs, device, presets, display)
    tool.show(found, as_json)
    if found.report.failed:
        raise typer.Exit(3)


@app.command()
def profile(
    files: Annotated[list[Path], typer.Argument(help="Model files of any formats.")],
    data: Data = None,
    inputs: Inputs = [],  # noqa: B006
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
    from workbench.run import files_profile as tool

    presets = {"quick": quick, "strict": strict}
    with shown(as_json) as display:
        report = tool.command(
            files, data, inputs, device, presets, display, out,
            samples=samples, resume=resume, operators=op_profile,
        )  # fmt: skip
    tool.show(report, as_json, out)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@app.command()
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
    from workbench.quantization.explain import sensitivity_table as tool

    with shown(as_json) as display:
        found = tool.command(file, data, preset, samples, device, out, display)
    tool.show(found, as_json, out)


@app.command()
def doctor(
    as_json: AsJson = False,
) -> None:
    """Say what this machine can do, what is missing, and the command that gets it."""
    from workbench.doctor import examination as tool

    tool.command(as_json)


@app.command()
def verify(run: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Check every file of a run against its manifest's digests."""
    from workbench.run import verification as tool

    tool.command(run)


app.command()(sweep.sweep)
app.command()(sweep.front)
app.add_typer(devices.app)


def _terminated(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The `wb` command: one place where errors become messages and exit codes."""
    signal.signal(signal.SIGTERM, _terminated)
    # Completion is asked for in every keystroke's process: errors there must not print.
    if "_WB_COMPLETE" in os.environ:
        app(prog_name="wb")
        return
    from workbench.errors import WorkbenchError

    # Not an option of typer's: parsing any costs it the import of pydantic, and `wb recipes`
    # would take twice as long.
    if sys.argv[1:] == ["--version"]:
        typer.echo(f"wb {__version__}")
        return
    try:
        # Outside standalone mode an exit code comes back as the result, also that of Ctrl-C.
        code = app(prog_name="wb", standalone_mode=False)
    except WorkbenchError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        from workbench.cache import describe_os_error

        if isinstance(error, BrokenPipeError):  # `wb recipes | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(141)
        described = describe_os_error(error)
        _fail(str(described), described.exit_code)
    except Exception as error:
        # Usage errors are click's, which typer carries a copy of: known by what they can do.
        if hasattr(error, "format_message"):
            _fail(error.format_message() + "\n  fix: 'wb --help' and 'wb COMMAND --help'", 2)
        raise
    if code == INTERRUPTED:
        _fail("interrupted: run the same command again to go on where it was", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    if "workbench.process" in sys.modules:
        from workbench.process import close_all

        close_all()
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)
