"""Which devices `--device` means: names, files, classes, tags, or all that are attached."""

from __future__ import annotations

from collections.abc import Iterable

from workbench import library
from workbench.device.profile import Device, load, read
from workbench.errors import ProfileError, did_you_mean

ALL = "all"
EXAMPLE = "example"  # the tag of profiles that are there to be copied


def profiles() -> dict[str, Device | ProfileError]:
    """Every profile in devices/ by name; of one that is wrong, its error."""
    by_name: dict[str, Device | ProfileError] = {}
    for name, path in library.entries("devices").items():
        try:
            by_name[name] = read(path)
        except ProfileError as error:
            by_name[name] = error
    return by_name


def select_devices(words: Iterable[str]) -> list[Device]:
    """The devices of those words, in their order, each once.

    `all` means every profile with transport ssh or adb that is no example; `tag:NAME` and
    `class:NAME` those that have it. Raises ProfileError for a word that means none, and for a
    wrong profile.
    """
    devices: dict[str, Device] = {}
    for word in words:
        for device in _meant(word):
            devices.setdefault(device.name, device)
    return list(devices.values())


def _meant(word: str) -> list[Device]:
    kind, colon, name = word.partition(":")
    if word != ALL and not (colon and kind in ("tag", "class")):
        return [load(word)]
    devices = [device for device in profiles().values() if isinstance(device, Device)]
    if word == ALL:
        matching = [
            device
            for device in devices
            if device.transport != "local" and EXAMPLE not in device.tags
        ]
        if not matching:
            raise ProfileError(
                "--device all: no profile in devices/ has transport ssh or adb",
                "",
                "write one: 'wb devices new NAME --serial SERIAL', or --host USER@HOST",
            )
        return matching
    matching = [
        device for device in devices if name in (device.tags if kind == "tag" else (device.group,))
    ]
    if not matching:
        names = {
            label
            for device in devices
            for label in (device.tags if kind == "tag" else (device.group,))
        }
        raise ProfileError(
            f"--device {word}: no profile has that {kind}", "", did_you_mean(name, names - {""})
        )
    return matching


def local_only(device: Device, command: str) -> Device:
    """The device, where it is this package's own processes. Raises ProfileError otherwise."""
    if device.remote:
        raise ProfileError(
            f"{command} runs in this machine's own processes, not on {device.name}",
            f"its runner is {device.runner}, over {device.transport}",
            "use --device cpu; 'wb profile FILE… --device NAME' measures files there",
        )
    return device
