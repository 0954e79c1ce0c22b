"""`max_drop`: layers go back to float, fewest first, until the accuracy that is lost is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.quantization.core import scores
from workbench.quantization.search.budget_order import order, simulated
from workbench.quantization.search.budget_search import Progress, Search, Stage
from workbench.quantization.search.sensitivity import floats_of, limited

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.core.plan import Plan
    from workbench.quantization.core.scores import Score

SAMPLES = 20  # calibration samples for the order in which layers go


@dataclass(frozen=True)
class Budgeted:
    """What holds the budget. placement: None where only the float file does. floats: the layers
    that went back to float, by name. evidence: all that was tried, for the manifest (JSON). notes:
    for the user.
    """

    placement: Placement | None
    plan: Plan
    floats: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def within_budget(
    ready: Calibrated,
    placement: Placement,
    plan: Plan,
    max_drop: float,
    score: Score | None = None,
    *,
    prices: Mapping[str, float] | None = None,
    progress: Progress = lambda _fraction, _note: None,
) -> Budgeted:
    """The placement with the fewest layers in float that loses at most `max_drop` points.

    placement, plan: what is to be mended, as `ready.placed` and `ready.planned` gave it. score: of
    evaluation samples: `scores.of_dataset(model, subject, context.dataset)`, where `model` is the
    float ONNX file as loaded; None where there is no evaluation split: then agreement with FP32 on
    calibration samples, with a note. prices: milliseconds that each layer in float costs, by node
    name; every layer costs as much, without. progress: a fraction of 0 to 1 and a note.

    How it is searched, and what held means: `budget_search.Search`.

    Raises StepError for outputs that are no classes.
    """
    ladder = _Placements(ready, placement, plan, prices)
    found = Search(
        ladder, score or scores.of_calibration(ready), max_drop, ready.options.seed, progress
    ).found()
    made, planned = found.made or (None, plan)
    return Budgeted(made, planned, found.floats, found.evidence, found.notes)


@dataclass(frozen=True)
class _Placements:
    """A Ladder of placements and their plans."""

    ready: Calibrated
    placement: Placement
    plan: Plan
    prices: Mapping[str, float] | None

    def stages(self, progress: Progress) -> Sequence[Stage]:
        from workbench.quantization.core.engine import first

        few = first(self.ready.samples, SAMPLES)
        noise = simulated(self.ready, self.placement, self.plan, few, progress)
        return order(self.ready, self.placement, noise, self.prices)

    def sketched(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        made = self._placed(floats)
        return self.ready.written(made, limited(self.ready, self.placement, self.plan, made))

    def made(self, floats: tuple[str, ...]) -> tuple[tuple[Placement, Plan], onnx.ModelProto]:
        made, plan = self.placement, self.plan
        if floats:  # biases are those of a placement
            made = self._placed(floats)
            plan = self.ready.guarded(made, self.ready.planned(made))
        return (made, plan), self.ready.written(made, plan)

    def _placed(self, floats: tuple[str, ...]) -> Placement:
        return self.ready.placed(floats_of(self.ready, self.placement) | set(floats))
