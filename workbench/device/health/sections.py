"""One shell script on a device, whose answer comes back in named parts: one round trip."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workbench.errors import DeviceError

if TYPE_CHECKING:
    from workbench.device.transport.base import Transport

MARK = "==wb-section "
TIMEOUT = 60.0  # seconds: dumpsys waits for up to ten on a service that hangs


def script(*parts: tuple[str, str]) -> str:
    """A script for POSIX sh, mksh and busybox from (name, commands); none of them may end it.

    Each part begins on a line of its own, for a file such as /proc/device-tree/model has no end of
    line. A part that fails is an empty one: what a device lacks is no error.
    """
    lines = []
    for name, commands in parts:
        lines += [f"echo; echo '{MARK}{name}'", f"{{ {commands}\n}} 2>/dev/null </dev/null"]
    return "\n".join([*lines, f"echo; echo '{MARK}end'", "exit 0"])


def split(text: str) -> dict[str, str]:
    """The parts by name, without carriage returns; null characters end lines, as /proc has them."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in text.replace("\0", "\n").replace("\r", "").split("\n"):
        if raw.startswith(MARK):
            current = sections.setdefault(raw[len(MARK) :].strip(), [])
        else:
            current.append(raw)
    return {name: "\n".join(lines).strip("\n") for name, lines in sections.items()}


def ask(transport: Transport, text: str, *arguments: str) -> dict[str, str]:
    """The parts that a script printed. Raises DeviceError where it did not run to its end."""
    done = transport.run(["sh", "-c", text, "sh", *arguments], timeout=TIMEOUT)
    sections = split(done.stdout)
    if "end" not in sections:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise DeviceError(
            f"{transport.name} did not say what it is or how it is doing",
            f"'sh' there ended with code {done.code}" + (f": {lines[-1][:200]}" if lines else ""),
            "check that a shell opens on it, and that it runs Linux or Android",
        )
    return sections


def number(text: str) -> float | None:
    """A finite number, or None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def whole(text: str, base: int = 10) -> int | None:
    """An integer, or None for anything else."""
    try:
        return int(text, base)
    except ValueError:
        return None


def megahertz(text: str) -> int | None:
    """MHz of the kHz in a cpufreq file; None for what no core runs at."""
    value = whole(text)
    return value // 1000 if value is not None and 1000 <= value < 10**8 else None
