"""Timing of graphs in ONNX Runtime: side by side in this process, then in fresh ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkbenchError
from workbench.measure.latency import Latency, Preset, speedup
from workbench.progress import Progress, span_progress

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.samples import Feeds

Array = NDArray[Any]
Inputs = Mapping[str, Array]

ROUNDS = 11  # the fewest whose interval of the median leaves the two worst out
VISIT = 6e6  # nanoseconds that a graph runs for before the next has its turn
QUICK = 0.25  # what else runs only ever adds to a time: of caches and of the core's other thread
RUNS = 30  # of a profile
# Six processes are the fewest whose range covers the median; then three at a time, up to 18.
CONFIRM = Preset("confirm", processes=6, warmup=3, runs=10, seconds=0.15)
MORE, TIMES = 3, 4


def device_clock(device: Device) -> Callable[[], int]:
    """Nanoseconds: of CPU time where one thread does all, which what else runs does not change."""
    alone = device.threads == 1 and device.provider == "cpu"
    return time.thread_time_ns if alone else time.perf_counter_ns


@contextmanager
def pin_to_cores(device: Device) -> Iterator[None]:
    """On the device's cores meanwhile, where it names some and the system can."""
    if not device.cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, device.cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sample_to_time(ready: CalibratedNetwork) -> Feeds:
    """One calibration sample, or as many as the graph's first axis is fixed to."""
    feeds = ready.samples[ready.options.seed % len(ready.samples)]
    count = max(1, ready.network.fixed_batch)
    return {name: value[:count].contiguous() for name, value in feeds.items()}


def time_side_by_side(
    models: Mapping[str, bytes], inputs: Inputs, device: Device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Milliseconds of a run of each graph, one figure a round: the lower quartile of a short visit.

    Graphs take turns, so that drift of the machine meets all alike. One that ONNX Runtime refuses
    is left out.
    """
    now = device_clock(device)
    with pin_to_cores(device):
        visits = {
            name: visit
            for name, model in models.items()
            if (visit := _open_visit(model, inputs, device)) is not None
        }
        figures: dict[str, list[float]] = {name: [] for name in visits}
        for _ in range(rounds):
            for name, (session, count) in visits.items():
                times = []
                for _ in range(count):
                    begun = now()
                    session.run(None, inputs)
                    times.append(now() - begun)
                figures[name].append(float(np.quantile(times, QUICK)) / 1e6)
    return figures


def _open_visit(model: bytes, inputs: Inputs, device: Device) -> tuple[Any, int] | None:
    """A warm session and the number of its runs in a visit; None where it is refused."""
    from workbench.device.runtimes.ort import ort_session

    now = device_clock(device)
    try:
        session = ort_session(model, device.threads, device)
        for _ in range(2):
            session.run(None, inputs)
    except WorkbenchError:  # the device's, which no graph can change
        raise
    except Exception:  # noqa: BLE001  # ONNX Runtime raises what it likes
        return None
    begun = now()
    session.run(None, inputs)
    return session, int(np.clip(VISIT / max(now() - begun, 1), 1, 30))


def profile_events(
    model: bytes, inputs: Inputs, device: Device, folder: Path
) -> list[dict[str, Any]]:
    """The events of ONNX Runtime's profile of some runs of a graph, the first left out."""
    from workbench.device.runtimes.ort import ort_session

    with pin_to_cores(device):
        session = ort_session(model, device.threads, device, folder / "profile")
        for _ in range(RUNS):
            session.run(None, inputs)
        path = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(path.read_bytes())
    path.unlink()
    return events


@dataclass(frozen=True)
class Confirmation:
    """Latencies from fresh processes: of FP32 files and of placements.

    Attributes:
        baselines: names of the FP32 files.
        latencies: by name, or why there is none.
    """

    baselines: tuple[str, ...]
    latencies: Mapping[str, Latency | WorkbenchError]

    @property
    def measured(self) -> dict[str, Latency]:
        """By name, of what ran."""
        return {
            name: latency
            for name, latency in self.latencies.items()
            if isinstance(latency, Latency)
        }

    @property
    def is_decided(self) -> bool:
        """Whether a file is faster than every baseline beyond doubt, or all are slower than one."""
        measured = self.measured
        references = [latency for name, latency in measured.items() if name in self.baselines]
        others = [latency for name, latency in measured.items() if name not in self.baselines]
        if not references or not others:
            return True
        best = min(references, key=lambda latency: latency.median.value)
        ratios = [speedup(best, latency) for latency in others]
        return any(ratio.low >= 1 for ratio in ratios) or all(ratio.high < 1 for ratio in ratios)


def confirm_latencies(
    files: Mapping[str, Path],
    baselines: Sequence[str],
    inputs: Inputs,
    device: Device,
    spare: Callable[[], bool],
    progress: Progress,
) -> Confirmation:
    """Latency of each file in fresh processes, side by side.

    More processes while it is not decided and there is time.
    """
    from workbench.inspect.artifacts import open_artifact
    from workbench.measure.host import latencies

    targets = {name: open_artifact(path) for name, path in files.items()}
    confirmation = Confirmation(tuple(baselines), {})
    for number in range(1 + TIMES):
        preset = replace(CONFIRM, processes=MORE) if number else CONFIRM
        part = span_progress(progress, number / (1 + TIMES), (number + 1) / (1 + TIMES))
        more = latencies(targets, inputs, device, preset, part)
        joined = {
            name: _join(confirmation.latencies.get(name), latency) for name, latency in more.items()
        }
        confirmation = replace(confirmation, latencies=joined)
        if confirmation.is_decided or not spare():
            break
    return confirmation


def _join(
    before: Latency | WorkbenchError | None, more: Latency | WorkbenchError
) -> Latency | WorkbenchError:
    if isinstance(before, Latency) and isinstance(more, Latency):
        return replace(more, processes=before.processes + more.processes)
    return more if before is None or isinstance(before, Latency) else before
