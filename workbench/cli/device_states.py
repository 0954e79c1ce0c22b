"""`wb devices`: what is attached and how it is, profiles for new ones, the runner's builds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.cache import root
from workbench.device import probe
from workbench.device.connection import resolved, transport_of
from workbench.device.health.identity import identify
from workbench.device.health.state import health
from workbench.device.profile import Device, read
from workbench.device.providers import PROVIDERS
from workbench.device.quarantine import Quarantine
from workbench.device.selection import EXAMPLE, profiles
from workbench.errors import DependencyError, DeviceError, ProfileError, WorkbenchError

if TYPE_CHECKING:
    from workbench.device.health.identity import Identity


@dataclass(frozen=True, kw_only=True)
class State:
    """A profile, or a device without one, and how it is."""

    name: str
    transport: str
    address: str
    state: str
    about: str = ""
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        return dict(vars(self))


def states() -> list[State]:
    """Every profile's device, asked all at once, and what adb has attached without a profile."""
    known = profiles()
    with ThreadPoolExecutor(max(1, len(known))) as threads:
        found = list(threads.map(lambda item: _state(*item), known.items()))
    serials = {one.serial for one in known.values() if isinstance(one, Device) and one.serial}
    return [*found, *_unknown(serials)]


def _state(name: str, device: Device | ProfileError) -> State:
    if isinstance(device, ProfileError):
        return State(
            name=name, transport="?", address="", state="wrong profile", about=device.what,
            fix=device.fix,
        )  # fmt: skip
    about = {"name": name, "transport": device.transport, "address": device.address}
    if not device.remote:
        return State(
            **about, state=_here(device), about=f"{probe.cpu_model()}, {_provider(device)}"
        )
    if EXAMPLE in device.tags:
        return State(**about, state="example", about="a profile to copy: it was not asked")
    record = Quarantine(root()).record(device)
    try:
        transport = transport_of(device)
        try:
            identity = identify(transport)
            now = health(transport, "/")
        finally:
            with suppress(DeviceError):
                transport.close()
    except WorkbenchError as error:
        state = "quarantined" if record.quarantined else "unreachable"
        return State(**about, state=state, about=f"{error.what} {error.why}".strip(), fix=error.fix)
    parts = [described(identity), f"INT8 as {resolved(device, identity).quantization}"]
    if now.temperature_c is not None:
        parts.append(f"{now.temperature_c:.0f} °C")
    if now.battery_percent is not None:
        charging = " charging" if now.charging else ""
        parts.append(f"battery {now.battery_percent:.0f} %{charging}")
    emulated = device.emulated or identity.emulated
    return State(**about, state="emulated" if emulated else "ready", about=", ".join(parts))


def _here(device: Device) -> str:
    """Whether onnxruntime here has the profile's provider; not whether it starts."""
    provider = PROVIDERS[device.provider]
    if not provider.here:
        return "not for this system"
    if device.provider == "cpu":
        return "ready"
    return "installed" if _packaged(provider.package) else "not installed"


def _packaged(package: str) -> bool:
    return bool(package) and package in probe.versions((package,))


def _provider(device: Device) -> str:
    return f"{PROVIDERS[device.provider].ort}, {device.threads} thread(s)"


def described(identity: Identity) -> str:
    """A device in a few words: what it is, its processor, its parts."""
    parts = " + ".join(f"{count}× {name}" for name, count, _ in identity.cpus)
    words = [identity.model, identity.soc, parts, f"{identity.system} {identity.release}"]
    return ", ".join(one for one in dict.fromkeys(words) if one)


def _unknown(serials: set[str]) -> list[State]:
    from workbench.device.transport.adb import attached

    try:
        found = attached()
    except (DependencyError, DeviceError):
        return []  # no adb here, and no profile that needs one, or its own line says so
    return [
        State(
            name="–", transport="adb", address=f"adb {one.serial}", state=one.state,
            about=one.model, fix=f"wb devices new NAME --serial {one.serial}",
        )
        for one in found
        if one.serial not in serials
    ]  # fmt: skip


def show(found: Sequence[State], as_json: bool) -> None:
    """The states on stdout, a line each."""
    if as_json:
        import json
        import sys

        json.dump([one.to_json() for one in found], sys.stdout, indent=1)
        print()
        return
    widths = [max(len(getattr(one, key)) for one in found) for key in ("name", "address", "state")]
    for one in found:
        print(
            f"{one.name:{widths[0]}}  {one.address:{widths[1]}}  {one.state:{widths[2]}}  "
            f"{one.about}".rstrip()
        )
        if one.fix:
            print(f"{'':{widths[0]}}  fix: {one.fix}")


def new(name: str, serial: str | None, host: str | None, port: int | None) -> Path:
    """Probe a device and write its profile to ./devices. Raises InputError, DeviceError."""
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
    text = profile_text(resolved(device, identity), identity)
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.tmp")
    try:
        making.write_text(text, encoding="utf-8")
        read(making)  # what is written must be read
        making.replace(target)
    finally:
        making.unlink(missing_ok=True)
    return target


def profile_text(device: Device, identity: Identity) -> str:
    """A profile with what the device said of itself, and what its owner may want to change."""
    lines = [f"# {described(identity)}", f'transport = "{device.transport}"']
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
    found: list[int] = []
    at = 0
    for _, count, speed in identity.cpus:
        if speed == max(speeds):
            found += range(at, at + count)
        at += count
    return found


def _toml(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)


def build_runner(targets: Sequence[str]) -> list[tuple[str, Path]]:
    """Build the native runner. Raises DependencyError where no compiler is found."""
    from workbench.device.native.build import runner_for

    return [(target, runner_for(target)) for target in targets]
