"""This machine, through the same interface as a device that is far away."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from workbench.device.transport.base import Done, quote_command
from workbench.device.transport.calls import Calls
from workbench.device.transport.shell import beside, full, last_line
from workbench.errors import DeviceError

CHUNK = 1 << 20


class LocalTransport:
    """Programs and files of this machine. Relative paths count from the working directory."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._calls = Calls(name)

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        """Run a program and wait for it; 127 and 126 where it is missing or no program."""
        quote_command(argv)  # refuses null characters
        try:
            ended = self._calls.call(argv, timeout, argv[0].rsplit("/", 1)[-1])
        except FileNotFoundError as error:
            return Done(127, "", f"{argv[0]}: {error.strerror}\n")
        except OSError as error:
            return Done(126, "", f"{argv[0]}: {error.strerror}\n")
        return Done(ended.code, ended.stdout.decode(errors="replace"), ended.stderr_text)

    def push(self, source: Path, target: str, timeout: float = 600) -> None:
        """Copy a file. Raises DeviceError where it cannot be read or written."""
        self._copy(source, Path(target))

    def pull(self, source: str, target: Path, timeout: float = 600) -> None:
        """Copy a file: whole, or `target` is as it was."""
        self._copy(Path(source), target)

    def reconnect(self) -> None:
        """Nothing: it is here."""

    def interrupt(self) -> None:
        """End what runs now, from another thread: its caller gets Interrupted."""
        self._calls.interrupt()

    def resume(self) -> None:
        """Allow commands again after `interrupt`."""
        self._calls.resume()

    def close(self) -> None:
        """Nothing: there is no connection."""

    def _copy(self, source: Path, target: Path) -> None:
        self._calls.check()
        try:
            with beside(target) as part:
                with source.open("rb") as reader, part.open("wb") as writer:
                    while chunk := reader.read(CHUNK):
                        self._calls.check()
                        writer.write(chunk)
                os.chmod(part, source.stat().st_mode & 0o777 | 0o600)  # noqa: PTH101
        except OSError as error:
            reason = f"{error.filename or target}: {error.strerror}"
            raise full(self.name, reason) or DeviceError(
                f"{self.name}: copying {source.name} failed", last_line(reason)
            ) from error
