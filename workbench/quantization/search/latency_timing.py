"""Timing of graphs in ONNX Runtime: side by side in this process, then in fresh ones."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import WorkbenchError
from workbench.measure.latency import Latency, Preset, speedup

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.process import Progress

Array = NDArray[Any]
Feeds = Mapping[str, Array]

ROUNDS = 11  # the fewest whose interval of the median leaves the two worst out
VISIT = 6e6  # nanoseconds that a graph runs for before the next has its turn
QUICK = 0.25  # what else runs only ever adds to a time: of caches and of the core's other thread
RUNS = 30  # of a profile
# Six processes are the fewest whose range covers the median; then three at a time, up to 18.
CONFIRM = Preset("confirm", processes=6, warmup=3, runs=10, seconds=0.15)
MORE, TIMES = 3, 4


def clock(device: Device) -> Callable[[], int]:
    """Nanoseconds: of CPU time where one thread does all, which what else runs does not change."""
    alone = device.threads == 1 and device.provider == "cpu"
    return time.thread_time_ns if alone else time.perf_counter_ns


@contextmanager
def pinned(device: Device) -> Iterator[None]:
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


def side_by_side(
    models: Mapping[str, bytes], feeds: Feeds, device: Device, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Milliseconds of a run of each graph, one figure a round: the lower quartile of a short visit.

    Graphs take turns, so that drift of the machine meets all alike. One that ONNX Runtime refuses
    is left out.
    """
    with pinned(device):
        return _side_by_side(models, feeds, device, rounds)


def _side_by_side(
    models: Mapping[str, bytes], feeds: Feeds, device: Device, rounds: int
) -> dict[str, list[float]]:  # fmt: skip
    from workbench.device.runtimes.ort import ort_session

    now = clock(device)
    sessions, counts = {}, {}
    for name, model in models.items():
        try:
            session = ort_session(model, device.threads, device)
            for _ in range(2):
                session.run(None, feeds)
        except WorkbenchError:  # the device's, which no graph can change
            raise
        except Exception:  # noqa: BLE001, S112  # ONNX Runtime raises what it likes
            continue
        sessions[name] = session
        begun = now()
        session.run(None, feeds)
        counts[name] = int(np.clip(VISIT / max(now() - begun, 1), 1, 30))
    found: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            times = []
            for _ in range(counts[name]):
                begun = now()
                session.run(None, feeds)
                times.append(now() - begun)
            found[name].append(float(np.quantile(times, QUICK)) / 1e6)
    return found


def profiled(model: bytes, feeds: Feeds, device: Device, folder: Path) -> list[dict[str, Any]]:
    """The events of ONNX Runtime's profile of some runs of a graph, the first left out."""
    from workbench.device.runtimes.ort import ort_session

    with pinned(device):
        session = ort_session(model, device.threads, device, folder / "profile")
        for _ in range(RUNS):
            session.run(None, feeds)
        path = Path(session.end_profiling())
    events: list[dict[str, Any]] = json.loads(path.read_bytes())
    path.unlink()
    return events


def confirmed(
    files: Mapping[str, Path], baselines: Collection[str], feeds: Feeds, device: Device,
    spare: Callable[[], bool], progress: Progress,
) -> dict[str, Latency | WorkbenchError]:  # fmt: skip
    """Latency of each file in fresh processes, side by side; more while it is not `decided` and
    there is time.
    """
    from workbench.inspect.artifacts import open_artifact
    from workbench.measure.host import latencies

    targets = {name: open_artifact(path) for name, path in files.items()}
    found: dict[str, Latency | WorkbenchError] = {}
    for number in range(1 + TIMES):
        preset = replace(CONFIRM, processes=MORE) if number else CONFIRM
        made = latencies(
            targets, feeds, device, preset,
            lambda part, note, n=number: progress((n + part) / (1 + TIMES), note),  # type: ignore[misc]
        )  # fmt: skip
        found = {name: _joined(found.get(name), one) for name, one in made.items()}
        if decided(found, baselines) or not spare():
            break
    return found


def _joined(
    before: Latency | WorkbenchError | None, more: Latency | WorkbenchError
) -> Latency | WorkbenchError:
    if isinstance(before, Latency) and isinstance(more, Latency):
        return replace(more, processes=before.processes + more.processes)
    return more if before is None or isinstance(before, Latency) else before


def decided(
    found: Mapping[str, Latency | WorkbenchError], baselines: Collection[str]
) -> bool:  # fmt: skip
    """Whether some file is faster than every baseline beyond doubt, or all are slower than one."""
    references = [one for name, one in found.items()
                  if name in baselines and isinstance(one, Latency)]  # fmt: skip
    others = [one for name, one in found.items()
              if name not in baselines and isinstance(one, Latency)]  # fmt: skip
    if not references or not others:
        return True
    best = min(references, key=lambda one: one.median.value)
    ratios = [speedup(best, one) for one in others]
    return any(one.low >= 1 for one in ratios) or all(one.high < 1 for one in ratios)
