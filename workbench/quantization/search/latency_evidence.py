"""What the search for speed tried and measured, for `quantization.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from workbench.intervals import Estimate
from workbench.quantization.search.latency_search import PlacementTrial

if TYPE_CHECKING:
    from workbench.quantization.core.network import Network
    from workbench.quantization.search.latency_profile import LatencyCosts


Milliseconds: TypeAlias = float


@dataclass(frozen=True)
class OperatorTimes:
    """What all nodes of an operator take in float, and in INT8."""

    float: Milliseconds
    int8: Milliseconds


@dataclass(frozen=True)
class TrialEvidence:
    """A placement that was tried (see `latency_search.PlacementTrial`), in numbers that count."""

    name: str
    floats: tuple[str, ...]
    weights_in_float: float
    predicted_ms: float
    median_ms: Estimate | None
    speed_against_fp32: Estimate | None
    gain: Estimate | None
    accepted: bool
    why: str


@dataclass(frozen=True)
class ConfirmedLatency:
    """A file's latency in fresh processes, and its speed against the best FP32."""

    name: str
    median_ms: Estimate
    speed_against_fp32: Estimate
    processes: int


@dataclass(frozen=True)
class LatencyEvidence:
    """The whole search.

    Attributes:
        device: its name.
        seconds: that the search took.
        screened_ms: of the FP32 graphs and of the recipe's placement, side by side in one process.
        operators_ms: by operator.
        crashed: why a file has no latency, by name.
        fp32: the name of the best FP32.
        chosen: the name of the fastest, "FP32" where no quantized file is.
    """

    device: str
    threads: int
    seed: int
    seconds: float
    screened_ms: Mapping[str, float]
    operators_ms: Mapping[str, OperatorTimes]
    trials: tuple[TrialEvidence, ...]
    confirmed: tuple[ConfirmedLatency, ...] = ()
    crashed: Mapping[str, str] = field(default_factory=dict)
    fp32: str = ""
    chosen: str = ""


def describe_trials(trials: Sequence[PlacementTrial]) -> tuple[TrialEvidence, ...]:
    """Trials as evidence."""
    return tuple(
        TrialEvidence(
            trial.name, tuple(sorted(trial.floats)), round(trial.weights, 4),
            round(trial.predicted, 4), _rounded(trial.median), _rounded(trial.speed),
            _rounded(trial.gain), trial.accepted, trial.why,
        )
        for trial in trials
    )  # fmt: skip


def _rounded(estimate: Estimate | None) -> Estimate | None:
    if estimate is None:
        return None
    return Estimate(round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4))


def operator_times(network: Network, costs: LatencyCosts) -> dict[str, OperatorTimes]:
    """Milliseconds by operator; a fused node's are its host's, those without any are left out."""
    sums: dict[str, OperatorTimes] = {}
    for node in network.nodes:
        before = sums.get(node.op, OperatorTimes(0.0, 0.0))
        sums[node.op] = OperatorTimes(
            round(before.float + costs.floats.get(node.name, 0.0), 4),
            round(before.int8 + costs.ints.get(node.name, 0.0), 4),
        )
    return {op: times for op, times in sums.items() if times.float or times.int8}
