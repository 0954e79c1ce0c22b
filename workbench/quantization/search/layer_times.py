"""What each layer takes in float and in INT8 on a device, from two profiles of ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.quantization.search.latency_moves import SearchSpace
from workbench.quantization.search.latency_profile import GraphPair, profile_costs
from workbench.quantization.search.latency_timing import sample_to_time, time_side_by_side

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.plan import QuantizationPlan


def time_layers(
    ready: CalibratedNetwork, placement: OperatorPlacement, plan: QuantizationPlan, device: Device
) -> Mapping[str, tuple[float, float]]:
    """Milliseconds of each INT8 layer, with the nodes behind it up to the next, by its name: in the
    float file and in the quantized one. Empty where ONNX Runtime does not take both.

    One calibration sample, the device's threads. Scaled to runs without the profiler; a layer that
    goes to float alone costs the crossings to its neighbours as well.
    """
    network = ready.network
    sample = sample_to_time(ready)
    models = {
        "float": network.model.SerializeToString(),
        "int8": ready.write(placement, plan).SerializeToString(),
    }
    feeds = {name: value.numpy() for name, value in sample.items()}
    rounds = time_side_by_side(models, feeds, device)
    if len(rounds) < len(models):
        return {}
    medians = float(np.median(rounds["float"])), float(np.median(rounds["int8"]))
    graphs = GraphPair(models["float"], models["int8"], placement, medians)
    with tempfile.TemporaryDirectory(prefix="sensitivity-") as folder:
        costs = profile_costs(network, graphs, sample, device, Path(folder))
    return {
        unit.name: (
            sum(costs.floats.get(node, 0.0) for node in unit.nodes),
            sum(costs.ints.get(node, 0.0) for node in unit.nodes),
        )
        for unit in SearchSpace(network).units
        if unit.name in placement.nodes
    }
