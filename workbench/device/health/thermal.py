"""Temperatures and throttling, as Android's thermal service and the kernel's zones tell them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from workbench.device.health.sections import number, whole

CPU, SKIN, BATTERY, OTHER, IGNORED = "cpu", "skin", "battery", "board", ""

# android.hardware.thermal's TemperatureType. 6 to 8 are not temperatures but volts, amperes and
# percent of the battery: a Pixel reports 8900.0 there.
_TYPES = {0: CPU, 2: BATTERY, 3: SKIN}
_NAMES = {"TYPE_CPU": CPU, "TYPE_BATTERY": BATTERY, "TYPE_SKIN": SKIN}
STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

# A sensor that is off or broken says 0, -274 °C or the last value of its register, 127 °C. No
# phone or board runs at the ends of this range.
_COLDEST, _HOTTEST = -40.0, 125.0

_READING = re.compile(
    r"Temperature\{mValue=([^,}\s]{1,40}), mType=(-?[0-9]{1,3}), mName=([^,}\n]{0,80})"
)
_BATTERY_ZONE = re.compile(r"batt|^bat\b|^bms|^fg|charg|chg")
_CPU_ZONE = re.compile(
    r"cpu|cluster|(^|[-_ ])(big|mid|little|ap)([-_ ]|$)|bigcore|littlecore|soc[-_]therm|tsens|"
    r"x86_pkg|coretemp|k10temp|(^|[-_])tj([-_]|$)"
)

# The firmware's bits on a Raspberry Pi: now, and since it was started.
UNDER_VOLTAGE, SLOWED, HAS_SLOWED = 0x1, 0xE, 0xE0000


class Reading(NamedTuple):
    """kind: what is measured: CPU, SKIN, BATTERY, or OTHER. celsius: plausible."""

    kind: str
    celsius: float


class Service(NamedTuple):
    """status: 0 to 6 as in STATUS; None where unknown or overridden by a command."""

    status: int | None
    readings: tuple[Reading, ...]


def service(text: str) -> Service:
    """What `dumpsys thermalservice` says now; what it cached may be minutes old.

    A maker's own names count before its numbers: Samsung's Android 10 counted types from 1.
    """
    match = re.search(r"^\s*Thermal Status:\s*([0-6])\s*$", text, re.MULTILINE)
    status = int(match[1]) if match else None
    if re.search(r"IsStatusOverride:\s*true", text):
        status = None
    readings = []
    current = False
    for line in text.splitlines():
        if line.rstrip().endswith(":"):
            current = line.strip() == "Current temperatures from HAL:"
        reading = _READING.search(line) if current else None
        if reading is None:
            continue
        kind = _NAMES.get(reading[3], _TYPES.get(int(reading[2]), IGNORED))
        celsius = number(reading[1])
        if kind and celsius is not None and _plausible(celsius):
            readings.append(Reading(kind, celsius))
    return Service(status, tuple(readings))


def zones(text: str) -> tuple[Reading, ...]:
    """The kernel's thermal zones, of lines such as `45277 cpu-thermal`."""
    readings = []
    for line in text.splitlines():
        value, _, name = line.strip().partition(" ")
        celsius = _celsius(value)
        kind = zone_kind(name)
        if celsius is not None and kind:
            readings.append(Reading(kind, celsius))
    return tuple(readings)


def zone_kind(name: str) -> str:
    """What a zone of the kernel measures, by its name, which each maker chooses."""
    name = name.strip().lower()
    # A zone that is called just "soc" counts the battery's percent, on Pixels and on Qualcomm's.
    if not name or name == "soc" or re.search(r"bcl|vbat|ibat|vph|vdroop|ocp|_level|cycle", name):
        return IGNORED
    if _BATTERY_ZONE.search(name):
        return BATTERY
    if "skin" in name:
        return SKIN
    return CPU if _CPU_ZONE.search(name) else OTHER


def _celsius(text: str) -> float | None:
    """Degrees of thousandths as the kernel asks for; some drivers give tenths, or degrees."""
    value = whole(text) if len(text) < 20 else None
    if value is None:
        return None
    size = abs(value)
    degrees = value / (1000 if size >= 1000 else 10 if size > 200 else 1)
    return degrees if _plausible(degrees) else None


def _plausible(celsius: float) -> bool:
    return celsius != 0 and _COLDEST < celsius < _HOTTEST


def hottest(readings: Iterable[Reading], kind: str) -> float | None:
    """The highest of a kind, in degrees Celsius to a tenth."""
    values = [reading.celsius for reading in readings if reading.kind == kind]
    return round(max(values), 1) if values else None


def firmware(text: str) -> int | None:
    """A Raspberry Pi's bits, of `throttled=0x50000` or of the kernel's file without 0x."""
    match = re.search(r"^(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})$", text.strip(), re.MULTILINE)
    return int(match[1], 16) if match else None
