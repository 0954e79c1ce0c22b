"""An Android for tests: its settings, its files, and the failures that a test asks of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.device.health.doubles import Silent
from workbench.device.health.prepare import FOLDER, RECORD, STAY_ON
from workbench.device.transport.base import Done, Interrupted

FILE = f"{FOLDER}/{RECORD}"


class Phone(Silent):
    """What is set on it, and each command that it got; `break_at` may raise, or answer instead.

    Written after AOSP's PowerManagerShellCommand, SettingsService and Svc: no phone was at hand.
    """

    name = "pixel"

    def __init__(self, stay_on: str = "3", fixed_mode: bool = True) -> None:
        self.settings = {STAY_ON: stay_on} if stay_on != "null" else {}
        self.fixed_mode = fixed_mode  # whether its power HAL has it
        self.fixed = False
        self.files: dict[str, str] = {}
        self.commands: list[str] = []
        self.interrupted = False
        self.reconnects = 0
        self.break_at: Callable[[str], Done | None] = lambda command: None

    def state(self) -> tuple[str, bool, dict[str, str]]:
        return self.settings.get(STAY_ON, "null"), self.fixed, dict(self.files)

    def interrupt(self) -> None:
        self.interrupted = True

    def resume(self) -> None:
        self.interrupted = False

    def reconnect(self) -> None:
        self.reconnects += 1

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        command = " ".join(argv)
        if argv[:2] == ["sh", "-c"]:
            command = f"{'write' if 'printf' in argv[2] else 'read'} {' '.join(argv[4:])}"
        if self.interrupted:
            raise Interrupted("ended by the user")
        self.commands.append(command)
        broken = self.break_at(command)
        return broken if broken is not None else self._do(command.split(), list(argv))

    def _do(self, words: list[str], argv: list[str]) -> Done:
        match words:
            case ["write", *_]:
                self.files[argv[5]] = argv[4] + "\n"
            case ["read", path]:
                return Done(0, self.files.get(path, ""), "")
            case ["rm", "-f", path]:
                self.files.pop(path, None)
            case ["settings", "get", "global", key]:
                return Done(0, self.settings.get(key, "null") + "\n", "")
            case ["settings", "put", "global", key, value]:
                self.settings[key] = value
            case ["settings", "delete", "global", key]:
                self.settings.pop(key, None)
                return Done(0, "Deleted 1 rows\n", "")
            case ["svc", "power", "stayon", "true"]:
                self.settings[STAY_ON] = "15"
            case ["cmd", "power", "set-fixed-performance-mode-enabled", value]:
                if not self.fixed_mode:
                    said = "Failed to set FIXED_PERFORMANCE mode\nThis is likely because Power HAL"
                    return Done(255, "", f"{said} AIDL is not implemented on this device\n")
                self.fixed = value == "true"
            case ["input", "keyevent", "KEYCODE_WAKEUP"]:
                pass
            case _:
                return Done(127, "", f"sh: {words[0]}: inaccessible or not found\n")
        return Done(0, "", "")
