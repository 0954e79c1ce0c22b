"""`Device`: a profile read from `devices/*.toml`. Unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from workbench import library
from workbench.device import probe
from workbench.device.providers import PROVIDERS, option_texts
from workbench.errors import InputError, ProfileError, shown
from workbench.options import Between
from workbench.toml_keys import Keys, read_table

TRANSPORTS = ("local", "ssh", "adb")
RUNNERS = ("python", "native", "benchmark_model")
# ONNX Runtime's names of the providers that a runner on a device can ask for by name.
THERE = ("cpu", "xnnpack")
# The keys of a profile.
NAMES = (
    "transport", "host", "port", "serial", "runner", "threads", "cores", "architecture", "isa",
    "provider", "options", "libraries", "folder", "capacity_mb", "limits", "tags", "class",
    "emulated",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Library:
    """A file that a runner needs: on the device already, or here and pushed to it.

    Attributes:
        sha256: what it must have where it is given; checked before it is used.
    """

    path: str
    pushed: bool
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When measuring waits, stops or is repeated.

    Attributes:
        cool_down: seconds between two processes.
        temperature: degrees Celsius above which a round does not begin.
        battery: percent below which a device that does not charge is left alone.
        timeout: seconds that one process may take.
        wait: seconds to wait for a device that is too hot.
        retries: how often a process is tried again after its device was lost, and a round after it
            was throttled.
    """

    cool_down: float = 0.0
    temperature: float | None = None
    battery: float | None = None
    timeout: float = 600.0
    wait: float = 600.0
    retries: int = 2


@dataclass(frozen=True, kw_only=True)
class Device:
    """How to reach a device, what runs there, and what its CPU can do.

    Attributes:
        transport: `local`, `ssh` (to `host`, as the user's ssh knows it, and `port`) or `adb` (to
            `serial`, the only one attached without).
        runner: `python` runs artifacts in this machine's packages, or in the device's own; `native`
            is the runner in C; `benchmark_model` is LiteRT's.
        threads: intra-op threads of a runtime.
        cores: CPU numbers that measuring processes are pinned to, none by default.
        machine, isa: its architecture (`x86`, `arm`) and CPU features such as `avx512_vnni`, probed
            where absent.
        provider: the execution provider that ONNX Runtime gives the nodes to first, a key of
            `providers.PROVIDERS`.
        options: of that provider, as ONNX Runtime names and spells them.
        libraries: what its runner needs there, by name.
        folder: where files go on the device, and capacity_mb how much of them stays.
        tags, group: names to choose devices by, the group being `class` in the file.
        emulated: its times mean nothing; probed too.
    """

    name: str
    transport: str = "local"
    host: str = ""
    port: int | None = None
    serial: str = ""
    runner: str = "python"
    threads: int = 1
    cores: tuple[int, ...] = ()
    machine: str = ""
    isa: tuple[str, ...] = field(default=())
    provider: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, Library] = field(default_factory=dict)
    folder: str = ""
    capacity_mb: int = 2000
    limits: Limits = field(default_factory=Limits)
    tags: tuple[str, ...] = ()
    group: str = ""
    emulated: bool = False

    @property
    def remote(self) -> bool:
        """Whether artifacts run through a runner and not in this package's own processes."""
        return self.transport != "local" or self.runner != "python"

    @property
    def address(self) -> str:
        """What tells one device from another, whatever its profile is called."""
        if self.transport == "ssh":
            return f"ssh {self.host}" + (f" port {self.port}" if self.port else "")
        if self.transport == "adb":
            return f"adb {self.serial or 'the only one'}"
        return "local"

    @property
    def lock(self) -> str:
        """The name of the lock that one who measures there holds: profiles may share a device."""
        import hashlib

        return f"device-{hashlib.sha256(self.address.encode()).hexdigest()[:16]}"

    @property
    def runtime(self) -> tuple[str, dict[str, str]]:
        """What of the device decides the outputs of a file, for the keys of what is cached."""
        return self.provider, dict(self.options)

    @property
    def architecture(self) -> str:
        """`x86`, `arm`, or what the machine calls itself; '' of one that was not asked yet."""
        return self.machine or ("" if self.transport != "local" else probe.architecture())

    @property
    def quantization(self) -> str:
        """Which INT8 arithmetic the device does fast and exactly, as a key of QuantizeStatic.

        u8s8: x86 with VNNI. u8s8-reduced: x86 without it, where 8-bit weights saturate the 16-bit
        sums, so 7-bit ones. s8s8: ARM, whose dot products are signed. s8s8-symmetric: zero points
        of 0.

        CoreML and DirectML leave INT8 operators to the CPU or compute them in float: the CPU's
        arithmetic decides.
        """
        # "ONNX Runtime quantization on GPU only supports S8S8" (its quantization page); TensorRT
        # moreover takes no zero point but 0 ("symmetric", its page on quantized types).
        if self.provider in ("cuda", "tensorrt"):
            return "s8s8-symmetric"
        # Its kernels are qs8, qc8 (a scale for each channel) and qu8, where both are unsigned: none
        # takes unsigned activations with signed weights (onnxruntime, providers/xnnpack/nn/conv).
        if self.provider == "xnnpack":
            return "s8s8"
        # OpenVINO on a CPU uses the same instructions, and saturates where they do; its GPUs and
        # NPUs compute unsigned activations with signed weights exactly.
        target = self.options.get("device_type", "CPU")
        if self.provider == "openvino" and not target.startswith("CPU"):
            return "u8s8"
        if self.architecture == "arm":
            return "s8s8"
        vnni = any("vnni" in feature for feature in self.isa)
        return "u8s8" if vnni else "u8s8-reduced"

    def to_json(self) -> dict[str, Any]:
        """The device as reports and cache keys have it."""
        facts: dict[str, Any] = {
            "name": self.name,
            "transport": self.transport,
            "threads": self.threads,
            "cores": list(self.cores),
            "isa": list(self.isa),
            "provider": self.provider,
            "options": dict(self.options),
        }
        if self.remote:
            facts |= {
                "address": self.address,
                "runner": self.runner,
                "architecture": self.architecture,
                "emulated": self.emulated,
            }
        return facts


def load(name: str) -> Device:
    """The device profile of that name or path. Raises ProfileError."""
    try:
        path = library.find("devices", name)
    except InputError as error:
        raise ProfileError(error.what, error.why, error.fix) from error
    return read(path)


def read(path: Path) -> Device:
    """The device profile in a file. Raises ProfileError."""
    try:
        table = read_table(path, ProfileError)
    except OSError as error:
        raise ProfileError(f"{path} is not valid TOML", str(error)) from error
    keys = Keys(table=table, path=path, names=NAMES, error=ProfileError)
    transport = keys.one_of("transport", TRANSPORTS, "local")
    local = transport == "local"
    runner = keys.one_of("runner", RUNNERS, "python" if local else "native")
    provider = keys.nearest_of("provider", PROVIDERS, "cpu")
    device = Device(
        name=path.stem,
        transport=transport,
        host=keys.text("host"),
        port=keys.value("port", Annotated[int, Between(1, 65535)]),
        serial=keys.text("serial"),
        runner=runner,
        threads=keys.value("threads", Annotated[int, Between(1, 1024)], 1),
        cores=keys.values("cores", int),
        machine=keys.text("architecture"),
        isa=keys.values("isa", str) or (probe.isa() if local else ()),
        provider=provider,
        options=option_texts(keys, provider),
        libraries=_libraries(keys),
        folder=keys.text("folder"),
        capacity_mb=keys.value("capacity_mb", Annotated[int, Between(1, 1 << 20)], 2000),
        limits=_limits(keys),
        tags=keys.values("tags", str),
        group=keys.text("class"),
        emulated=keys.value("emulated", bool, default=False),
    )
    _check(device, table, path)
    return device


def _check(device: Device, table: Mapping[str, Any], path: Path) -> None:
    """What two keys together must not say."""
    owners = {"host": "ssh", "port": "ssh", "serial": "adb"}
    for key, transport in owners.items():
        if key in table and device.transport != transport:
            raise ProfileError(
                f"{path.name}: {key} is given, and transport is {device.transport}",
                f"{key} is for {transport}",
                f'set transport = "{transport}", or leave {key} out',
            )
    if device.transport == "ssh" and not device.host:
        raise ProfileError(
            f"{path.name}: no host", "transport is ssh", 'add host = "…", as you type it after ssh'
        )
    count = probe.cores() if device.transport == "local" else 4096
    missing = set(device.cores) - set(range(count))
    if missing:
        raise ProfileError(f"{path.name}: there is no core {shown(min(missing))}, only {count}")
    if device.remote and device.provider not in THERE:
        raise ProfileError(
            f"{path.name}: provider {device.provider} with runner {device.runner}",
            "a runner on a device asks ONNX Runtime for the CPU or for XNNPACK",
            f"use one of {', '.join(THERE)}, or transport local with runner python",
        )
    if device.runner == "benchmark_model" and "benchmark_model" not in device.libraries:
        raise ProfileError(
            f"{path.name}: runner benchmark_model, and no libraries.benchmark_model",
            "LiteRT's tool is not in this package",
            'add under [libraries]: benchmark_model = { push = "FILE", sha256 = "…" }',
        )
    tool = device.libraries.get("benchmark_model")
    if tool is not None and not tool.sha256:
        raise ProfileError(
            f"{path.name}: libraries.benchmark_model has no sha256",
            "it is a program that wb runs on the device",
            "add its digest: sha256 = \"…\" ('sha256sum FILE' prints it)",
        )


LIBRARIES = ("onnxruntime", "litert", "benchmark_model", "python", "runner")


def _libraries(keys: Keys) -> dict[str, Library]:
    file, libraries = keys.path.name, {}
    for name in (table := keys.inner("libraries", LIBRARIES)).table:
        entry = table.inner(name, ("path", "push", "sha256"))
        there, here = entry.text("path"), entry.text("push")
        if bool(there) == bool(here):
            raise ProfileError(
                f"{file}: libraries.{name} needs one of path and push",
                "path is where it is on the device, push a file here that is copied to it",
            )
        if here:
            here = str((keys.path.parent / Path(here).expanduser()).resolve())
        digest = entry.text("sha256").lower()
        if digest and (len(digest) != 64 or set(digest) - set("0123456789abcdef")):
            raise ProfileError(f"{file}: libraries.{name}.sha256 is not 64 hexadecimal digits")
        libraries[name] = Library(path=there or here, pushed=bool(here), sha256=digest)
    return libraries


def _limits(keys: Keys) -> Limits:
    table = keys.inner(
        "limits", ("cool_down", "temperature", "battery", "timeout", "wait", "retries")
    )
    default = Limits()
    return Limits(
        cool_down=table.number("cool_down", 0, 3600, default.cool_down),
        temperature=table.number("temperature", 0, 150),
        battery=table.number("battery", 0, 100),
        timeout=table.number("timeout", 1, 86_400, default.timeout),
        wait=table.number("wait", 0, 86_400, default.wait),
        retries=table.value("retries", Annotated[int, Between(0, 20)], default.retries),
    )
