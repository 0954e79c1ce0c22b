"""A profile for a device that has none yet: asked what it is, and written for its owner to edit."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.device.connection import resolve_device, transport_of
from workbench.device.health.identity import identify
from workbench.device.profile import Device, read
from workbench.errors import DeviceError, ProfileError

if TYPE_CHECKING:
    from workbench.device.health.identity import Identity


def write_profile(name: str, serial: str | None, host: str | None, port: int | None) -> Path:
    """Probe a device and write its profile to ./devices. Raises ProfileError, DeviceError."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is None:
        raise ProfileError(f"'{name}' cannot name a device", "", "use letters, digits and '-'")
    if (serial is None) == (host is None):
        raise ProfileError(
            "give one of --serial and --host",
            "--serial is for a phone over adb ('adb devices' lists them), --host for a machine "
            "over ssh",
        )
    target = Path("devices") / f"{name}.toml"
    if target.exists():
        raise ProfileError(f"{target} exists already", "", "choose another name, or edit it")
    device = Device(
        name=name,
        transport="adb" if serial is not None else "ssh",
        serial=serial or "",
        host=host or "",
        port=port,
        runner="native",
    )
    transport = transport_of(device)
    try:
        identity = identify(transport)
    finally:
        with suppress(DeviceError):
            transport.close()
    text = profile_text(resolve_device(device, identity), identity)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        read(draft)  # what is written must be read
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def profile_text(device: Device, identity: Identity) -> str:
    """A profile with what the device said of itself, and what its owner may want to change."""
    lines = [f"# {describe_identity(identity)}", f'transport = "{device.transport}"']
    if device.transport == "adb":
        lines.append(f"serial = {_toml(device.serial)}")
    else:
        lines.append(f"host = {_toml(device.host)}")
    if device.port:
        lines.append(f"port = {device.port}")
    lines += [
        f"runner = {_toml(device.runner)}      # or python, where the device has the packages",
        "threads = 1            # phones are judged on one core first",
        f"architecture = {_toml(device.architecture)}",
        f"isa = [{', '.join(map(_toml, device.isa))}]   # INT8 as {device.quantization}",
    ]
    fast = _fastest(identity)
    if fast:
        lines.append(f"# cores = {fast}   # pins measuring to the fastest cores")
    if device.emulated:
        lines.append(f"emulated = true        # {identity.emulator}: its times say nothing")
    if identity.system == "android":
        lines += [
            "",
            "[libraries]            # Android has no runtimes of its own: name yours",
            '# onnxruntime = { push = "libs/arm64-v8a/libonnxruntime.so" }',
            '# litert = { push = "libs/arm64-v8a/libLiteRt.so" }',
            "",
            "[limits]",
            "cool_down = 2          # seconds between two processes",
            "temperature = 40       # degrees Celsius above which a round waits",
            "battery = 30           # percent below which it must charge",
        ]
    return "\n".join(lines) + "\n"


def _fastest(identity: Identity) -> list[int]:
    """The numbers of the cores with the highest clock, where clusters differ."""
    speeds = {speed for _, _, speed in identity.cpus if speed}
    if len(speeds) < 2:
        return []
    # The kernel numbers clusters in the order that /proc/cpuinfo lists them.
    cores: list[int] = []
    first = 0
    for _, count, speed in identity.cpus:
        if speed == max(speeds):
            cores += range(first, first + count)
        first += count
    return cores


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def describe_identity(identity: Identity) -> str:
    """A device in a few words: what it is, its processor, its parts."""
    processor = " + ".join(f"{count}× {name}" for name, count, _ in identity.cpus)
    system = f"{identity.system} {identity.release}"
    parts = (identity.model, identity.soc, processor, system)
    return ", ".join(part for part in dict.fromkeys(parts) if part)
