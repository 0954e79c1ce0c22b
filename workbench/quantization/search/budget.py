"""`max_drop`: layers go back to float, fewest first, until the accuracy that is lost is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.progress import Progress, ignore_progress
from workbench.quantization.core.engine import PlannedPlacement
from workbench.quantization.core.samples import first_samples
from workbench.quantization.search.budget_order import float_stages, model_noise
from workbench.quantization.search.budget_search import BudgetResult, BudgetSearch, FloatStage
from workbench.quantization.search.predictions import calibration_predictions
from workbench.quantization.search.sensitivity import float_nodes, restrict_plan

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.search.predictions import PredictionScore

SAMPLES = 20  # calibration samples for the order in which layers go


def hold_budget(
    ready: CalibratedNetwork,
    planned: PlannedPlacement,
    max_drop: float,
    score: PredictionScore | None = None,
    progress: Progress = ignore_progress,
) -> BudgetResult[PlannedPlacement]:
    """The placement with the fewest layers in float that loses at most `max_drop` points.

    How it is searched, and what held means: `budget_search.BudgetSearch`. Raises StepError for
    outputs that are no classes.

    Args:
        planned: what is to be mended.
        score: of evaluation samples (`predictions.evaluation_predictions`); None where there is no
            evaluation split: then agreement with FP32 on calibration samples, with a note.
    """
    score = score or calibration_predictions(ready)
    ladder = _PlacementLadder(ready, planned)
    return BudgetSearch(ladder, score, max_drop, ready.options.seed, progress).run()


@dataclass(frozen=True)
class _PlacementLadder:
    """A FloatLadder of placements and their plans."""

    ready: CalibratedNetwork
    planned: PlannedPlacement

    def stages(self, progress: Progress) -> Sequence[FloatStage]:
        few = first_samples(self.ready.samples, SAMPLES)
        placement, plan = self.planned.placement, self.planned.plan
        noise = model_noise(self.ready, placement, plan, few, progress)
        return float_stages(self.ready, placement, noise)

    def sketch(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        placement = self._place(floats)
        plan = restrict_plan(self.ready, self.planned.placement, self.planned.plan, placement)
        return self.ready.write(placement, plan)

    def make(self, floats: tuple[str, ...]) -> tuple[PlannedPlacement, onnx.ModelProto]:
        planned = self.planned
        if floats:  # biases are those of a placement
            planned = self.ready.plan_guarded(self._place(floats))
        return planned, self.ready.write(planned.placement, planned.plan)

    def _place(self, floats: tuple[str, ...]) -> OperatorPlacement:
        return self.ready.place(float_nodes(self.ready, self.planned.placement) | set(floats))
