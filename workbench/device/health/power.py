"""The battery: how full, whether it charges, and how warm."""

from __future__ import annotations

import re
from typing import NamedTuple

from workbench.device.health.sections import number, whole

# BatteryManager.BATTERY_STATUS_…: 1 unknown, 2 charging, 3 discharging, 4 not charging, 5 full.
_CHARGES = {2: True, 3: False, 4: False, 5: True}


class Battery(NamedTuple):
    """percent: 0 to 100. charging: or full. celsius: of the battery. None where unknown."""

    percent: float | None = None
    charging: bool | None = None
    celsius: float | None = None


def service(text: str) -> Battery:
    """What `dumpsys battery` says; the first of a key, for makers add theirs after AOSP's."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    if fields.get("present") == "false":
        return Battery()
    level, scale = (number(fields.get(key, "")) for key in ("level", "scale"))
    powered = [fields.get(f"{source} powered") for source in ("AC", "USB", "Wireless", "Dock")]
    # A phone may be on a cable that gives less than it takes: its status counts before its plugs.
    charging = _CHARGES.get(whole(fields.get("status", "")) or 0)
    if charging is None and any(source is not None for source in powered):
        charging = "true" in powered
    tenths = number(fields.get("temperature", ""))
    warm = tenths is not None and 0 < abs(tenths) < 1000
    return Battery(
        percent=_percent(level, scale),
        charging=charging,
        celsius=round(tenths / 10, 1) if warm and tenths is not None else None,
    )


def _percent(level: float | None, scale: float | None) -> float | None:
    if level is None or scale == 0:
        return None
    percent = 100 * level / (scale or 100)
    return round(percent, 1) if 0 <= percent <= 100 else None


def supplies(text: str) -> Battery:
    """The kernel's power supplies, of lines `Battery|scope|capacity|status`; the emptiest counts.

    A mouse has a battery too: its scope is Device.
    """
    batteries = []
    for line in text.splitlines():
        kind, scope, capacity, status = (*(cell.strip() for cell in line.split("|")), *[""] * 4)[:4]
        percent = _percent(number(capacity), 100)
        if kind == "Battery" and scope != "Device" and percent is not None:
            batteries.append(Battery(percent, _status(status)))
    return min(batteries, key=lambda cell: cell.percent or 0) if batteries else Battery()


def _status(word: str) -> bool | None:
    if word in ("Charging", "Full"):
        return True
    return False if re.fullmatch(r"Discharging|Not charging", word) else None
