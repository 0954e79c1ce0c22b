"""What a sweep makes small, and what must hold: figures of one row of each trial's report."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import InputError, StepError, did_you_mean
from workbench.intervals import Estimate

UNITS = {"size": "MB", "latency": "ms", "drop": "points", "load": "ms", "memory": "MB"}
DIGITS = 4  # of sizes and the like: some bytes more or less are no trade
TIMED = ("latency", "load", "memory")  # need a measurement on a device
_SIZE = re.compile(r"(?P<number>[0-9.]+)\s*(?P<unit>B|kB|MB|GB|KiB|MiB|GiB|)", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9,
            "kib": 2**10, "mib": 2**20, "gib": 2**30}  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """A figure that is to be small.

    Attributes:
        kind: `size` (MB), `latency`, `load` (ms), `memory` (MB), or `drop`, the accuracy lost in
            points.
        device: where it is measured, for those that are.
    """

    kind: str
    device: str = ""

    @property
    def name(self) -> str:
        """As `--minimise` takes it: `size`, `latency@pixel`."""
        return f"{self.kind}@{self.device}" if self.device else self.kind

    @property
    def axis(self) -> str:
        """As it stands beside an axis and over a column, with its unit."""
        where = f" on {self.device}" if self.device else ""
        return f"{'accuracy drop' if self.kind == 'drop' else self.kind}{where} ({self.unit})"

    @property
    def unit(self) -> str:
        """MB, ms or points."""
        return UNITS[self.kind]

    def of(self, report: Mapping[str, Any], row: str) -> Estimate:
        """The figure of a report's row, with its interval where it has one.

        report: as in report.json. Raises StepError where the report has no such figure.
        """
        figures = _figures(report, row, self.device)
        exact = {"size": ("bytes", 1e6), "load": ("load_ms", 1.0), "memory": ("peak_bytes", 1e6)}
        if self.kind in exact:
            key, unit = exact[self.kind]
            value = figures[key]
            if value is None:
                return _missing(self, row)
            return _exact(float(f"{float(value) / unit:.{DIGITS}g}"))
        if self.kind == "latency":
            return _estimate(figures["median"]) or _missing(self, row)
        delta = _estimate(figures["delta"])
        if delta is not None:
            return Estimate(0 - delta.value, 0 - delta.high, 0 - delta.low)
        if figures["agreement"] is not None:  # no labels: what decides otherwise counts as lost
            return _exact(100.0 - float(figures["agreement"]))
        return _missing(self, row)


@dataclass(frozen=True)
class Limit:
    """A figure that may not be above a value.

    Attributes:
        kind, device: as in `Goal`.
        high: the most that it may be, in the goal's unit.
    """

    kind: str
    device: str
    high: float

    @property
    def goal(self) -> Goal:
        """The figure that is limited."""
        return Goal(self.kind, self.device)

    def over(self, value: float) -> float:
        """How far it is beyond the limit; 0 or below where it holds."""
        return value - self.high


def _exact(value: float) -> Estimate:
    return Estimate(value, value, value)


def _missing(goal: Goal, row: str) -> Estimate:
    raise StepError(f"{row} has no {goal.name}", "it was not measured", "")


def _estimate(data: Any) -> Estimate | None:
    if not isinstance(data, Mapping):
        return None
    value, low, high = (float(data[key]) for key in ("value", "low", "high"))
    return Estimate(value, low, high) if math.isfinite(value) else None


def _figures(report: Mapping[str, Any], row: str, device: str) -> Mapping[str, Any]:
    blocks = [report, *report["devices"]]
    block = next((block for block in blocks if not device or block["device"] == device), report)
    rows = {values["key"]: values for values in block["rows"]}
    values = rows.get(row)
    if values is None:
        raise StepError(f"the report has no row {row}", f"it has {', '.join(rows)}")
    for error in (block["error"], values["error"]):
        if error is not None:
            raise StepError(error["what"], error["why"], error["fix"])
    figures: Mapping[str, Any] = values["figures"]
    return figures


def parse_goals(text: str, devices: Sequence[str], timed: bool) -> tuple[Goal, ...]:
    """`--minimise size,latency@pixel` as goals. devices: those that the sweep measures on, the
    first for those that name none. timed: whether anything is measured. Raises InputError.
    """
    goals: list[Goal] = []
    for word in (part.strip() for part in text.split(",") if part.strip()):
        kind, at, device = word.partition("@")
        if kind not in UNITS:
            raise InputError(f"--minimise does not know '{kind}'", "", did_you_mean(kind, UNITS))
        goal = _goal_on_device(kind, device if at else None, devices, timed, "--minimise")
        if goal not in goals:
            goals.append(goal)
    if not goals:
        raise InputError("--minimise names nothing", "", f"known: {', '.join(UNITS)}")
    return tuple(goals)


def _goal_on_device(
    kind: str, device: str | None, devices: Sequence[str], timed: bool, option: str
) -> Goal:
    if kind not in TIMED:
        if device is not None:
            raise InputError(f"{option}: {kind} is the same on every device", "", f"write {kind}")
        return Goal(kind)
    if not timed:
        raise InputError(
            f"{option} {kind} needs a device that is measured",
            "--no-latency measures nothing",
            "leave --no-latency out, or minimise size and drop",
        )
    name = devices[0] if device is None else device
    if name not in devices:
        raise InputError(
            f"{option}: {kind} on {name or 'no device'} is asked for, and it is not measured",
            f"devices of this sweep: {', '.join(devices)}",
            f"add --device {name}" if name else f"write {kind}@DEVICE",
        )
    return Goal(kind, name)


def parse_limits(
    max_drop: float | None,
    max_size: str | None,
    max_latency: Sequence[str],
    devices: Sequence[str],
    timed: bool,
) -> tuple[Limit, ...]:
    """`--max-drop 1`, `--max-size 500kB`, `--max-latency pixel=5` as limits. Raises InputError."""
    limits = []
    if max_drop is not None:
        if not 0 <= max_drop <= 100:
            raise InputError(f"--max-drop cannot be {max_drop:g}", "it is points, from 0 to 100")
        limits.append(Limit("drop", "", max_drop))
    if max_size is not None:
        match = _SIZE.fullmatch(max_size.strip())
        try:
            size = float(match["number"]) * _FACTORS[match["unit"].lower()] if match else 0.0
        except ValueError:
            size = 0.0
        if size <= 0:
            raise InputError(f"--max-size cannot be '{max_size}'", "", "write 500kB or 1.5MB")
        limits.append(Limit("size", "", size / 1e6))
    for text in max_latency:
        device, equals, number = text.rpartition("=")
        try:
            milliseconds = float(number.removesuffix("ms"))
            if not 0 < milliseconds < math.inf:
                raise ValueError
        except ValueError:
            raise InputError(
                f"--max-latency cannot be '{text}'", "", "write DEVICE=5 or 5, in milliseconds"
            ) from None
        goal = _goal_on_device(
            "latency", device if equals else None, devices, timed, "--max-latency"
        )
        limits.append(Limit("latency", goal.device, milliseconds))
    return tuple(limits)
