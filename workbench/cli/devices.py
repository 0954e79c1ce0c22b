"""`wb devices …`: the words of the command line; no logic."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="devices",
    help="What is attached and in what state; profiles for new devices; the runner's builds.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def devices(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the devices with a profile, and what adb has attached without one."""
    if context.invoked_subcommand is not None:
        return
    from workbench.cli import device_states as tool

    tool.show(tool.states(), as_json)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The profile's name.")],
    serial: Annotated[
        str | None, typer.Option(help="An Android device, as 'adb devices' lists it.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="A machine over ssh: user@host, or a name of your ssh.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Of its ssh, where it is not 22.")] = None,
) -> None:
    """Probe a device and write devices/NAME.toml."""
    from workbench.cli import device_states as tool

    typer.echo(f"wrote {tool.new(name, serial, host, port)}: 'wb profile FILE --device {name}'")


@app.command("build-runner")
def build_runner(
    target: Annotated[
        list[str], typer.Option(help="x86_64-linux, aarch64-linux or android-arm64; repeatable.")
    ],
) -> None:
    """Build the native runner with a compiler of this machine, ziglang or the Android NDK."""
    from workbench.cli import device_states as tool

    for name, path in tool.build_runner(target):
        typer.echo(f"{name}  {path}")
