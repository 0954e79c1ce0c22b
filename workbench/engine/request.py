"""`Request`: what a run makes. How it is measured is a `measure.plan.MeasurePlan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.dataset.loading import Data
    from workbench.device.profile import Device
    from workbench.model import ModelSource
    from workbench.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is made, as plain values: which recipe, of which model, with which data, for which CPU.

    Attributes:
        recipe: the steps, with their options.
        settings: the `--set` texts that `recipe` already carries, so that a worker can rebuild it.
        source: where the model comes from.
        data: a dataset's path, or input specs where there are no samples.
        device: whose CPU decides the INT8 arithmetic.
    """

    recipe: Recipe
    settings: tuple[str, ...]
    source: ModelSource
    data: Data
    device: Device
