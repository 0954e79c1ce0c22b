"""Which equalization a network gets: of those that there are, or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core import channels, equalization, simulation
from workbench.quantization.core.network import Network
from workbench.quantization.core.plan import SCHEMES

if TYPE_CHECKING:
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.placement import Placement

Array = NDArray[Any]


def equalized(ready: Calibrated, placement: Placement) -> Calibrated:
    """With the network, statistics and scales of the factors that simulate best, or as it was.

    The placement says which grids there are. With `importance` both ways of weighing channels are
    tried.
    """
    from workbench.quantization.core.engine import CHECKED, first

    network, found = ready.network, ready.stats
    one = {name: value[:1] for name, value in ready.samples[0].items()}
    scaling = channels.scaling(network, one, found)
    scheme = SCHEMES[ready.options.scheme]
    few = first(ready.samples, CHECKED)
    expected = simulation.outputs(network, few)

    def score(network: Network, stats: Mapping[str, Channels]) -> float:
        plain = simulation.plain(network, placement, stats, scheme)
        return simulation.sqnr(expected, simulation.outputs(network, few, placement, plain))

    before = score(network, found)
    ways = [found, ready.weighed] if "importance" in ready.recipe.techniques else [found]
    tried: list[tuple[float, Array, Network, dict[str, Channels]]] = []
    for stats in ways:
        factor = equalization.factors(
            network, scaling, stats, placement.tensors, placement.nodes, scheme.weight_max
        )
        scaled = {
            name: value.scaled(factor[scaling.tensors[name]]) if name in scaling.tensors else value
            for name, value in found.items()
        }
        changed = Network(equalization.applied(network.model, network, scaling, factor))
        tried.append((score(changed, scaled), factor, changed, scaled))
    after, factor, changed, scaled = max(tried, key=lambda one: one[0])
    # It can destroy a network: so it is taken where it simulates better than nothing.
    if after < before:
        note = f"not equalized: {after:.1f} dB simulated, {before:.1f} without"
        return replace(ready, notes=(*ready.notes, note))
    note = f"equalized: {before:.1f} dB with min-max became {after:.1f}, simulated"
    scales = {name: factor[classes] for name, classes in scaling.tensors.items()}
    scales = {name: one for name, one in scales.items() if not np.allclose(one, 1)}
    return replace(ready, network=changed, stats=scaled, scales=scales, notes=(*ready.notes, note))
