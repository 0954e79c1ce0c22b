"""Which layers compute in INT8, by all that was asked for, and the plan for these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workbench.progress import Progress, ignore_progress, span_progress
from workbench.quantization.core.engine import PlannedPlacement

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.search.budget_search import BudgetEvidence
    from workbench.quantization.search.latency import TimingSetup
    from workbench.quantization.search.latency_evidence import LatencyEvidence
    from workbench.quantization.search.predictions import PredictionScore


@dataclass(frozen=True)
class PlacementGoals:
    """What a placement is to be good for, beside accuracy.

    Attributes:
        latency: leave float what is slower in INT8 on the device.
        max_drop: points that may be lost; None for no budget.
        score: what they are points of; None for agreement with FP32 on calibration samples.
    """

    latency: bool = False
    max_drop: float | None = None
    score: PredictionScore | None = None


@dataclass(frozen=True)
class PlacementChoice:
    """What was decided of a network's layers.

    Attributes:
        planned: None where the float file is the better one.
        prefix: names of first nodes left in float.
        notes: for the user.
        latency: what the search for speed tried; None where there was none.
        budget: what the search of a budget tried, likewise.
        earlier: what stood before each of these, by the words for what came after it.
    """

    planned: PlannedPlacement | None
    prefix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    latency: LatencyEvidence | None = None
    budget: BudgetEvidence | None = None
    earlier: Mapping[str, PlannedPlacement] = field(default_factory=dict)

    def _followed_by(self, words: str, planned: PlannedPlacement) -> PlacementChoice:
        """The choice that came after this one, which it remembers."""
        assert self.planned is not None
        return replace(self, planned=planned, earlier={**self.earlier, words: self.planned})


def choose_placement(
    ready: CalibratedNetwork,
    floats: frozenset[str],
    goals: PlacementGoals,
    setup: TimingSetup,
    original: onnx.ModelProto,
    progress: Progress = ignore_progress,
) -> PlacementChoice:
    """The placement that leaves `floats` alone, and what accuracy, speed and a budget ask for.

    For TFLite speed is not searched. The search starts with every layer in INT8, for a first layer
    that is better in float is soon found.

    Args:
        original: the float graph before preparation.
    """
    searched = goals.latency and ready.options.runtime == "ort"
    prefix = ready.lossy_inputs if searched else ready.noisy_prefix
    choice = PlacementChoice(ready.plan_guarded(ready.place(floats | set(prefix))), prefix)
    part = span_progress(progress, 0.9, 0.92)
    if goals.latency:
        choice = _choose_fastest(ready, choice, setup, original, part)
    if goals.max_drop is not None and choice.planned is not None:
        choice = _hold_budget(ready, choice, goals.max_drop, goals.score, part)
    return choice


def _choose_fastest(
    ready: CalibratedNetwork,
    choice: PlacementChoice,
    setup: TimingSetup,
    original: onnx.ModelProto,
    progress: Progress,
) -> PlacementChoice:
    from workbench.quantization.search.latency import find_fastest

    if ready.options.runtime != "ort":
        note = "optimize=latency searches ONNX Runtime alone"
        return replace(choice, notes=(*choice.notes, note))
    assert choice.planned is not None
    fastest = find_fastest(ready, choice.planned, setup, original, progress)
    choice = replace(choice, notes=(*choice.notes, *fastest.notes), latency=fastest.evidence)
    if fastest.placement is None:
        return replace(choice, planned=None)
    if choice.planned is None or fastest.placement == choice.planned.placement:
        return choice
    # Biases of a layer were corrected for what came before it: with more in float, less is to mend.
    planned = ready.plan_guarded(fastest.placement)
    return choice._followed_by("slow layers in float", planned)


def _hold_budget(
    ready: CalibratedNetwork,
    choice: PlacementChoice,
    max_drop: float,
    score: PredictionScore | None,
    progress: Progress,
) -> PlacementChoice:
    from workbench.quantization.search.budget import hold_budget

    before = choice.planned
    assert before is not None
    held = hold_budget(ready, before, max_drop, score, progress)
    choice = replace(choice, notes=(*choice.notes, *held.notes), budget=held.evidence)
    planned = held.candidate
    if planned is None or planned.placement == before.placement:
        return replace(choice, planned=planned)
    return choice._followed_by("layers in float for the budget", planned)
