"""An Android device through the system's `adb`, which owns USB, keys and its server."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from workbench.device.transport.base import TimedOut, Unreachable
from workbench.device.transport.calls import Beat
from workbench.device.transport.shell import (
    PARTIAL,
    SHORT,
    Shell,
    beside,
    full,
    last_line,
    plain,
)  # fmt: skip
from workbench.errors import DependencyError, DeviceError

REMEDY = "install adb: Debian's package adb, or the platform-tools of Android's SDK, on PATH"
WAIT = 20.0  # seconds for a device to come back

_KEEP = '[ "$(wc -c < "$1")" -eq "$3" ] && mv -f -- "$1" "$2" || { rm -f -- "$1"; exit 1; }'

# What adb says of a device that it cannot talk to: why, and what to do.
_SAID = (
    (
        r"unauthorized|still authorizing",
        "it has not authorized this machine",
        "accept the prompt on its screen, and run again",
    ),
    (
        r"more than one (device|emulator)",
        "more than one is attached",
        "set serial in its profile",
    ),
    (
        r"no permissions|insufficient permissions",
        "this user may not use its USB device",
        "install udev rules for it (Debian: android-sdk-platform-tools-common) and attach it anew",
    ),
    (
        r"cannot connect to daemon|failed to (start|check)|could not (read|install).*server"
        r"|couldn't connect.*server|ADB server didn't ACK|cannot bind",
        "adb's server does not start",
        "run 'adb kill-server' and 'adb start-server', and see what it says",
    ),
    (
        r"no devices|device .*not found|no such device|unknown (host )?device",
        "adb knows no such device",
        "attach it, allow USB debugging, and compare serial in its profile with 'adb devices'",
    ),
    (
        r"failed to connect to|unable to connect|cannot connect to|connection refused",
        "nothing answers at its address",
        "turn on wireless debugging on it, and compare serial in its profile",
    ),
    (
        r"\boffline\b|still connecting",
        "it is attached, but offline",
        "attach it anew or run 'adb reconnect', wake it, and run again",
    ),
)  # fmt: skip
_BROKEN = r"error: closed|protocol fault|connection reset|broken pipe|\bclosed\b|EOF|no status"


@dataclass(frozen=True)
class Attached:
    """A device that adb lists.

    Attributes:
        state: `device` where it can be used, or why not.
    """

    serial: str
    state: str
    model: str = ""


def attached(program: str = "adb") -> list[Attached]:
    """The devices that adb knows. Raises DependencyError, Unreachable for its server."""
    return AdbTransport("adb", program=program).attached()


class AdbTransport(Shell):
    """A device by its serial number; without one, the only one attached. program: the client."""

    remedy = REMEDY

    def __init__(self, name: str, serial: str | None = None, *, program: str = "adb") -> None:
        super().__init__(name, serial or "the device that is attached")
        self.program = program
        self._serial = serial or ""
        self._chosen = ["-s", self._serial] if serial else []

    def attached(self) -> list[Attached]:
        """The devices that adb knows, usable or not."""
        ended = self._client([self.program, "devices", "-l"], WAIT, "adb devices")
        if ended.code != 0:
            self._raise_lost(ended, "adb devices")
        return parse_devices(ended.stdout.decode(errors="replace"))

    def push(self, source: Path, target: str, timeout: float = 600) -> None:
        """Copy a file to a path on the device, whose folder exists: whole, or not at all."""
        label, target = f"copying {source.name}", plain(target)
        part = f"{target}{PARTIAL}"
        try:
            size = str(source.stat().st_size)
        except OSError as error:
            raise DeviceError(f"{label} failed", f"{source}: {error.strerror}") from error
        try:
            self._copy("push", str(source.absolute()), part, timeout, label)
            done = self._script(_KEEP, part, target, size, label=label, timeout=60)
            self._judge_copy(done.stderr, done.code, label, target)
        except DeviceError as error:
            self._tidy(["rm", "-f", "--", part], error)
            raise

    def pull(self, source: str, target: Path, timeout: float = 600) -> None:
        """Copy a file from the device: whole, or `target` is as it was."""
        label = f"copying {source.rsplit('/', 1)[-1]} from it"
        try:
            with beside(target.absolute()) as part:
                self._copy("pull", plain(source), str(part), timeout, label)
        except OSError as error:
            raise full("this machine", str(error)) or DeviceError(
                f"{self.name}: {label} failed", f"{error.filename or target}: {error.strerror}"
            ) from error

    def reconnect(self) -> None:
        """Try once to reach the device again: one with an address is connected anew."""
        with contextlib.suppress(TimedOut):
            if re.fullmatch(r".+:\d+", self._serial):
                self._adb("disconnect", self._serial)
                answer = self._adb("connect", self._serial)
                if lost := self._lost(answer, "reconnecting"):
                    raise lost
            else:
                self._adb(*self._chosen, "reconnect")
                self._adb(*self._chosen, "wait-for-device")
        self._run(["true"], SHORT, "reconnecting")

    def _adb(self, *arguments: str) -> str:
        ended = self._client([self.program, *arguments], WAIT, f"adb {arguments[-1]}")
        return ended.stdout.decode(errors="replace") + ended.stderr_text

    def _copy(self, verb: str, source: str, target: str, timeout: float, label: str) -> None:
        ended = self._client(
            [self.program, *self._chosen, verb, source, target], timeout, label, beat=self._beat()
        )
        if ended.code == 0:
            return
        output = ended.stderr_text + ended.stdout.decode(errors="replace")
        # Names of files may hold any of the words that are looked for.
        neutral = output.replace(source, "…").replace(target, "…")
        mine = full("this machine" if verb == "pull" else self.name, output)
        if mine is None and (lost := self._lost(neutral, label)):
            raise lost
        if mine is None and self._diagnose():
            self._raise_lost(ended, label)
        self._judge_copy(output, ended.code, label, target)

    def _far(self, script: str) -> list[str]:
        return [self.program, *self._chosen, "shell", "-T", script]

    def _beat(self) -> Beat:
        return Beat([self.program, *self._chosen, "shell", "true"])

    def _diagnose(self) -> str:
        with contextlib.suppress(DeviceError, DependencyError):
            ended = self._calls.call([self.program, *self._chosen, "get-state"], SHORT, "adb")
            return ended.stderr_text if ended.code else ""
        return ""

    def _lost(self, text: str, label: str) -> Unreachable | None:
        for pattern, why, fix in _SAID:
            if re.search(pattern, text, re.IGNORECASE):
                if "more than one" in why:
                    why = f"{why}: {', '.join(self._serials())}"  # noqa: PLW2901
                what = f"{self.name} cannot be reached: {self.address}"
                return Unreachable(what, f"{why} ({last_line(text)})", fix)
        if re.search(_BROKEN, text, re.IGNORECASE):
            return Unreachable(
                f"the connection to {self.name} was lost while {label} ran",
                last_line(text),
                "check its cable or network, wake it, and run again",
            )
        return None

    def _serials(self) -> list[str]:
        with contextlib.suppress(DeviceError, DependencyError):
            ended = self._calls.call([self.program, "devices", "-l"], SHORT, "adb devices")
            return [
                device.serial for device in parse_devices(ended.stdout.decode(errors="replace"))
            ]
        return []


def parse_devices(text: str) -> list[Attached]:
    """The devices in what `adb devices -l` printed."""
    devices = []
    for line in text.splitlines():
        parts = re.fullmatch(
            r"(\(no serial number\)|\S+)\s+(no permissions\b[^[]*|\S+)(\s.*|\[.*)?", line.strip()
        )
        if parts is None or line.startswith(("List of", "*")):
            continue
        model = re.search(r"\bmodel:(\S+)", parts[3] or "")
        state = "no permissions" if parts[2].startswith("no perm") else parts[2]
        devices.append(Attached(parts[1], state, model[1].replace("_", " ") if model else ""))
    return devices
