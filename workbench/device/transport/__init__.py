"""How commands and files reach a device."""

from __future__ import annotations

from workbench.device.transport.adb import AdbTransport, Attached, attached
from workbench.device.transport.base import (
    Done,
    Interrupted,
    TimedOut,
    Transport,
    Unreachable,
    quote_command,
)  # fmt: skip
from workbench.device.transport.local import LocalTransport
from workbench.device.transport.ssh import SshTransport
from workbench.errors import ProfileError

__all__ = [
    "AdbTransport", "Attached", "Done", "Interrupted", "LocalTransport", "SshTransport", "TimedOut",
    "Transport", "Unreachable", "attached", "open_transport", "quote_command",
]  # fmt: skip


def open_transport(
    kind: str, name: str, *, host: str = "", port: int | None = None, serial: str = ""
) -> Transport:
    """The way to a device of a kind: `local`, `ssh` or `adb`. Nothing is said to it yet."""
    if kind == "local":
        return LocalTransport(name)
    if kind == "ssh":
        return SshTransport(name, host, port)
    if kind == "adb":
        return AdbTransport(name, serial or None)
    raise ProfileError(f"{name}: there is no transport {kind!r}", "", "use local, ssh or adb")
