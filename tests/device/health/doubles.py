"""Transports for tests: this machine, and a device that answers as it is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from workbench.device.health.sections import MARK
from workbench.device.transport.base import Done


class Silent:
    """What the health layer does not use."""

    name = "desk"

    def push(self, source: Path, target: str, timeout: float = 600) -> None:
        raise NotImplementedError

    def pull(self, source: str, target: Path, timeout: float = 600) -> None:
        raise NotImplementedError

    def reconnect(self) -> None: ...
    def interrupt(self) -> None: ...
    def resume(self) -> None: ...
    def close(self) -> None: ...


class Here(Silent):
    """This machine's own shell, behind a prefix such as another shell."""

    def __init__(self, *prefix: str) -> None:
        self.prefix = prefix
        self.asked = 0

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        self.asked += 1
        done = subprocess.run(
            [*self.prefix, *argv], capture_output=True, timeout=timeout, check=False
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Answers(Silent):
    """A device that answers a script with given parts, or a command by a function."""

    def __init__(
        self,
        parts: Mapping[str, str] | None = None,
        command: Callable[[tuple[str, ...]], Done] | None = None,
    ) -> None:
        self.parts = parts or {}
        self.command = command
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        self.asked.append(tuple(argv))
        if self.command is not None:
            return self.command(tuple(argv))
        return Done(0, rendered(self.parts), "")


def rendered(parts: Mapping[str, str], end: str = "\n") -> str:
    """Parts as a device prints them, with its ends of line."""
    text = "".join(f"\n{MARK}{name}\n{value}" for name, value in parts.items())
    return f"{text}\n{MARK}end\n".replace("\n", end)
