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
    found: dict[str, Device | ProfileError] = {}
    for name, path in library.entries("devices").items():
        try:
            found[name] = read(path)
        except ProfileError as error:
            found[name] = error
    return found


def chosen(words: Iterable[str]) -> list[Device]:
    """The devices of those words, in their order, each once.

    `all` means every profile with transport ssh or adb that is no example; `tag:NAME` and
    `class:NAME` those that have it. Raises ProfileError for a word that means none, and for a
    wrong profile.
    """
    found: dict[str, Device] = {}
    for word in words:
        for device in _meant(word):
            found.setdefault(device.name, device)
    return list(found.values())


def _meant(word: str) -> list[Device]:
    kind, colon, name = word.partition(":")
    if word != ALL and not (colon and kind in ("tag", "class")):
        return [load(word)]
    known = [one for one in profiles().values() if isinstance(one, Device)]
    if word == ALL:
        meant = [one for one in known if one.transport != "local" and EXAMPLE not in one.tags]
        if not meant:
            raise ProfileError(
                "--device all: no profile in devices/ has transport ssh or adb",
                "",
                "write one: 'wb devices new NAME --serial SERIAL', or --host USER@HOST",
            )
        return meant
    meant = [one for one in known if name in (one.tags if kind == "tag" else (one.group,))]
    if not meant:
        names = {one for each in known for one in (each.tags if kind == "tag" else (each.group,))}
        raise ProfileError(
            f"--device {word}: no profile has that {kind}", "", did_you_mean(name, names - {""})
        )
    return meant


def local_only(device: Device, command: str) -> Device:
    """The device, where it is this package's own processes. Raises ProfileError otherwise."""
    if device.remote:
        raise ProfileError(
            f"{command} runs in this machine's own processes, not on {device.name}",
            f"its runner is {device.runner}, over {device.transport}",
            "use --device cpu; 'wb profile FILE… --device NAME' measures files there",
        )
    return device
