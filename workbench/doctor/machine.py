"""`wb doctor`'s lines on the machine: CPU, GPU, execution providers, tools and folders."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Literal

from workbench import cache
from workbench.device import probe, profile
from workbench.device.providers import PROVIDERS

Verdict = Literal["ok", "note", "warning", "missing"]
# note: optional or simply a fact; missing: `wb recipe mobile-int8` needs it.
MARKS: dict[Verdict, str] = {"ok": "✓", "note": "·", "warning": "!", "missing": "✗"}

ROOM = 3 * 10**9  # bytes: a run's files, with some to spare


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line: what was looked at, the verdict on it, and the command that betters it.

    Attributes:
        group: the heading that it stands under.
        name: what was looked at.
        verdict: ok; note, for what is optional or simply a fact; warning; missing, for what
            `wb recipe mobile-int8` needs.
        finding: what is the case.
        fix: a command, '' where there is nothing to do.
    """

    group: str
    name: str
    verdict: Verdict
    finding: str
    fix: str = ""


X86 = (
    (("avx512_vnni", "avx_vnni"), "VNNI",
     "INT8 dot products: static INT8 as u8s8, with all 8 bits of the weights",
     "INT8 sums saturate at 16 bits: weights get 7 bits (u8s8-reduced), and INT8 gains less"),
    (("amx_int8",), "AMX", "INT8 matrix tiles: large MatMuls are faster still",
     "INT8 MatMul goes through VNNI or AVX2"),
    (("avx512f",), "AVX-512", "float kernels 16 wide", "float kernels 8 wide"),
    (("avx2",), "AVX2", "the least that the INT8 kernels are fast with",
     "INT8 and float kernels fall back to SSE: expect slow figures"),
)  # fmt: skip
ARM = (
    (("asimddp",), "dotprod", "signed INT8 dot products: static INT8 as s8s8",
     "INT8 multiplies in 16 bits: as exact, and slower"),
    (("i8mm",), "i8mm", "INT8 matrix products: faster than dotprod",
     "INT8 MatMul goes through dotprod, where that is"),
    (("asimdhp",), "fp16", "float16 arithmetic: FP16 files can be faster",
     "float16 is computed in float32: FP16 files are smaller, not faster"),
)  # fmt: skip


def machine() -> Iterator[Check]:
    """The processor with its features, the scheme of INT8 that follows from them, and the GPUs."""
    group = "This machine"
    gib = probe.memory_bytes() / 2**30
    yield Check(
        group=group,
        name="CPU",
        verdict="ok",
        finding=f"{probe.cpu_model()}, {probe.cores()} cores, {gib:.1f} GiB, {platform.machine()}",
    )
    isa = probe.isa()
    features = {"x86": X86, "arm": ARM}.get(probe.architecture(), ())
    if not isa:
        yield Check(
            group=group, name="ISA", verdict="note", finding="its features cannot be read here"
        )
    for names, label, present, absent in features if isa else ():
        here = any(name in isa for name in names)
        yield Check(
            group=group,
            name=label,
            verdict="ok" if here else "note",
            finding=present if here else f"absent: {absent}",
        )
    yield Check(
        group=group,
        name="INT8",
        verdict="ok",
        finding=f"quantize.scheme=auto is {profile.load('cpu').quantization} here",
    )
    gpus = probe.gpus()
    yield Check(
        group=group,
        name="GPU",
        verdict="ok" if gpus else "note",
        finding="; ".join(gpus) or "no NVIDIA GPU found (nvidia-smi)",
    )
    yield Check(group=group, name="torch's CUDA", verdict="note", finding=_torch())


def _torch() -> str:
    """Whether the installed torch is built for CUDA, without importing it."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "not here"
    try:
        text = Path(spec.origin).with_name("version.py").read_text(encoding="utf-8")
    except OSError:
        return "its version file cannot be read"
    built = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return f"built for CUDA {built[1]}" if built else "built without CUDA: eager runs on the CPU"


def providers(available: list[str] | None) -> Iterator[Check]:
    """ONNX Runtime's execution providers.

    available: by ONNX Runtime's names; None where onnxruntime does not load.
    """
    for name, provider in PROVIDERS.items():
        if available is None:
            finding, fix = "not known: onnxruntime does not load", ""
        elif provider.ort in available:
            finding, fix = "here", ""
        elif not provider.here:
            finding, fix = f"not for {sys.platform}: comes with {provider.source}", ""
        else:
            finding, fix = f"not here: comes with {provider.source}", provider.command
        yield Check(
            group="Execution providers (--device)",
            name=name,
            verdict="ok" if finding == "here" else "note",
            finding=finding,
            fix=fix,
        )


TOOLS = {
    "adb": ("Android phones", "adb", "android-platform-tools"),
    "ssh": ("devices over the network", "openssh-client", ""),
    "g++": ("compiling the C++ samples", "g++", "gcc"),
    "cmake": ("building the C++ samples", "cmake", "cmake"),
}


def tools() -> Iterator[Check]:
    """Programs that devices and code samples take, and the command that installs each."""
    for tool, (purpose, apt, brew) in TOOLS.items():
        path = shutil.which(tool)
        fix = ""
        if path is None and sys.platform == "darwin" and brew:
            fix = f"brew install {brew}"
        elif path is None and shutil.which("apt-get"):
            fix = f"apt-get install {apt}"
        yield Check(
            group="Tools",
            name=tool,
            verdict="ok" if path else "note",
            finding=path or f"not here: for {purpose}",
            fix=fix,
        )


def folders() -> Iterator[Check]:
    """The cache's folder: whether it is writable and has room."""
    folder = cache.root()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    try:
        with tempfile.TemporaryFile(dir=nearest):
            writable = True
    except OSError:
        writable = False
    verdict: Verdict = "missing" if not writable else "ok" if free >= ROOM else "warning"
    finding = f"{folder}, {free / 1e9:.1f} GB free"
    if not writable:
        finding += ", not writable"
    fix = {"missing": "export WB_CACHE=<a folder of yours>", "warning": "wb cache --clear"}
    yield Check(
        group="Folders", name="cache", verdict=verdict, finding=finding, fix=fix.get(verdict, "")
    )
