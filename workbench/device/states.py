"""How the devices are: every profile's, and what adb has attached without one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.cache import root
from workbench.device import probe
from workbench.device.connection import resolve_device, transport_of
from workbench.device.health.identity import identify
from workbench.device.health.state import health
from workbench.device.new_profile import describe_identity
from workbench.device.profile import Device
from workbench.device.providers import PROVIDERS
from workbench.device.quarantine import Quarantine
from workbench.device.selection import EXAMPLE, profiles
from workbench.errors import DependencyError, DeviceError, ProfileError, WorkbenchError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """A profile, or a device without one, and how it is.

    Attributes:
        name: the profile's, or a dash.
        transport: how it is reached, such as adb.
        address: where, such as `adb 1A2B3C`.
        state: ready, unreachable, quarantined, …
        about: what it is, or why it is not to be had.
        fix: what to do about it.
    """

    name: str
    transport: str
    address: str
    state: str
    about: str = ""
    fix: str = ""


def device_states() -> list[DeviceState]:
    """Every profile's device, asked all at once, and what adb has attached without a profile."""
    devices = profiles()
    with ThreadPoolExecutor(max(1, len(devices))) as threads:
        states = list(threads.map(lambda item: _state(*item), devices.items()))
    serials = {device.serial for device in devices.values()
               if isinstance(device, Device) and device.serial}  # fmt: skip
    return [*states, *_without_profile(serials)]


def _state(name: str, device: Device | ProfileError) -> DeviceState:
    if isinstance(device, ProfileError):
        return DeviceState(
            name=name, transport="?", address="", state="wrong profile", about=device.what,
            fix=device.fix,
        )  # fmt: skip
    about = {"name": name, "transport": device.transport, "address": device.address}
    if not device.remote:
        return DeviceState(
            **about, state=_here(device), about=f"{probe.cpu_model()}, {_provider(device)}"
        )
    if EXAMPLE in device.tags:
        return DeviceState(**about, state="example", about="a profile to copy: it was not asked")
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
        return DeviceState(
            **about, state=state, about=f"{error.what} {error.why}".strip(), fix=error.fix
        )
    quantization = resolve_device(device, identity).quantization
    parts = [describe_identity(identity), f"INT8 as {quantization}"]
    if now.temperature_c is not None:
        parts.append(f"{now.temperature_c:.0f} °C")
    if now.battery_percent is not None:
        charging = " charging" if now.charging else ""
        parts.append(f"battery {now.battery_percent:.0f} %{charging}")
    emulated = device.emulated or identity.emulated
    return DeviceState(**about, state="emulated" if emulated else "ready", about=", ".join(parts))


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


def _without_profile(serials: set[str]) -> list[DeviceState]:
    """What adb has attached, but those with these serials."""
    from workbench.device.transport.adb import attached

    try:
        phones = attached()
    except (DependencyError, DeviceError):
        return []  # no adb here, and no profile that needs one, or its own line says so
    return [
        DeviceState(
            name="–", transport="adb", address=f"adb {phone.serial}", state=phone.state,
            about=phone.model, fix=f"wb devices new NAME --serial {phone.serial}",
        )
        for phone in phones
        if phone.serial not in serials
    ]  # fmt: skip
