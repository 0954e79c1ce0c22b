"""/proc/cpuinfo: which cores a device has, and which of their features matter."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

# The features that decide how INT8 and float16 are done, as the kernel names them.
RELEVANT = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_tile",
    "asimddp", "i8mm", "asimdhp", "fphp", "bf16", "sve", "sve2", "sme",
)  # fmt: skip

# MIDR's implementer and part, as util-linux' lscpu names them. Both are the registers' own codes.
PARTS: Mapping[tuple[int, int], str] = {
    (0x41, 0xC07): "Cortex-A7", (0x41, 0xC08): "Cortex-A8", (0x41, 0xC09): "Cortex-A9",
    (0x41, 0xC0E): "Cortex-A17", (0x41, 0xC0F): "Cortex-A15", (0x41, 0xD01): "Cortex-A32",
    (0x41, 0xD02): "Cortex-A34", (0x41, 0xD03): "Cortex-A53", (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55", (0x41, 0xD06): "Cortex-A65", (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72", (0x41, 0xD09): "Cortex-A73", (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76", (0x41, 0xD0C): "Neoverse-N1", (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD0E): "Cortex-A76AE", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE", (0x41, 0xD44): "Cortex-X1", (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710", (0x41, 0xD48): "Cortex-X2", (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4A): "Neoverse-E1", (0x41, 0xD4B): "Cortex-A78C", (0x41, 0xD4C): "Cortex-X1C",
    (0x41, 0xD4D): "Cortex-A715", (0x41, 0xD4E): "Cortex-X3", (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520", (0x41, 0xD81): "Cortex-A720", (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD83): "Neoverse-V3AE", (0x41, 0xD84): "Neoverse-V3", (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725", (0x41, 0xD88): "Cortex-A520AE", (0x41, 0xD89): "Cortex-A720AE",
    (0x41, 0xD8A): "C1-Nano", (0x41, 0xD8B): "C1-Pro", (0x41, 0xD8C): "C1-Ultra",
    (0x41, 0xD8E): "Neoverse-N3", (0x41, 0xD8F): "Cortex-A320", (0x41, 0xD90): "C1-Premium",
    (0x46, 0x001): "A64FX", (0x48, 0xD01): "TaiShan-v110", (0x48, 0xD40): "Cortex-A76",
    (0x48, 0xD41): "Cortex-A77", (0x4E, 0x000): "Denver", (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel", (0x51, 0x001): "Oryon", (0x51, 0x06F): "Krait",
    (0x51, 0x201): "Kryo", (0x51, 0x205): "Kryo", (0x51, 0x211): "Kryo",
    (0x51, 0x800): "Kryo-2XX-Gold", (0x51, 0x801): "Kryo-2XX-Silver",
    (0x51, 0x802): "Kryo-3XX-Gold", (0x51, 0x803): "Kryo-3XX-Silver",
    (0x51, 0x804): "Kryo-4XX-Gold", (0x51, 0x805): "Kryo-4XX-Silver", (0x51, 0xC00): "Falkor",
    (0x53, 0x001): "Exynos-M1", (0x53, 0x002): "Exynos-M3", (0x53, 0x003): "Exynos-M4",
    (0x53, 0x004): "Exynos-M5", (0x61, 0x022): "Apple M1 Icestorm",
    (0x61, 0x023): "Apple M1 Firestorm", (0x61, 0x024): "Apple M1 Pro Icestorm",
    (0x61, 0x025): "Apple M1 Pro Firestorm", (0x61, 0x028): "Apple M1 Max Icestorm",
    (0x61, 0x029): "Apple M1 Max Firestorm", (0x61, 0x032): "Apple M2 Blizzard",
    (0x61, 0x033): "Apple M2 Avalanche", (0x61, 0x034): "Apple M2 Pro Blizzard",
    (0x61, 0x035): "Apple M2 Pro Avalanche", (0xC0, 0xAC3): "Ampere-1", (0xC0, 0xAC4): "Ampere-1a",
}  # fmt: skip

# What QEMU's `-cpu max` calls itself where nothing runs on hardware.
QEMU_MAX = (0x00, 0x051)

OFFLINE = "offline core"
_MOST = 4096  # cores: a number above it in a damaged file must not fill the memory


class Cpus(NamedTuple):
    """clusters: (name, count, MHz at most or None), in the order of the cores' numbers."""

    clusters: tuple[tuple[str, int, int | None], ...]
    cores: int
    isa: tuple[str, ...]
    hardware: str
    parts: frozenset[tuple[int, int]]


def parse(text: str, megahertz: Mapping[int, int] | None = None) -> Cpus:
    """What /proc/cpuinfo says; megahertz: of each core, by its number, at most."""
    speeds = megahertz or {}
    blocks, common = _blocks(text)
    numbers = range(max(blocks) + 1) if blocks else range(0)
    # Clusters are runs, not sums: whoever pins a process counts cores along them.
    named = [
        (_name({**common, **blocks[at]}) if at in blocks else OFFLINE, speeds.get(at))
        for at in numbers
    ]
    clusters = tuple((*key, len(list(run))) for key, run in groupby(named))
    every = [{**common, **block} for block in blocks.values()] or [common]
    # Clusters of one system may differ: a process may run on any.
    features = set.intersection(*({*_features(item)} for item in every))
    return Cpus(
        clusters=tuple((name, count, speed) for name, speed, count in clusters),
        cores=len(numbers),
        isa=tuple(item for item in RELEVANT if item in features),
        hardware=common.get("Hardware") or common.get("Model") or "",
        parts=frozenset(part for item in every if (part := _part(item)) is not None),
    )


def _blocks(text: str) -> tuple[dict[int, dict[str, str]], dict[str, str]]:
    """What is said of each core by its number, and what is said of all.

    32-bit ARM kernels before 3.8 say what the cores are once, after the last of them.
    """
    blocks: dict[int, dict[str, str]] = {}
    common: dict[str, str] = {}
    current = common
    for line in text.splitlines():
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not colon:
            current = common
        elif key == "processor" and value.isdecimal() and len(value) < 5 and int(value) < _MOST:
            current = blocks.setdefault(int(value), {})
        else:
            current.setdefault(key, value)
    return blocks, common


def _features(info: Mapping[str, str]) -> list[str]:
    return (info.get("flags") or info.get("Features") or "").split()


def _part(info: Mapping[str, str]) -> tuple[int, int] | None:
    try:
        return int(info["CPU implementer"], 16), int(info["CPU part"], 16)
    except (KeyError, ValueError):
        return None


def _name(info: Mapping[str, str]) -> str:
    part = _part(info)
    if part is None:
        # An ARM kernel's own name for a core, "ARMv8 Processor rev 0 (v8l)", says less than a part.
        return info.get("model name") or info.get("Processor") or info.get("cpu model") or "unknown"
    return PARTS.get(part, f"{part[0]:#04x}:{part[1]:#05x}")
