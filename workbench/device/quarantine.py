"""Devices that failed again and again: left alone but for one probe, until it succeeds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workbench.cache import read_json, write_json
from workbench.device.profile import Device

FAILURES = 3  # in a row, after which a device is put in quarantine


@dataclass(frozen=True)
class FailureRecord:
    """What is remembered of a device: failed runs in a row, since when, and why the last did."""

    failures: int = 0
    since: str = ""
    why: str = ""

    @property
    def quarantined(self) -> bool:
        """Whether the device is left alone but for one probe."""
        return self.failures >= FAILURES

    def __str__(self) -> str:
        return f"{self.failures} failed runs since {self.since}; the last: {self.why}"


class Quarantine:
    """The records of devices, by their address, in a folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "devices"

    def record(self, device: Device) -> FailureRecord:
        """What is remembered of a device; of one without failures an empty record."""
        data = read_json(self._path(device))
        if not isinstance(data, dict):
            return FailureRecord()
        try:
            return FailureRecord(int(data["failures"]), str(data["since"]), str(data["why"]))
        except (KeyError, TypeError, ValueError):
            return FailureRecord()

    def failed(self, device: Device, why: str) -> FailureRecord:
        """One more failure in a row."""
        before = self.record(device)
        since = before.since or datetime.now().astimezone().isoformat(timespec="seconds")
        record = FailureRecord(before.failures + 1, since, why)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self._path(device), vars(record))
        return record

    def succeeded(self, device: Device) -> None:
        """Its failures are forgotten."""
        self._path(device).unlink(missing_ok=True)

    def _path(self, device: Device) -> Path:
        return self.folder / f"{device.lock}.json"
