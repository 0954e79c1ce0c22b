"""What this machine is: CPU, ISA, memory and versions, read without importing anything heavy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

# The packages that hold an `onnxruntime` module. Each writes the same folder: one an environment.
DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")

# The features that decide how INT8 is done; the full list is long and says little.
RELEVANT = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_tile",
            "asimddp", "i8mm", "sve", "asimdhp")  # fmt: skip


def architecture() -> str:
    """`x86`, `arm`, or what the machine calls itself."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i686"):
        return "x86"
    return "arm" if machine.startswith(("aarch64", "arm")) else machine


def cores() -> int:
    """How many logical CPUs this machine has."""
    return os.cpu_count() or 1


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


@cache
def isa() -> tuple[str, ...]:
    """The CPU's features that matter for INT8, named as the kernel names them."""
    info = _cpuinfo()
    features = set((info.get("flags") or info.get("Features") or "").split())
    return tuple(feature for feature in RELEVANT if feature in features)


def cpu_model() -> str:
    """What the CPU is called, `unknown` where the system does not say."""
    info = _cpuinfo()
    return info.get("model name") or info.get("Hardware") or platform.processor() or "unknown"


def memory_bytes() -> int:
    """This machine's memory in bytes; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def fingerprint() -> dict[str, Any]:
    """The host as a report names it. No serial numbers, no host name."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "architecture": platform.machine(),
        "isa": list(isa()),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


@cache
def gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs with their driver's version, as its own tool names them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def host(provider: str) -> dict[str, Any]:
    """The fingerprint, with the GPUs where the execution provider uses them."""
    names = gpus() if provider in ("cuda", "tensorrt", "directml") else ()
    return {**fingerprint(), **({"gpu": list(names)} if names else {})}


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by package name; a package that is absent has none.

    For onnxruntime those of its variants, such as onnxruntime-gpu, stand too.
    """
    installed = {}
    asked = [
        package
        for name in packages
        for package in (DISTRIBUTIONS if name == "onnxruntime" else (name,))
    ]
    for name in asked:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed
