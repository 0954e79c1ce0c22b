"""What a device is: model, processor, memory, system; and whether anything of it is emulated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from workbench.device.health import cpuinfo
from workbench.device.health.sections import ask, megahertz, script, whole
from workbench.errors import DeviceError

if TYPE_CHECKING:
    from workbench.device.transport.base import Transport

# No serial number leaves the device: of its properties only those asked for.
PROPERTIES = (
    "ro.product.manufacturer", "ro.product.model", "ro.product.marketname", "ro.soc.manufacturer",
    "ro.soc.model", "ro.board.platform", "ro.build.version.release", "ro.build.version.sdk",
    "ro.kernel.qemu", "ro.boot.qemu", "ro.hardware", "ro.build.characteristics",
)  # fmt: skip
_PATTERN = "|".join(map(re.escape, PROPERTIES))

SCRIPT = script(
    ("uname", "uname -s; uname -m; uname -r"),
    ("properties", f"command -v getprop >/dev/null && getprop | grep -E '^\\[({_PATTERN})\\]'"),
    ("cpuinfo", "cat /proc/cpuinfo"),
    ("memory", "grep MemTotal /proc/meminfo || cat /proc/meminfo"),
    ("frequencies", "for c in /sys/devices/system/cpu/cpu[0-9]*; do m=; "
                    "read -r m <$c/cpufreq/cpuinfo_max_freq; echo ${c##*/cpu} $m; done"),
    ("board", "cat /proc/device-tree/model"),
    ("compatible", "cat /proc/device-tree/compatible"),
    ("dmi", "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name"),
    # A user-mode emulator hides itself from a process that asks of itself: `head` asks of $$.
    ("interpreter", "head -c 200 /proc/$$/cmdline"),
)  # fmt: skip

_INTERPRETERS = re.compile(r"qemu-|.*-binfmt|rosetta|FEX|box(64|86)", re.IGNORECASE)
_UNFILLED = ("To Be Filled By O.E.M.", "Default string", "System Product Name",
             "System manufacturer", "Not Specified")  # fmt: skip
_VIRTUAL = ("goldfish", "ranchu", "cutf", "vsoc", "vbox86", "ttvm", "nox")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a device says of itself.

    Attributes:
        system: `linux` or `android`.
        cpus: (part, count, MHz at most or None), runs of like cores in the order of their numbers.
        architecture: `arm`, `x86`, or what the machine calls itself.
        isa: the features that matter for INT8 and float16, as the kernel names them, that all cores
            have.
        release: of the kernel, or of Android with its API level.
        emulator: why its times say nothing, or nothing.
    """

    system: str
    model: str
    soc: str
    cpus: tuple[tuple[str, int, int | None], ...]
    cores: int
    architecture: str
    isa: tuple[str, ...]
    memory_bytes: int
    release: str
    emulated: bool = False
    emulator: str = ""


def identify(transport: Transport) -> Identity:
    """Ask a device what it is, in one round trip.

    Raises DeviceError where it cannot be talked to, or runs neither Linux nor Android.
    """
    sections = ask(transport, SCRIPT)
    kernel = sections.get("uname", "").split("\n")[0].strip()
    if kernel != "Linux" and not _properties(sections.get("properties", "")):
        raise DeviceError(
            f"{transport.name} runs {kernel or 'an unknown system'}, not Linux or Android",
            "wb reads /proc, /sys and Android's own services to know what it measures",
            "measure on a machine that runs Linux, or on a phone over adb",
        )
    return parse(sections)


def parse(sections: Mapping[str, str]) -> Identity:
    """The identity in the parts that SCRIPT printed; what is missing is '' or 0."""
    uname = [line.strip() for line in sections.get("uname", "").split("\n")]
    _, machine, release = (*uname, "", "", "")[:3]
    properties = _properties(sections.get("properties", ""))
    speeds = frequencies(sections.get("frequencies", ""))
    cpus = cpuinfo.parse(sections.get("cpuinfo", ""), speeds)
    emulator = _emulator(properties, sections.get("interpreter", ""), cpus)
    android = bool(
        properties.get("ro.build.version.sdk") or properties.get("ro.build.version.release")
    )
    name = cpus.clusters[0][0] if cpus.clusters else ""
    return Identity(
        system="android" if android else "linux",
        model=_android_model(properties) if android else _board(sections) or cpus.hardware or name,
        soc=_android_soc(properties, cpus.hardware)
        if android
        else _soc(sections.get("compatible", "")),
        cpus=cpus.clusters,
        cores=cpus.cores or len(speeds),
        architecture=architecture(machine),
        isa=cpus.isa,
        memory_bytes=memory(sections.get("memory", "")),
        release=_android_release(properties) if android else release,
        emulated=bool(emulator),
        emulator=emulator,
    )


def architecture(machine: str) -> str:
    """`x86`, `arm`, or the machine's own word, of what `uname -m` prints."""
    machine = machine.lower()
    if machine in ("x86_64", "amd64", "i386", "i486", "i586", "i686"):
        return "x86"
    return "arm" if machine.startswith(("aarch64", "arm")) else machine


def frequencies(text: str) -> dict[int, int]:
    """MHz at most by core, of lines such as `4 2419200`; cores that tell none are left out."""
    speeds = {}
    for line in text.splitlines():
        words = line.split()
        core = whole(words[0]) if len(words) == 2 else None
        speed = megahertz(words[1]) if core is not None and core >= 0 else None
        if core is not None and speed is not None:
            speeds[core] = speed
    return speeds


def memory(text: str) -> int:
    """Bytes of memory, of /proc/meminfo; 0 where it does not say."""
    match = re.search(r"^MemTotal:\s*([0-9]{1,15})\s*kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _properties(text: str) -> dict[str, str]:
    """Android's properties, as getprop lists them."""
    pairs = re.findall(r"^\[([^\]\n]+)\]: \[(.*)\]$", text, re.MULTILINE)
    return {name: value.strip() for name, value in pairs if value.strip()}


def _android_model(properties: Mapping[str, str]) -> str:
    model = properties.get("ro.product.marketname") or properties.get("ro.product.model", "")
    maker = properties.get("ro.product.manufacturer", "")
    if maker in ("", "unknown") or model.lower().startswith(maker.lower()):
        return model
    return f"{maker} {model}".strip()


def _android_soc(properties: Mapping[str, str], hardware: str) -> str:
    model = properties.get("ro.soc.model", "")
    if model:
        return f"{properties.get('ro.soc.manufacturer', '')} {model}".strip()
    return hardware or properties.get("ro.board.platform") or properties.get("ro.hardware", "")


def _android_release(properties: Mapping[str, str]) -> str:
    level = properties.get("ro.build.version.sdk", "")
    release = properties.get("ro.build.version.release", "")
    return f"{release} (API {level})".strip() if level else release


def _board(sections: Mapping[str, str]) -> str:
    """A board's name for itself, or a PC's, where its maker filled it in."""
    board = sections.get("board", "").strip()
    if board:
        return board.split("\n")[0]
    words = [line.strip() for line in sections.get("dmi", "").split("\n")]
    return " ".join(dict.fromkeys(word for word in words if word and word not in _UNFILLED))


def _soc(compatible: str) -> str:
    """The last, most general, name of a device tree: `brcm,bcm2712` gives bcm2712."""
    names = compatible.split()
    return names[-1].rpartition(",")[2] if names else ""


def _emulator(properties: Mapping[str, str], interpreter: str, cpus: cpuinfo.Cpus) -> str:
    """Why a device's times say nothing of the hardware that it shows; '' where they do."""
    first = PurePosixPath(interpreter.strip().split("\n")[0].strip()).name
    if _INTERPRETERS.match(first):
        return f"its programs run in {first}, a user-mode emulator"
    hardware = properties.get("ro.hardware", "").lower()
    if "1" in (properties.get("ro.kernel.qemu"), properties.get("ro.boot.qemu")):
        return "an Android emulator (ro.kernel.qemu or ro.boot.qemu is 1)"
    if hardware.startswith(_VIRTUAL):
        return f"an Android emulator (ro.hardware is {hardware})"
    if "emulator" in properties.get("ro.build.characteristics", "").split(","):
        return "an Android emulator (ro.build.characteristics says so)"
    names = " ".join(name for name, _, _ in cpus.clusters)
    if cpuinfo.QEMU_MAX in cpus.parts or re.search(r"QEMU (Virtual|TCG) CPU", names):
        return "its processor is QEMU's own"
    return ""
