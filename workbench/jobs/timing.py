"""The job that times a target: loading, the first inference, and the ones after it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from workbench.artifact import Artifact
from workbench.device.profile import Device
from workbench.device.session import open_session
from workbench.errors import ModelError
from workbench.jobs.inference import running_target
from workbench.model import PACKAGES, ModelSource
from workbench.progress import Progress


def measure_latency(
    target: Artifact | ModelSource,
    inputs: Any,
    device: Device,
    warmup: int,
    runs: int,
    seconds: float,
    progress: Progress,
) -> dict[str, Any]:
    """Load a target and time it, one sample a run, until `runs` and `seconds` are both reached.

    Times in nanoseconds; peak memory is what loading and running added to the process, in bytes.
    """
    if device.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, device.cores)
    _import_runtime(target)
    before = _reset_peak()
    clock = time.perf_counter_ns
    started = clock()
    session = open_session(target, device.threads, inputs, device)
    loaded = clock() - started
    with running_target(target):
        prepared = session.prepare(inputs)
        started = clock()
        session.run(prepared)
        first = clock() - started
    for _ in range(warmup):
        session.run(prepared)
    samples: list[int] = []
    deadline = clock() + int(seconds * 1e9)
    while len(samples) < runs or clock() < deadline:
        started = clock()
        session.run(prepared)
        samples.append(clock() - started)
    return {
        "load_ns": loaded,
        "first_ns": first,
        "samples_ns": samples,
        "peak_bytes": max(0, peak_memory() - before),
    }


def _import_runtime(target: Artifact | ModelSource) -> None:
    """Pay for imports before the clock starts: an app links its runtime, it does not import it."""
    if isinstance(target, ModelSource) or target.format in ("torchscript", "pt2"):
        import torch

        torch.ones(1) + 1
        kind = target.kind if isinstance(target, ModelSource) else target.format
        if kind == "pt2":
            import torch.export.pt2_archive._package  # the reader and its schema
        if kind in PACKAGES:
            from workbench.sources import packages

            packages.warm(kind)
    elif target.format == "tflite":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="ignore").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ModelError(f"/proc/self/status has no {field}")


def _reset_peak() -> int:
    """Start the peak anew, where the kernel lets us; the memory in use now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return peak_memory()


def peak_memory() -> int:
    """The most memory that this process has held, in bytes, since it began or was reset."""
    try:
        return _status("VmHWM")
    except OSError:
        import resource
        import sys

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
