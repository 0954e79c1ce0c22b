"""`Device`: a profile read from `devices/*.toml`. Unknown keys are errors."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench import library
from workbench.device import probe
from workbench.device.providers import PROVIDERS
from workbench.errors import InputError, ProfileError, did_you_mean, shown

TRANSPORTS = ("local",)


@dataclass(frozen=True, kw_only=True)
class Device:
    """How to reach a device, what runs there, and what its CPU can do.

    threads: intra-op threads of a runtime. cores: CPU numbers that measuring processes are pinned
    to, none by default. isa: CPU features such as `avx512_vnni`, probed where absent. provider:
    the execution provider that ONNX Runtime gives the nodes to first, a key of
    `providers.PROVIDERS`. options: of that provider, as ONNX Runtime names and spells them.
    """

    name: str
    transport: str = "local"
    threads: int = 1
    cores: tuple[int, ...] = ()
    isa: tuple[str, ...] = field(default=())
    provider: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def runtime(self) -> tuple[str, dict[str, str]]:
        """What of the device decides the outputs of a file, for the keys of what is cached."""
        return self.provider, dict(self.options)

    @property
    def architecture(self) -> str:
        return probe.architecture()

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
        place = self.options.get("device_type", "CPU")
        if self.provider == "openvino" and not place.startswith("CPU"):
            return "u8s8"
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
            "provider": self.provider,
            "options": dict(self.options),
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
    known = ("transport", "threads", "cores", "isa", "provider", "options")
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
    provider = table.get("provider", "cpu")
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise ProfileError(
            f"{path.name}: provider cannot be {shown(provider)}",
            "",
            did_you_mean(str(provider)[:80] if isinstance(provider, str) else "", PROVIDERS),
        )
    return Device(
        name=path.stem,
        transport=transport,
        threads=threads,
        cores=tuple(cores),
        isa=tuple(isa),
        provider=provider,
        options=_options(table, provider, path),
    )


def _options(table: dict[str, Any], provider: str, path: Path) -> dict[str, str]:
    """A provider's options as the texts that ONNX Runtime takes."""
    given = table.get("options", {})
    if not isinstance(given, dict):
        raise ProfileError(f"{path.name}: options must be a table, not {shown(given)}")
    if given and provider == "cpu":
        raise ProfileError(
            f"{path.name}: options are given without a provider",
            "ONNX Runtime's CPU has none that are kept here",
            f"add provider = …, one of {', '.join(PROVIDERS)}",
        )
    found = {}
    for key, value in given.items():
        if isinstance(value, bool):
            # CoreML's source compares with "1"; the others understand True, TensorRT nothing else.
            text = str(int(value)) if provider == "coreml" else str(value)
        elif isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63):
            text = str(value)
        else:
            raise ProfileError(
                f"{path.name}: option {shown(key)} cannot be {shown(value)}",
                "ONNX Runtime takes texts, whole numbers, true and false",
            )
        if "\0" in key + text:
            raise ProfileError(f"{path.name}: option {shown(key)} holds a null character")
        found[key] = text
    return found


def _list(table: dict[str, Any], key: str, kind: type, path: Path) -> tuple[Any, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(type(item) is kind for item in value):
        things = "whole numbers" if kind is int else "texts"
        raise ProfileError(f"{path.name}: {key} must be a list of {things}, not {shown(value)}")
    return tuple(value)
