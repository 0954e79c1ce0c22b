"""Targets measured on devices: the one road to a table, of a recipe's files and of a user's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.measure.cached import measure_here

if TYPE_CHECKING:
    from workbench.artifact import Artifact
    from workbench.measure.cached import Observe
    from workbench.measure.measurement import DeviceMeasurements
    from workbench.measure.plan import MeasurePlan
    from workbench.measure.target import Bench, MeasureTarget


def measure_on_devices(
    targets: tuple[MeasureTarget, ...],
    host: Bench,
    plan: MeasurePlan,
    *,
    exported: Artifact | None = None,
    observe: Observe | None = None,
) -> tuple[DeviceMeasurements, ...]:
    """What each of the plan's devices gave, in the plan's order.

    host: this machine, as it gives the outputs that devices' with a runner are held against.
    exported: the ONNX graph whose nodes a recipe's files are compared with. observe: sees the
    outputs of every batch on devices without a runner. What keeps a target or a device from being
    measured is its error in what is returned.
    """
    away = [device for device in plan.devices if device.remote]
    results: dict[str, DeviceMeasurements] = {}
    if away:  # most runs have none, and need not load what reaches them
        from workbench.measure.away import measure_away

        results |= measure_away(away, targets, host, plan, exported)
    # After the others: what runs here would be measured with them.
    for device in plan.devices:
        if not device.remote:
            bench = replace(host, device=device)
            results[device.name] = measure_here(targets, bench, plan, exported, observe)
    return tuple(results[device.name] for device in plan.devices)
