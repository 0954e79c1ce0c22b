"""What each layer takes in float and in INT8 on a device, from two profiles of ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.core.plan import Plan


def times(
    ready: Calibrated, placement: Placement, plan: Plan, device: Device
) -> Mapping[str, tuple[float, float]]:
    """Milliseconds of each INT8 layer, with the nodes behind it up to the next, by its name: in the
    float file and in the quantized one. Empty where ONNX Runtime does not take both.

    One calibration sample, the device's threads. Scaled to runs without the profiler; a layer that
    goes to float alone costs the crossings to its neighbours as well.
    """
    from workbench.quantization.search import latency_moves as moves
    from workbench.quantization.search import latency_profile as profiles
    from workbench.quantization.search import latency_timing as timing

    network = ready.network
    size = max(
        (axes[0].dim_value for one in network.model.graph.input
         if (axes := one.type.tensor_type.shape.dim)), default=1,
    )  # fmt: skip
    sample = {name: value[: max(size, 1)] for name, value in ready.samples[0].items()}
    feeds = {name: np.ascontiguousarray(value.numpy()) for name, value in sample.items()}
    models = {
        "float": network.model.SerializeToString(),
        "int8": ready.written(placement, plan).SerializeToString(),
    }
    measured = timing.side_by_side(models, feeds, device)
    if len(measured) < len(models):
        return {}
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
        found = [
            profiles.kernels(timing.profiled(model, feeds, device, Path(folder)))
            for model in models.values()
        ]
    units = moves.units(network)
    medians = float(np.median(measured["float"])), float(np.median(measured["int8"]))
    costs = profiles.costs(
        network, placement, moves.heads(units), (found[0], found[1]), medians,
        profiles.sizes(network, sample),
    )  # fmt: skip
    return {
        unit.name: (
            sum(costs.floats.get(node, 0.0) for node in unit.nodes),
            sum(costs.ints.get(node, 0.0) for node in unit.nodes),
        )
        for unit in units
        if unit.name in placement.nodes
    }
