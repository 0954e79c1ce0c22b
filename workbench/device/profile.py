"""`Device`: a profile read from `devices/*.toml`. Unknown keys are errors."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench import library
from workbench.device import probe
from workbench.errors import InputError, ProfileError, did_you_mean, shown

TRANSPORTS = ("local",)


@dataclass(frozen=True, kw_only=True)
class Device:
    """How to reach a device, what runs there, and what its CPU can do.

    threads: intra-op threads of a runtime. cores: CPU numbers that measuring processes are pinned
    to, none by default. isa: CPU features such as `avx512_vnni`, probed where absent.
    """

    name: str
    transport: str = "local"
    threads: int = 1
    cores: tuple[int, ...] = ()
    isa: tuple[str, ...] = field(default=())

    @property
    def architecture(self) -> str:
        return probe.architecture()

    @property
    def quantization(self) -> str:
        """Which INT8 arithmetic the CPU does fast and exactly, as a key of QuantizeStatic.

        u8s8: x86 with VNNI. u8s8-reduced: x86 without it, where 8-bit weights saturate the 16-bit
        sums, so 7-bit ones. s8s8: ARM, whose dot products are signed.
        """
        if self.architecture == "arm":
            return "s8s8"
        vnni = any("vnni" in feature for feature in self.isa)
        return "u8s8" if vnni else "u8s8-reduced"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "transport": self.transport,
            "threads": self.threads,
            "cores": list(self.cores),
            "isa": list(self.isa),
        }


def load(name: str) -> Device:
    """The device profile of that name or path. Raises ProfileError."""
    try:
        path = library.find("devices", name)
    except InputError as error:
        raise ProfileError(error.what, error.why, error.fix) from error
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise ProfileError(f"{path} is not valid TOML", str(error)) from error
    known = ("transport", "threads", "cores", "isa")
    for key in table:
        if key not in known:
            raise ProfileError(f"{path.name}: no key '{key}'", "", did_you_mean(key, known))
    transport = table.get("transport", "local")
    if transport not in TRANSPORTS:
        raise ProfileError(
            f"{path.name}: transport cannot be {shown(transport)}",
            f"it is {' or '.join(TRANSPORTS)}",
        )
    threads = table.get("threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
        raise ProfileError(f"{path.name}: threads must be a whole number, 1 to 1024")
    cores = _list(table, "cores", int, path)
    missing = set(cores) - set(range(probe.cores()))
    if missing:
        raise ProfileError(
            f"{path.name}: there is no core {shown(min(missing))}, only {probe.cores()}"
        )
    isa = _list(table, "isa", str, path) or probe.isa()
    return Device(
        name=path.stem, transport=transport, threads=threads, cores=tuple(cores), isa=tuple(isa)
    )


def _list(table: dict[str, Any], key: str, kind: type, path: Path) -> tuple[Any, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        things = "whole numbers" if kind is int else "texts"
        raise ProfileError(f"{path.name}: {key} must be a list of {things}, not {shown(value)}")
    return tuple(value)
