"""`wb`: its commands, and the one place where errors become messages and exit codes.

A command is a file of this folder: it parses, calls and prints. Everything heavy is imported by the
command that needs it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from workbench import __version__
from workbench.cli import devices
from workbench.cli.cache import cache
from workbench.cli.compare import compare
from workbench.cli.doctor import doctor
from workbench.cli.front import front
from workbench.cli.inspect import inspect
from workbench.cli.new import new
from workbench.cli.profile import profile
from workbench.cli.recipe import recipe
from workbench.cli.recipes import recipes
from workbench.cli.sensitivity import sensitivity
from workbench.cli.show import show
from workbench.cli.sweep import sweep
from workbench.cli.verify import verify

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


for command in (
    recipe, recipes, show, new, cache, inspect, compare, profile, sensitivity, doctor, verify,
    sweep, front,
):  # fmt: skip
    app.command()(command)
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
