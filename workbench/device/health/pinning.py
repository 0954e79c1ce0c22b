"""Which command pins a process to cores on a device, found by pinning one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.device.transport.base import quote_command
from workbench.errors import DeviceError

if TYPE_CHECKING:
    from workbench.device.transport.base import Transport

# The mask in hexadecimal without 0x is what util-linux, toybox and busybox all take, but an old
# busybox; `-c` is util-linux' own, and a new busybox'.
_PROBE = 'exec "$@"'  # a shell says by its code that there is no such program
_SEEN = re.compile(r"^Cpus_allowed:\s*([0-9a-f,]+)\s*$", re.MULTILINE)


def pin_command(transport: Transport, cores: Sequence[int], count: int) -> tuple[str, ...]:
    """The words before a command that pin it to cores by their numbers; () for no cores.

    count: the cores that the device has, 0 where unknown. Raises DeviceError where the device
    cannot pin, or not to all of them.
    """
    numbers = sorted(set(cores))
    if not numbers:
        return ()
    asked = ", ".join(map(str, numbers))
    if count and numbers[-1] >= count:
        raise DeviceError(
            f"{transport.name} cannot pin to cores {asked}",
            f"it has {count}, numbered 0 to {count - 1}",
            "change cores in its profile",
        )
    mask = sum(1 << core for core in numbers)
    reason = ""
    for prefix in (("taskset", f"{mask:x}"), ("taskset", "-c", ",".join(map(str, numbers)))):
        done = transport.run(["sh", "-c", _PROBE, "sh", *prefix, "cat", "/proc/self/status"])
        if done.code != 0:
            reason = reason or _last_line(done.stderr) or f"exit code {done.code}"
            continue
        seen = allowed_cores(done.stdout)
        # Where /proc does not tell, the command's own word is all there is.
        if seen is None or seen == mask:
            return prefix
        raise DeviceError(
            f"{transport.name} does not pin to cores {asked}",
            f"with '{quote_command(prefix)}' a process may run on cores {_cores(seen)}: its "
            "cpusets or cores that are offline decide",
            "change cores in its profile",
        )
    raise DeviceError(
        f"{transport.name} cannot pin to cores {asked}",
        f"taskset there says: {reason}",
        "install util-linux' taskset there, or leave cores out of its profile",
    )


def allowed_cores(status: str) -> int | None:
    """The mask of cores in a /proc/PID/status; None where there is none."""
    match = _SEEN.search(status)
    digits = match[1].replace(",", "") if match else ""
    return int(digits, 16) if digits else None


def _cores(mask: int) -> str:
    return ", ".join(str(at) for at in range(mask.bit_length()) if mask >> at & 1)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
