"""What INT8 costs layer by layer, from the float outputs alone: no labels, no files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core import prefix, simulation
from workbench.quantization.core.distance import LEAST, Distance, distance
from workbench.quantization.core.placement import Placement, weighted
from workbench.quantization.core.plan import Plan, rounded

if TYPE_CHECKING:
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.network import Network, Node
    from workbench.quantization.core.simulation import Samples

Array = NDArray[Any]
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Sensitivity:
    """One layer with weights, and the tensors that move to float with it.

    alone: of the network with nothing else quantized. left: of the quantized network with this
    layer in float. share: of the noise of all layers alone, 0 to 1. modelled: the same from
    `prefix.noise`, without a run, for tensors only. gained: dB that the outputs gain where it is
    left in float. parameters: how many.
    """

    layer: str
    op: str
    names: tuple[str, ...]
    parameters: int
    alone: Distance
    left: Distance
    share: float = 0.0
    modelled: float = 0.0
    gained: float = 0.0


def groups(network: Network, placement: Placement) -> dict[str, tuple[str, ...]]:
    """The quantized tensors that belong to each INT8 layer with weights, by the layer's name.

    A tensor belongs to the layer it was made from, the last of several; one that a float node made,
    or the network is given, to the first layer that takes it.
    """
    layers = [node.name for node in weighted(network) if node.name in placement.nodes]
    order = {name: place for place, name in enumerate(layers)}
    found: dict[str, list[str]] = {name: [] for name in layers}
    owner: dict[str, str] = {}

    def note(name: str, by: str | None) -> None:
        if by is not None:
            owner[name] = by
            if name in placement.tensors:
                found[by].append(name)

    for name in network.inputs:
        note(name, _taker(network, name, order))
    for node in network.nodes:
        above = [owner[name] for name in node.inputs if name in owner]
        made = node.name in placement.nodes
        by = node.name if node.name in order else max(above, key=order.__getitem__, default=None)
        for name in filter(None, node.outputs):
            note(name, by if made else _taker(network, name, order))
    return {name: tuple(tensors) for name, tensors in found.items()}


def _taker(network: Network, name: str, order: Mapping[str, int]) -> str | None:
    """The first INT8 layer that computes with a tensor, through operators without weights."""
    waiting, seen, best = [name], set(), None
    while waiting:
        for node in network.consumers.get(waiting.pop(), []):
            if node.name in order:
                best = node.name if best is None else min(best, node.name, key=order.__getitem__)
            elif node.name not in seen:
                seen.add(node.name)
                waiting += node.outputs
    return best


def limited(ready: Calibrated, base: Placement, plan: Plan, placement: Placement) -> Plan:
    """The plan of placement `base` for one with more in float: it has nearly all that one takes.

    Weights and biases of what is in float now are left out. A tensor that had another's parameters
    keeps their range.
    """
    ranges = dict(plan.ranges)
    for name in placement.tensors:
        root = base.root(name)
        if name not in ranges and (root in ranges or name in ready.stats):
            ranges[name] = ranges[root] if root in ranges else ready.extremes(name)
    return replace(
        plan,
        ranges=ranges,
        weights={name: one for name, one in plan.weights.items() if name in placement.nodes},
        biases={name: one for name, one in plan.biases.items() if name in placement.nodes},
    )


def floats_of(ready: Calibrated, placement: Placement) -> frozenset[str]:
    """The nodes that a placement leaves in float beyond what cannot be INT8."""
    return ready.placed().nodes - placement.nodes


@dataclass
class Simulated:
    """Outputs of a network where some layers and tensors are quantized, against its float ones.

    samples: in batches by input name; 32 to 64 do, for one layer's error is alike on all images.
    """

    ready: Calibrated
    plan: Plan
    samples: Samples

    def __post_init__(self) -> None:
        network = self.ready.network
        self.expected = simulation.outputs(network, self.samples)
        self.single = replace(self.plan, biases={})
        if "compensation" in self.ready.recipe.techniques:
            # These weights mend what layers before do: alone they would have nothing to mend, and
            # cost more than they do. Rounded to the nearest, what they cost alone adds up again.
            nearest = {
                node.name: rounded(
                    network.constants[node.inputs[1]].numpy(),
                    simulation.axis_of(node, network),
                    self.plan.scheme,
                )
                for node in weighted(network)
                if node.name in self.plan.weights
            }
            self.single = replace(self.single, weights=nearest)
        self.shifts = mean_errors(network, self.single, self.samples)

    def alone(self, layer: str | None, tensors: Sequence[str]) -> Distance:
        """With one layer's weights (None: no weights) and these tensors on their grids alone.

        The plan's biases, too, mend what all layers before do: here they mend this layer's error.
        """
        if layer is None:
            return self.of(Placement(tensors=tuple(tensors)), self.single)
        node = self.ready.network.nodes_by_name[layer]
        biases = {}
        if layer in self.plan.biases:
            before = self.ready.network.constants[node.inputs[2]].numpy()
            biases = {layer: (before - self.shifts[layer]).astype(np.float32)}
        changed = Placement(frozenset((layer,)), tuple(tensors))
        return self.of(changed, replace(self.single, biases=biases))

    def of(self, placement: Placement, plan: Plan) -> Distance:
        found = simulation.outputs(self.ready.network, self.samples, placement, plan)
        return distance(self.expected, found)


def mean_errors(network: Network, plan: Plan, samples: Samples) -> dict[str, Array]:
    """By layer, what its rounded weights add to the mean of each output channel, on exact inputs.

    Nearly all of the error of weights is the same for all images where their inputs are: means of
    activations behind a nonlinearity are far from 0 (Nagel et al. 2019, arXiv:1906.04721).
    """
    import torch

    changes = {
        node.name: torch.from_numpy(plan.weights[node.name].floats)
        - network.constants[node.inputs[1]]
        for node in weighted(network)
        if node.name in plan.weights
    }
    sums = dict.fromkeys(changes, np.zeros(1))
    count = 0
    for feeds in samples:
        values: dict[str, torch.Tensor] = dict(feeds)

        def hook(
            node: Node, made: list[torch.Tensor], values: dict[str, torch.Tensor] = values
        ) -> list[torch.Tensor]:
            if node.name in changes:
                (error,) = network.apply(node, [values[node.inputs[0]], changes[node.name]])
                axis = 1 if node.op == "Conv" else error.ndim - 1
                over = [i for i in range(error.ndim) if i != axis]
                sums[node.name] = sums[node.name] + len(error) * error.double().mean(over).numpy()
            values.update(zip(node.outputs, made, strict=False))
            return made

        with torch.no_grad():
            network.run(feeds, hook)
        count += len(next(iter(feeds.values())))
    return {name: total / count for name, total in sums.items()}


def sensitivities(
    ready: Calibrated,
    placement: Placement,
    plan: Plan,
    samples: Samples,
    progress: Progress = lambda _fraction, _note: None,
) -> tuple[Sensitivity, ...]:
    """What each INT8 layer of a placement costs, in graph order. samples: batches by input name.

    Quantized alone: what it adds to an exact network. Left in float alone, all others in INT8: what
    is gained, which is less, for its input and output are quantized for its neighbours all the
    same where these are INT8.
    """
    tried = Simulated(ready, plan, samples)
    whole = tried.of(placement, limited(ready, placement, plan, placement))
    base = floats_of(ready, placement)
    modelled = prefix.noise(placement, ready.weighed)
    found = []
    owned = groups(ready.network, placement)
    for number, (name, tensors) in enumerate(owned.items()):
        progress(number / len(owned), f"layer {number + 1} of {len(owned)}")
        node = ready.network.nodes_by_name[name]
        changed = ready.placed(base | {name})
        left = tried.of(changed, limited(ready, placement, plan, changed))
        found.append(
            Sensitivity(
                name, node.op, tensors, parameters(node, ready.network),
                tried.alone(name, tensors), left,
                modelled=sum(modelled.get(one, 0.0) for one in tensors),
                gained=_gained(whole, left),
            )
        )  # fmt: skip
    noise = sum(one.alone.noise for one in found) or 1.0
    model = sum(one.modelled for one in found) or 1.0
    return tuple(
        replace(one, share=one.alone.noise / noise, modelled=one.modelled / model) for one in found
    )


def _gained(whole: Distance, left: Distance) -> float:
    """dB from one distance to a shorter one; 0 where neither has a number."""
    before, after = max(whole.noise, LEAST), max(left.noise, LEAST)
    return float(10 * np.log10(before / after)) if np.isfinite(before + after) else 0.0


def parameters(node: Node, network: Network) -> int:
    """Weights of a layer, its bias not counted."""
    return network.constants[node.inputs[1]].numel()
