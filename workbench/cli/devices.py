"""`wb devices …`: what is attached, a profile for it, the runner's builds."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.output import print_json
from workbench.cli.shared_options import AsJson

COLUMNS = ("name", "address", "state")

app = typer.Typer(
    name="devices",
    help="What is attached and in what state; profiles for new devices; the runner's builds.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def devices(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List the devices with a profile, and what adb has attached without one."""
    if context.invoked_subcommand is not None:
        return
    from workbench.device.states import device_states

    states = device_states()
    if as_json:
        print_json([vars(state) for state in states])
        return
    widths = [max(len(getattr(state, key)) for state in states) for key in COLUMNS]
    for state in states:
        print(
            f"{state.name:{widths[0]}}  {state.address:{widths[1]}}  {state.state:{widths[2]}}  "
            f"{state.about}".rstrip()
        )
        if state.fix:
            print(f"{'':{widths[0]}}  fix: {state.fix}")


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
    from workbench.device.new_profile import write_profile

    path = write_profile(name, serial, host, port)
    typer.echo(f"wrote {path}: 'wb profile FILE --device {name}'")


@app.command("build-runner")
def build_runner(
    target: Annotated[
        list[str], typer.Option(help="x86_64-linux, aarch64-linux or android-arm64; repeatable.")
    ],
) -> None:
    """Build the native runner with a compiler of this machine, ziglang or the Android NDK."""
    from workbench.device.native.build import runner_for

    for name, path in [(name, runner_for(name)) for name in target]:
        typer.echo(f"{name}  {path}")
