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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.errors import WorkbenchError
from workbench.measure.latency import Latency, speedup
from workbench.progress import Progress, ignore_progress, span_progress
from workbench.quantization.search import latency_timing as timing
from workbench.quantization.search.latency_evidence import (
    ConfirmedLatency,
    LatencyEvidence,
    OperatorTimes,
    describe_trials,
    operator_times,
)
from workbench.quantization.search.latency_moves import SearchSpace
from workbench.quantization.search.latency_profile import GraphPair, profile_costs, tensor_sizes
from workbench.quantization.search.latency_search import (
    BASE,
    FP32,
    LatencySearch,
    PlacementTrial,
    choose_finalists,
)
from workbench.quantization.search.latency_timing import Confirmation

if TYPE_CHECKING:
    import onnx

    from workbench.device.profile import Device
    from workbench.intervals import Estimate
    from workbench.quantization.core.engine import CalibratedNetwork, PlannedPlacement
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.plan import QuantizationPlan

SEARCHING = 0.5  # of the budget; the rest confirms
HELD = 1 << 30  # bytes of the graphs that are timed at once
PREPARED, ORIGINAL = "FP32, prepared", "FP32, as it came"


@dataclass(frozen=True)
class FastestPlacement:
    """The outcome of a search for speed.

    Attributes:
        placement: the fastest confirmed, None where FP32 is as fast or faster.
        floats: what it leaves in float beyond the recipe's.
        speed: against the best FP32.
        evidence: every placement that was tried; None where there was nothing to place.
        notes: what a user has to know.
    """

    placement: OperatorPlacement | None
    floats: frozenset[str] = frozenset()
    speed: Estimate | None = None
    evidence: LatencyEvidence | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimingSetup:
    """Where and how long placements are timed.

    Attributes:
        folder: for files while the search lasts.
        budget_s: seconds, which one step more may exceed.
    """

    device: Device
    folder: Path
    budget_s: float = 60


def find_fastest(
    ready: CalibratedNetwork,
    planned: PlannedPlacement,
    setup: TimingSetup,
    original: onnx.ModelProto | None = None,
    progress: Progress = ignore_progress,
) -> FastestPlacement:
    """The fastest placement with the float nodes of `planned` and others, on a device.

    The biases of the one that is chosen are better planned anew. Raises WorkbenchError where FP32
    does not run.

    Args:
        original: the float graph before preparation, which may be the faster FP32.
    """
    return _LatencyRun(ready, planned, setup, original, progress).run()


class _LatencyRun:
    """One search for speed: screening, search and confirmation within a budget of time."""

    def __init__(
        self,
        ready: CalibratedNetwork,
        planned: PlannedPlacement,
        setup: TimingSetup,
        original: onnx.ModelProto | None,
        progress: Progress,
    ) -> None:
        self.ready, self.planned, self.setup, self.progress = ready, planned, setup, progress
        self.started = time.monotonic()
        self.sample = timing.sample_to_time(ready)
        self.inputs = {name: value.numpy() for name, value in self.sample.items()}
        floats = {PREPARED: ready.network.model} | (
            {} if original is None else {ORIGINAL: original}
        )
        self.baselines = {name: model.SerializeToString() for name, model in floats.items()}
        forced = ready.place().nodes - planned.placement.nodes
        sizes = tensor_sizes(ready.network, self.sample)
        self.space = SearchSpace(ready.network, frozenset(forced), sizes)
        self.graphs = QuantizedGraphs(ready, planned.plan, self.space.forced)

    def run(self) -> FastestPlacement:
        network, placement = self.ready.network, self.planned.placement
        if not placement.nodes or len(self.space.units) < 2:
            return FastestPlacement(None, notes=("nothing is in INT8: there is nothing to place",))
        self.progress(0.0, "profiling")
        base = self.graphs.serialize(placement)
        begun = time.monotonic()
        screened = timing.time_side_by_side(
            {**self.baselines, BASE: base}, self.inputs, self.setup.device
        )
        each = (time.monotonic() - begun) / len(screened)
        self.medians = {name: float(np.median(rounds)) for name, rounds in screened.items()}
        self.quickest = min(self.baselines, key=lambda name: self.medians[name])
        pair = GraphPair(
            self.baselines[PREPARED], base, placement, (self.medians[PREPARED], self.medians[BASE])
        )
        with tempfile.TemporaryDirectory(prefix="latency-", dir=self.setup.folder) as folder:
            costs = profile_costs(network, pair, self.sample, self.setup.device, Path(folder))
        budget = SEARCHING * self.setup.budget_s
        together = min(10, int(budget / 4 / max(each, 1e-3)), HELD // max(len(base), 1))
        trials = LatencySearch(
            self.space, costs, self.graphs, self._time, self._spare(SEARCHING), max(together, 2)
        ).run()
        finalists = choose_finalists(trials)
        confirmation = self._confirm(finalists)
        device = self.setup.device
        evidence = LatencyEvidence(
            device=device.name,
            threads=device.threads,
            seed=self.ready.options.seed,
            seconds=round(time.monotonic() - self.started, 1),
            screened_ms={name: round(median, 4) for name, median in self.medians.items()},
            operators_ms=operator_times(network, costs),
            trials=describe_trials(trials),
        )
        return conclude(finalists, confirmation, evidence)

    def _spare(self, part: float) -> Callable[[], bool]:
        return lambda: time.monotonic() - self.started < part * self.setup.budget_s

    def _time(
        self, placements: Mapping[str, OperatorPlacement | None]
    ) -> Mapping[str, list[float]]:
        passed = (time.monotonic() - self.started) / self.setup.budget_s
        self.progress(min(passed, SEARCHING), f"timing {len(placements)} placements")
        models = {
            name: self.baselines[self.quickest]
            if placement is None
            else self.graphs.serialize(placement)
            for name, placement in placements.items()
        }
        return timing.time_side_by_side(models, self.inputs, self.setup.device)

    def _confirm(self, finalists: Sequence[PlacementTrial]) -> Confirmation:
        """The finalists and the quickest FP32 files in fresh processes."""
        limit = 1.05 * self.medians[self.quickest]
        close = [name for name in self.baselines if self.medians[name] < limit]
        models = {name: self.baselines[name] for name in close}
        models |= {trial.name: self.graphs.serialize(trial.placement) for trial in finalists}
        with tempfile.TemporaryDirectory(prefix="latency-", dir=self.setup.folder) as folder:
            files = {}
            for number, (name, model) in enumerate(models.items()):
                files[name] = Path(folder) / f"{number}.onnx"
                files[name].write_bytes(model)
            return timing.confirm_latencies(
                files, close, self.inputs, self.setup.device, self._spare(1.0),
                span_progress(self.progress, SEARCHING, 1.0),
            )  # fmt: skip


class QuantizedGraphs:
    """Quantized graphs of placements with more float nodes than the plan was made for."""

    def __init__(
        self, ready: CalibratedNetwork, plan: QuantizationPlan, forced: frozenset[str]
    ) -> None:
        self.ready, self.plan, self.forced = ready, plan, forced

    def place(self, floats: frozenset[str]) -> OperatorPlacement:
        """The placement with these nodes in float, too."""
        return self.ready.place(floats | self.forced)

    def refusal(self, placement: OperatorPlacement) -> str:
        """Why a placement cannot be written, or nothing."""
        lacking = [name for name in placement.tensors if name not in self.plan.ranges]
        return f"{lacking[0]} has no range in the plan" if lacking else ""

    def identity(self, placement: OperatorPlacement) -> str:
        """The nodes of the graph, hashed."""
        digest = hashlib.sha256()
        for node in self.ready.write(placement, self.plan).graph.node:
            digest.update(node.SerializeToString(deterministic=True))
        return digest.hexdigest()

    def serialize(self, placement: OperatorPlacement) -> bytes:
        """The graph as a file holds it."""
        data: bytes = self.ready.write(placement, self.plan).SerializeToString()
        return data


def conclude(
    finalists: Sequence[PlacementTrial], confirmation: Confirmation, evidence: LatencyEvidence
) -> FastestPlacement:
    """The choice from what was confirmed, the evidence with it."""
    for name in confirmation.baselines:
        latency = confirmation.latencies[name]
        if isinstance(latency, WorkbenchError):
            raise latency
    measured = confirmation.measured
    fp32 = min(confirmation.baselines, key=lambda name: measured[name].median.value)
    speeds = {name: speedup(measured[fp32], latency) for name, latency in measured.items()}
    running = [trial for trial in finalists if trial.name in measured]
    faster = [trial for trial in running if speeds[trial.name].low >= 1]
    chosen = _choose_winner(faster, measured)
    evidence = replace(
        evidence,
        confirmed=tuple(
            ConfirmedLatency(name, latency.median, speeds[name], len(latency.processes))
            for name, latency in measured.items()
        ),
        crashed={
            name: str(error)
            for name, error in confirmation.latencies.items()
            if name not in measured
        },
        fp32=fp32,
        chosen=FP32 if chosen is None else chosen.name,
    )
    best = chosen or max(running, key=lambda trial: speeds[trial.name].value, default=None)
    if best is None:
        note = "FP32 is kept: no quantized file ran in a process of its own"
        return FastestPlacement(None, evidence=evidence, notes=(note,))
    speed = speeds[best.name]
    words = f"{speed.value:.2f}× of {fp32} ({speed.low:.2f} to {speed.high:.2f})"
    timed = sum(trial.speed_against_fp32 is not None for trial in evidence.trials)
    if chosen is None:
        note = (f"FP32 is kept: the fastest of {timed} placements, '{best.name}', runs at {words}; "
                f"{_blame_operators(evidence.operators_ms)}")  # fmt: skip
        return FastestPlacement(None, speed=speed, evidence=evidence, notes=(note,))
    note = f"the fastest of {timed} placements is '{chosen.name}': {words}"
    return FastestPlacement(chosen.placement, chosen.floats, speed, evidence, (note,))


def _choose_winner(
    finalists: Sequence[PlacementTrial], measured: Mapping[str, Latency]
) -> PlacementTrial | None:
    """The first, which the search prefers, or what is faster than it beyond doubt."""
    if not finalists:
        return None
    first, *others = finalists
    speeds = {trial.name: speedup(measured[first.name], measured[trial.name]) for trial in others}
    faster = [trial for trial in others if speeds[trial.name].low > 1]
    return max(faster, key=lambda trial: speeds[trial.name].value, default=first)


def _blame_operators(operators: Mapping[str, OperatorTimes]) -> str:
    """Which operators INT8 loses most with, in words."""
    lost = {op: times.int8 - times.float for op, times in operators.items()}
    worst = [op for op in sorted(lost, key=lambda op: -lost[op]) if lost[op] > 0][:3]
    if not worst:
        return "no operator stands out"
    return "INT8 loses with " + ", ".join(
        f"{op} ({operators[op].float:.2f} ms in float, {operators[op].int8:.2f} in INT8)"
        for op in worst
    )
