"""How a device is doing: heat, throttling, battery, load, space; whether its times can be used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.device.health import power, thermal
from workbench.device.health.sections import ask, megahertz, number, script, whole

if TYPE_CHECKING:
    from workbench.device.profile import Limits
    from workbench.device.transport.base import Transport

MODERATE = 2  # Android's thermal status from which it slows the processor down

SCRIPT = script(
    ("thermalservice", "command -v dumpsys >/dev/null && dumpsys -t 10 thermalservice"),
    ("battery", "command -v dumpsys >/dev/null && dumpsys -t 10 battery"),
    # Phones have a hundred zones: the shell's own `read` takes milliseconds, `cat` a second.
    ("zones", "for z in /sys/class/thermal/thermal_zone*; do t=; v=; read -r t <$z/type; "
              "read -r v <$z/temp; echo \"$v $t\"; done"),
    ("supplies", "for s in /sys/class/power_supply/*; do t=; o=; c=; u=; read -r t <$s/type; "
                 "read -r o <$s/scope; read -r c <$s/capacity; read -r u <$s/status; "
                 "echo \"$t|$o|$c|$u\"; done"),
    ("firmware", "vcgencmd get_throttled || /opt/vc/bin/vcgencmd get_throttled || "
                 "cat /sys/devices/platform/soc/soc:firmware/get_throttled"),
    ("load", "cat /proc/loadavg"),
    ("frequencies", "for c in /sys/devices/system/cpu/cpu[0-9]*; do m=; l=; n=; "
                    "read -r m <$c/cpufreq/cpuinfo_max_freq; "
                    "read -r l <$c/cpufreq/scaling_max_freq; "
                    "read -r n <$c/cpufreq/scaling_cur_freq; echo \"${c##*/cpu}|$m|$l|$n\"; done"),
    ("space", "df -kP \"$1\" || df -k \"$1\""),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Health:
    """A device at one moment; None and () where it does not say.

    Attributes:
        temperature_c: degrees Celsius of what limits it, named by temperature_of: the hottest
            sensor of a phone's `skin`, which Android throttles by; else of the `cpu`; else of the
            `battery` or the `board`.
        throttling: Android's thermal status, 0 to 6.
        throttled: whether it is slowed down now.
        firmware: a Raspberry Pi's bits, which also tell what was.
        frequencies_mhz: by core, in the order of their numbers.
        limits_mhz: the same, which the kernel or a thermal daemon lowers.
        limited: whether a core may not run as fast as it can.
        free_bytes: of the work folder.
    """

    temperature_c: float | None = None
    temperature_of: str = ""
    throttling: int | None = None
    throttled: bool | None = None
    firmware: int | None = None
    battery_percent: float | None = None
    battery_c: float | None = None
    charging: bool | None = None
    load_1min: float | None = None
    frequencies_mhz: tuple[int, ...] = ()
    limits_mhz: tuple[int, ...] = ()
    limited: bool | None = None
    free_bytes: int | None = None


def health(transport: Transport, folder: str) -> Health:
    """Ask a device how it is doing, in one round trip; folder: whose space counts.

    Raises DeviceError where it cannot be talked to. What it does not say is None.
    """
    return parse(ask(transport, SCRIPT, folder))


def parse(sections: Mapping[str, str]) -> Health:
    """The health in the parts that SCRIPT printed."""
    service = thermal.service(sections.get("thermalservice", ""))
    battery = power.service(sections.get("battery", ""))
    if battery.percent is None:
        battery = power.supplies(sections.get("supplies", ""))
    temperature, of = _temperature(service, sections.get("zones", ""), battery.celsius)
    bits = thermal.firmware(sections.get("firmware", ""))
    status = service.status
    throttled = status >= MODERATE if status is not None else None
    if bits is not None:
        throttled = bool(bits & thermal.SLOWED)
    cores = _cores(sections.get("frequencies", ""))
    limits = tuple(limit for _, limit, _ in cores if limit)
    pairs = [(most, limit) for most, limit, _ in cores if most and limit]
    words = sections.get("load", "").split()
    return Health(
        temperature_c=temperature,
        temperature_of=of,
        throttling=status,
        throttled=throttled,
        firmware=bits,
        battery_percent=battery.percent,
        battery_c=battery.celsius,
        charging=battery.charging,
        load_1min=number(words[0]) if words else None,
        frequencies_mhz=tuple(now for _, _, now in cores if now),
        limits_mhz=limits,
        limited=any(limit < most for most, limit in pairs) if pairs else None,
        free_bytes=space(sections.get("space", "")),
    )


def _temperature(
    service: thermal.Service, zones: str, battery: float | None
) -> tuple[float | None, str]:
    """The temperature that decides. Android's service tells more truly which sensor is which."""
    kernel = thermal.zones(zones)
    for kind in (thermal.SKIN, thermal.CPU, thermal.BATTERY, thermal.OTHER):
        for readings in (service.readings, kernel):
            value = thermal.hottest(readings, kind)
            if value is not None:
                return value, kind
        if kind == thermal.BATTERY and battery is not None:
            return battery, kind
    return None, ""


def _cores(text: str) -> list[tuple[int | None, int | None, int | None]]:
    """MHz at most, allowed and now, of lines `core|kHz|kHz|kHz`, by the cores' numbers."""
    clocks = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|")]
        core = whole(words[0]) if len(words) == 4 else None
        if core is not None:
            most, limit, now = (megahertz(word) for word in words[1:])
            clocks[core] = (most, limit, now)
    return [clocks[core] for core in sorted(clocks)]


def space(text: str) -> int | None:
    """Bytes free, of `df -k` for one folder; a long device name may take a line of its own."""
    match = re.search(r"\s[0-9]+\s+[0-9]+\s+([0-9]{1,15})\s+(?:[0-9]+%|-)\s", f"{text}\n")
    return int(match[1]) * 1024 if match else None


def ready(
    now: Health, temperature_limit: float | None = None, battery_limit: float | None = None
) -> str:
    """Why a device is not ready to be measured; '' where it is. Degrees Celsius, and percent."""
    slowed = _slowing(now)
    if slowed:
        return f"it is {slowed}"
    return _too_hot(now, temperature_limit) or _too_low(now, battery_limit)


def problem(before: Health, after: Health, limits: Limits) -> str:
    """Why a measurement between two moments is invalid; '' where it is valid."""
    for state, when in ((before, "began"), (after, "ended")):
        why = _slowing(state)
        if why:
            return f"it was {why} when measuring {when}"
    was, now = before.throttling, after.throttling
    if was is not None and now is not None and now > was:
        return f"its thermal status rose from {was} to {_status(now)}"
    if before.firmware is not None and after.firmware is not None:
        new = after.firmware & ~before.firmware & thermal.HAS_SLOWED
        if new:
            return f"its firmware slowed it down for a while (get_throttled: {after.firmware:#x})"
    # A CPU is hot at the end of any work, and cool a second later: it is judged at the beginning.
    why = "" if after.temperature_of == thermal.CPU else _too_hot(after, limits.temperature)
    if why:
        return why
    return _lowered_limit(before.limits_mhz, after.limits_mhz)


def _lowered_limit(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    if after and len(after) < len(before):
        return f"{len(before) - len(after)} of its cores went offline"
    for at, (was, now) in enumerate(zip(before, after, strict=False)):
        if now < was:
            return f"a core's speed was limited: core {at} from {was} to {now} MHz"
    return ""


def _status(value: int) -> str:
    named = 0 <= value < len(thermal.STATUS)
    return f"{value}, {thermal.STATUS[value]}" if named else str(value)


def _slowing(state: Health) -> str:
    if state.throttling is not None and state.throttling >= MODERATE:
        return f"slowed down by heat (thermal status {_status(state.throttling)})"
    if state.throttled:
        bits = state.firmware or 0
        cause = "too low a voltage" if bits & thermal.UNDER_VOLTAGE else "heat"
        told = f" (get_throttled: {bits:#x})" if bits else ""
        return f"slowed down by {cause}{told}"
    return ""


def _too_hot(state: Health, limit: float | None) -> str:
    if limit is None or state.temperature_c is None or state.temperature_c <= limit:
        return ""
    of = state.temperature_of or "it"
    return f"{of} is at {state.temperature_c:.1f} °C, above the limit of {limit:g} °C"


def _too_low(state: Health, limit: float | None) -> str:
    percent = state.battery_percent
    if limit is None or percent is None or percent >= limit or state.charging:
        return ""
    return f"its battery is at {percent:.0f} %, below the limit of {limit:g} %, and does not charge"
