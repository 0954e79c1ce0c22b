"""Prepares a device for measuring, without root, and restores what was set, whatever happens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.device.health.pinning import pin_command
from workbench.device.transport.base import Unreachable, quote_command
from workbench.errors import DeviceError

if TYPE_CHECKING:
    from workbench.device.health.identity import Identity
    from workbench.device.transport.base import Done, Transport

FOLDER = "/data/local/tmp"  # the one that every Android lets a shell write to
RECORD = ".wb-prepared"  # says what to restore, should this process or the cable die

STAY_ON = "stay_on_while_plugged_in"
FIXED = "fixed_performance"
_FIXED_MODE = ("cmd", "power", "set-fixed-performance-mode-enabled")
_FIXED_SINCE = 30  # API level: Android 11

_WRITE = 'printf "%s\\n" "$1" >"$2.new" && mv -f "$2.new" "$2"'
_READ = 'if [ -f "$1" ]; then cat "$1"; fi'


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """prefix: the words before each command that is measured. notes: what could not be set."""

    prefix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@contextmanager
def prepare_device(
    transport: Transport, identity: Identity, cores: Sequence[int] = (), folder: str = FOLDER
) -> Iterator[Prepared]:
    """A device as measuring needs it: pinned to cores, an Android awake and at a steady speed.

    Android is restored at the end, after an exception or Ctrl-C too, and by the next call where
    this process died: folder, on the device, holds the record. Linux is only asked, never set.
    Raises DeviceError where the device cannot pin to the cores, or was not restored.
    """
    prefix = pin_command(transport, cores, identity.cores)
    if identity.system != "android":
        yield Prepared(prefix=prefix)
        return
    phone = _Phone(transport, f"{folder.rstrip('/')}/{RECORD}", _level(identity.release))
    notes = phone.recover()
    try:
        notes += phone.prepare()
        yield Prepared(prefix=prefix, notes=tuple(notes))
    except BaseException as error:
        failed = phone.restore()
        if failed:
            error.add_note(str(phone.unrestored(failed)))
        raise
    failed = phone.restore()
    if failed:
        raise phone.unrestored(failed)


def _level(release: str) -> int | None:
    """The API level in an Android's release."""
    match = re.search(r"\(API ([0-9]{1,4})\)", release)
    return int(match[1]) if match else None


@dataclass
class _Phone:
    """An Android's settings.

    Attributes:
        before: what to restore, by name, as its record on the device says.
        lost: whether it could not be reached while it was restored.
    """

    transport: Transport
    record: str
    level: int | None
    before: dict[str, str] = field(default_factory=dict)
    lost: bool = False

    def recover(self) -> list[str]:
        """Restore what a run that died left behind. Raises DeviceError where that fails."""
        done = self.transport.run(["sh", "-c", _READ, "sh", self.record])
        left = parse_record(done.stdout) if done.code == 0 else {}
        notes = ["settings that an earlier run left were restored first"] if left else []
        for name, value in left.items():
            command = restoring(name, value)
            done = self.transport.run(command)
            if done.code == 0:
                continue
            failed = f"{quote_command(command)} ({_said(done) or f'code {done.code}'})"
            # A value that is not back would be lost under this run's own.
            if name == STAY_ON:
                raise self.unrestored([failed])
            notes.append(f"not restored: {failed}")
        if left:
            self.transport.run(["rm", "-f", self.record])
        return notes

    def prepare(self) -> list[str]:
        """Set what can be; what to restore is written before anything is. Notes on the rest."""
        notes = []
        asked = self.transport.run(["settings", "get", "global", STAY_ON])
        value = asked.stdout.strip()
        settings = {}
        if asked.code == 0 and re.fullmatch(r"[0-9]{1,3}|null", value):
            settings[STAY_ON] = value
        else:
            notes.append(f"the screen may turn off: its setting is unknown ({_said(asked)})")
        if self.level is None or self.level >= _FIXED_SINCE:
            settings[FIXED] = "false"
        else:
            notes.append("no fixed performance mode: Android has it since version 11")
        if settings:
            self._write(settings)
        self.before = settings
        if FIXED in settings:
            done = self.transport.run([*_FIXED_MODE, "true"])
            # Success prints nothing; a service without commands of its own says so with code 0.
            if done.code != 0 or _said(done):
                notes.append(f"no fixed performance mode: {_said(done) or f'code {done.code}'}")
                del settings[FIXED]
                self._write(settings)
        if STAY_ON in settings:
            done = self.transport.run(["svc", "power", "stayon", "true"])
            if done.code != 0:
                notes.append(f"the screen may turn off: {_said(done) or f'code {done.code}'}")
        done = self.transport.run(["input", "keyevent", "KEYCODE_WAKEUP"])
        if done.code != 0:
            notes.append(f"the screen was not turned on: {_said(done) or f'code {done.code}'}")
        return notes

    def restore(self) -> list[str]:
        """Restore all that can be, and remove the record if that was all; what failed, and why."""
        failed = []
        for name, value in self.before.items():
            command = restoring(name, value)
            why = self._try(command)
            if why:
                failed.append(f"{quote_command(command)} ({why})")
        if self.before and not failed:
            command = ["rm", "-f", self.record]
            why = self._try(command)
            failed += [f"{quote_command(command)} ({why})"] if why else []
        return failed

    def unrestored(self, failed: Sequence[str]) -> DeviceError:
        """The error that names the settings that could not be put back."""
        return DeviceError(
            f"{self.transport.name} was not restored to what it was",
            "; ".join(failed),
            "the next run on it tries again; or run these commands in 'adb shell'",
        )

    def _try(self, command: Sequence[str]) -> str:
        """Run a command whatever happened before it; why it failed, or ''."""
        self.transport.resume()  # after Ctrl-C nothing runs until then
        try:
            try:
                done = self.transport.run(command)
            except Unreachable:
                if self.lost:
                    raise
                self.lost = True  # waiting for it once is enough
                self.transport.reconnect()
                done = self.transport.run(command)
        except DeviceError as error:
            return " ".join(part for part in (error.what, error.why) if part)
        return "" if done.code == 0 else _said(done) or f"code {done.code}"

    def _write(self, settings: Mapping[str, str]) -> None:
        if not settings:
            self.transport.run(["rm", "-f", self.record])
            return
        text = "\n".join(f"{name}={value}" for name, value in settings.items())
        done = self.transport.run(["sh", "-c", _WRITE, "sh", text, self.record])
        if done.code != 0:
            raise DeviceError(
                f"{self.transport.name} was not prepared",
                f"what to restore cannot be written to {self.record}: {_said(done)}",
                "free space there, or remove the file",
            )


def parse_record(text: str) -> dict[str, str]:
    """What to restore, of a record; lines that no run wrote are left out: anyone may edit it."""
    settings = re.findall(
        rf"^({STAY_ON}=(?:[0-9]{{1,3}}|null)|{FIXED}=false)\r?$", text, re.MULTILINE
    )
    return dict(line.split("=") for line in settings)


def restoring(name: str, value: str) -> list[str]:
    """The command that gives a setting its value back."""
    if name == FIXED:
        return [*_FIXED_MODE, value]
    if value == "null":
        return ["settings", "delete", "global", name]
    return ["settings", "put", "global", name, value]


def _said(done: Done) -> str:
    """The first line that a command printed."""
    lines = f"{done.stderr}\n{done.stdout}".strip().splitlines()
    return lines[0].strip()[:200] if lines else ""
