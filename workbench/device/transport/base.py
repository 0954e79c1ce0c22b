"""How commands and files reach a device: one small interface, and what may go wrong with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workbench.errors import DeviceError


@dataclass(frozen=True)
class Done:
    """A command that ended on the device.

    Attributes:
        code: as a POSIX shell counts, 128 + n for signal n.
    """

    code: int
    stdout: str
    stderr: str


class Transport(Protocol):
    """A way to one device. Each argument reaches the far program as it is, whatever it holds.

    Raises Unreachable where the device cannot be talked to, TimedOut where a command took too long
    (its process here is ended; what it left on the device has a limit of its own), and DeviceError
    for the rest, such as a full disk. Methods may be called from one thread at a time; `interrupt`
    from any.
    """

    name: str  # of the device's profile, for messages

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        """Run a program on the device and wait for it; its exit code is not judged here."""

    def push(self, source: Path, target: str, timeout: float = 600) -> None:
        """Copy a file to a path on the device, whose folder exists. Not atomic: see `store`."""

    def pull(self, source: str, target: Path, timeout: float = 600) -> None:
        """Copy a file from the device: whole, or `target` is not there."""

    def reconnect(self) -> None:
        """Try once to reach the device again after Unreachable."""

    def interrupt(self) -> None:
        """End what runs now, from another thread: its caller gets Interrupted."""

    def resume(self) -> None:
        """Allow commands again after `interrupt`: what was set on the device is restored."""

    def close(self) -> None:
        """Leave the device; nothing may be asked of it any more."""


class Unreachable(DeviceError):  # noqa: N818
    """The device is offline, absent, not authorized, or was lost in the middle."""


class TimedOut(DeviceError):  # noqa: N818
    """A command on the device took longer than it may."""


class Interrupted(DeviceError):  # noqa: N818
    """The user ended it: Ctrl-C, or another device's failure that ends the run."""


def quote_command(argv: Sequence[str]) -> str:
    """Arguments as one line for a POSIX shell. Raises DeviceError for what no shell takes."""
    if any("\0" in word for word in argv):
        raise DeviceError("an argument holds a null character", "", "rename the file")
    return shlex.join(argv)
