"""`optimize=latency`: the layers left in float with which ONNX Runtime is fastest on a device.

INT8 is not fast by itself: first convolutions, narrow depthwise ones and lookups like LeakyRelu
are slower than their fused float kernels. What is fastest depends on the machine, so it is found
there: profiles of the float and the INT8 file predict, structured moves are timed side by side,
the best three are confirmed in fresh processes against the best FP32. No new calibration: a plan
of more INT8 nodes has all that one of fewer takes.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import WorkbenchError
from workbench.measure import latency as measured
from workbench.measure.latency import speedup
from workbench.quantization.search import latency_moves as moves
from workbench.quantization.search import latency_profile as profiles
from workbench.quantization.search import latency_timing as timing
from workbench.quantization.search.latency_search import (
    BASE,
    FP32,
    HEAVIEST,
    Search,
    Trial,
    finalists,
)

if TYPE_CHECKING:
    import onnx

    from workbench.device.profile import Device
    from workbench.intervals import Estimate
    from workbench.process import Progress
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.network import Network
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.core.plan import Plan

SEARCHING = 0.5  # of the budget; the rest confirms
HELD = 1 << 30  # bytes of the graphs that are timed at once
PREPARED, ORIGINAL = "FP32, prepared", "FP32, as it came"


@dataclass(frozen=True)
class Latency:
    """The outcome. placement: the fastest confirmed, None where FP32 is as fast or faster.

    floats: what `placement` leaves in float beyond the recipe's. speed: against the best FP32.
    evidence: every placement that was tried, for the manifest. notes: what a user has to know.
    """

    placement: Placement | None
    floats: frozenset[str] = frozenset()
    speed: Estimate | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def fastest(
    ready: Calibrated,
    placement: Placement,
    plan: Plan,
    *,
    device: Device,
    threads: int | None = None,
    folder: Path,
    budget_s: float = 60,
    seed: int = 0,
    heaviest: float = HEAVIEST,
    original: onnx.ModelProto | None = None,
    progress: Progress = lambda _fraction, _note: None,
) -> Latency:
    """The fastest placement with `placement`'s float nodes and others, on a device.

    plan: of `placement`; the biases of the one that is chosen are better planned anew. threads: of
    the runtime, the device's by default. folder: for files while it lasts. budget_s: seconds, which
    one step more may exceed. heaviest: the share of the weights that may be in float. original: the
    float graph before preparation, which may be the faster FP32. seed: picks the calibration sample
    that is run. Raises WorkbenchError where FP32 does not run.
    """
    started = time.monotonic()
    device = device if threads is None else replace(device, threads=threads)
    network = ready.network
    sample = _sample(ready, seed)
    feeds = {name: one.numpy() for name, one in sample.items()}
    forced = ready.placed().nodes - placement.nodes
    graphs = _Graphs(ready, plan, frozenset(forced))
    floats = {PREPARED: network.model} | ({} if original is None else {ORIGINAL: original})
    found = moves.units(network)
    if not placement.nodes or len(found) < 2:
        return Latency(None, notes=("nothing is in INT8: there is nothing to place",))

    progress(0.0, "profiling")
    reference = {name: model.SerializeToString() for name, model in floats.items()}
    base = graphs.written(placement)
    begun = time.monotonic()
    first = timing.side_by_side({**reference, BASE: base}, feeds, device)
    each = (time.monotonic() - begun) / len(first)
    medians = {name: float(np.median(one)) for name, one in first.items()}
    quickest = min(reference, key=lambda name: medians[name])
    with tempfile.TemporaryDirectory(prefix="latency-", dir=folder) as inside:
        profiled = tuple(
            profiles.kernels(timing.profiled(model, feeds, device, Path(inside)))
            for model in (reference[PREPARED], base)
        )
    sizes = profiles.sizes(network, sample)
    costs = profiles.costs(
        network, placement, moves.heads(found), (profiled[0], profiled[1]),
        (medians[PREPARED], medians[BASE]), sizes,
    )  # fmt: skip

    def spare(part: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - started < part * budget_s

    def timer(wanted: Mapping[str, Placement | None]) -> dict[str, list[float]]:
        passed = (time.monotonic() - started) / budget_s
        progress(min(passed, SEARCHING), f"timing {len(wanted)} placements")
        made = {name: reference[quickest] if one is None else graphs.written(one)
                for name, one in wanted.items()}  # fmt: skip
        return timing.side_by_side(made, feeds, device)

    together = min(10, int(SEARCHING * budget_s / 4 / max(each, 1e-3)), HELD // max(len(base), 1))
    trials = Search(
        network, found, costs, frozenset(forced), graphs.placed, graphs.missing,
        graphs.identity, timer, spare(SEARCHING), max(together, 2),
        heaviest, sizes,
    ).run()  # fmt: skip
    best = finalists(trials)
    close = [name for name in reference if medians[name] < 1.05 * medians[quickest]]
    with tempfile.TemporaryDirectory(prefix="latency-", dir=folder) as inside:
        files = {}
        for number, (name, model) in enumerate(
            [(name, reference[name]) for name in close]
            + [(one.name, graphs.written(one.placement)) for one in best]
        ):
            files[name] = Path(inside) / f"{number}.onnx"
            files[name].write_bytes(model)
        confirmed = timing.confirmed(
            files, close, feeds, device, spare(1.0),
            lambda part, note: progress(SEARCHING + (1 - SEARCHING) * part, note),
        )  # fmt: skip
    return _concluded(
        network, costs, trials, best, confirmed, close,
        {"device": device.name, "threads": device.threads, "seed": seed,
         "seconds": round(time.monotonic() - started, 1),
         "screened_ms": {name: round(one, 4) for name, one in medians.items()}},
    )  # fmt: skip


class _Graphs:
    """Quantized graphs of placements with more float nodes than the plan was made for."""

    def __init__(self, ready: Calibrated, plan: Plan, forced: frozenset[str]) -> None:
        self.ready, self.plan, self.forced = ready, plan, forced

    def placed(self, floats: frozenset[str]) -> Placement:
        return self.ready.placed(floats | self.forced)

    def missing(self, placement: Placement) -> str:
        """Why a placement cannot be written, or nothing."""
        lacking = [name for name in placement.tensors if name not in self.plan.ranges]
        return f"{lacking[0]} has no range in the plan" if lacking else ""

    def identity(self, placement: Placement) -> str:
        """The nodes of the graph, hashed."""
        made = hashlib.sha256()
        for node in self._model(placement).graph.node:
            made.update(node.SerializeToString(deterministic=True))
        return made.hexdigest()

    def written(self, placement: Placement) -> bytes:
        made: bytes = self._model(placement).SerializeToString()
        return made

    def _model(self, placement: Placement) -> onnx.ModelProto:
        return self.ready.written(placement, self.plan)


def _sample(ready: Calibrated, seed: int) -> dict[str, Any]:
    """One calibration sample, or as many as the graph's first axis is fixed to."""
    batch = ready.samples[seed % len(ready.samples)]
    count = 1
    for one in ready.network.model.graph.input:
        axes = one.type.tensor_type.shape.dim
        if one.name in batch and axes:
            count = max(count, axes[0].dim_value)
    return {name: value[:count].contiguous() for name, value in batch.items()}


def _concluded(
    network: Network, costs: profiles.Costs, trials: Sequence[Trial], best: Sequence[Trial],
    confirmed: Mapping[str, measured.Latency | WorkbenchError], floats: Sequence[str],
    about: Mapping[str, Any],
) -> Latency:  # fmt: skip
    """The choice from what was confirmed, and the evidence for it."""
    good = {name: one for name, one in confirmed.items() if isinstance(one, measured.Latency)}
    failed = [one for name, one in confirmed.items()
              if name in floats and isinstance(one, WorkbenchError)]  # fmt: skip
    if failed:
        raise failed[0]
    fp32 = min(floats, key=lambda name: good[name].median.value)
    speeds = {name: speedup(good[fp32], one) for name, one in good.items()}
    running = [one for one in best if one.name in good]
    chosen = _winner([one for one in running if speeds[one.name].low >= 1], good)
    winner = chosen or max(running, key=lambda one: speeds[one.name].value, default=None)
    evidence = {
        **about,
        "operators_ms": _operators(network, costs),
        "trials": [one.to_json() for one in trials],
        "confirmed": [
            {"name": name, "median_ms": one.median.to_json(),
             "speed_against_fp32": speeds[name].to_json(), "processes": len(one.processes)}
            for name, one in good.items()
        ],
        "crashed": {name: str(one) for name, one in confirmed.items() if name not in good},
        "fp32": fp32,
        "chosen": FP32 if chosen is None else chosen.name,
    }  # fmt: skip
    if winner is None:
        why = "FP32 is kept: no quantized file ran in a process of its own"
        return Latency(None, evidence=evidence, notes=(why,))
    speed = speeds[winner.name]
    said = f"{speed.value:.2f}× of {fp32} ({speed.low:.2f} to {speed.high:.2f})"
    timed = sum(one.speed is not None for one in trials)
    if chosen is None:
        why = (f"FP32 is kept: the fastest of {timed} placements, '{winner.name}', runs at {said}; "
               f"{_blamed(evidence['operators_ms'])}")  # fmt: skip
        return Latency(None, speed=speed, evidence=evidence, notes=(why,))
    note = f"the fastest of {timed} placements is '{chosen.name}': {said}"
    return Latency(chosen.placement, chosen.floats, speed, evidence, (note,))


def _winner(best: Sequence[Trial], good: Mapping[str, measured.Latency]) -> Trial | None:
    """The first, which the search prefers, or what is faster than it beyond doubt."""
    if not best:
        return None
    speeds = {one.name: speedup(good[best[0].name], good[one.name]) for one in best}
    faster = [one for one in best[1:] if speeds[one.name].low > 1]
    return max(faster, key=lambda one: speeds[one.name].value, default=best[0])


def _operators(network: Network, costs: profiles.Costs) -> dict[str, dict[str, float]]:
    """Milliseconds by operator in float and in INT8; a fused node's are its host's."""
    found: dict[str, dict[str, float]] = {}
    for node in network.nodes:
        for kind, times in (("float", costs.floats), ("int8", costs.ints)):
            entry = found.setdefault(node.op, {"float": 0.0, "int8": 0.0})
            entry[kind] = round(entry[kind] + times.get(node.name, 0.0), 4)
    return {op: one for op, one in found.items() if any(one.values())}


def _blamed(operators: Mapping[str, Mapping[str, float]]) -> str:
    """Which operators INT8 loses most with, in words."""
    lost = {op: one["int8"] - one["float"] for op, one in operators.items()}
    worst = [op for op in sorted(lost, key=lambda op: -lost[op]) if lost[op] > 0][:3]
    if not worst:
        return "no operator stands out"
    return "INT8 loses with " + ", ".join(
        f"{op} ({operators[op]['float']:.2f} ms in float, {operators[op]['int8']:.2f} in INT8)"
        for op in worst
    )
