"""What INT8 costs layer by layer, from the float outputs alone: no labels, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.progress import Progress, ignore_progress
from workbench.quantization.core.fake_quantization import output_axis, simulate
from workbench.quantization.core.float_prefix import rounding_noise
from workbench.quantization.core.placement import OperatorPlacement, weighted_nodes
from workbench.quantization.core.plan import QuantizationPlan, quantize_weights
from workbench.quantization.core.samples import count_samples
from workbench.quantization.search.output_distance import (
    SILENCE,
    OutputDistance,
    output_distance,
)

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.samples import Samples

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerSensitivity:
    """What INT8 costs one layer with weights.

    Attributes:
        layer: its name.
        names: of the tensors that move to float with it.
        parameters: how many weights it has.
        alone: of the network with nothing else quantized.
        left: of the quantized network with this layer in float.
        share: of the noise of all layers alone, 0 to 1.
        modelled: the same from `rounding_noise`, without a run, for tensors only.
        gained: dB that the outputs gain where it is left in float.
    """

    layer: str
    op: str
    names: tuple[str, ...]
    parameters: int
    alone: OutputDistance
    left: OutputDistance
    share: float = 0.0
    modelled: float = 0.0
    gained: float = 0.0


def tensors_by_layer(network: Network, placement: OperatorPlacement) -> dict[str, tuple[str, ...]]:
    """The quantized tensors that belong to each INT8 layer with weights, by the layer's name.

    A tensor belongs to the layer it was made from, the last of several; one that a float node made,
    or the network is given, to the first layer that takes it.
    """
    layers = [node.name for node in weighted_nodes(network) if node.name in placement.nodes]
    order = {name: number for number, name in enumerate(layers)}
    tensors: dict[str, list[str]] = {name: [] for name in layers}
    owners: dict[str, str] = {}

    def assign(name: str, layer: str | None) -> None:
        if layer is not None:
            owners[name] = layer
            if name in placement.tensors:
                tensors[layer].append(name)

    for name in network.inputs:
        assign(name, _first_taker(network, name, order))
    for node in network.nodes:
        above = [owners[name] for name in node.inputs if name in owners]
        layer = node.name if node.name in order else max(above, key=order.__getitem__, default=None)
        for name in filter(None, node.outputs):
            integer = node.name in placement.nodes
            assign(name, layer if integer else _first_taker(network, name, order))
    return {name: tuple(own) for name, own in tensors.items()}


def _first_taker(network: Network, name: str, order: Mapping[str, int]) -> str | None:
    """The first INT8 layer that computes with a tensor, through operators without weights."""
    waiting, seen, first = [name], set(), None
    while waiting:
        for node in network.consumers.get(waiting.pop(), []):
            if node.name in order:
                first = node.name if first is None else min(first, node.name, key=order.__getitem__)
            elif node.name not in seen:
                seen.add(node.name)
                waiting += node.outputs
    return first


def restrict_plan(
    ready: CalibratedNetwork,
    base: OperatorPlacement,
    plan: QuantizationPlan,
    placement: OperatorPlacement,
) -> QuantizationPlan:
    """The plan of placement `base` for one with more in float: it has nearly all that one takes.

    Weights and biases of what is in float now are left out. A tensor that had another's parameters
    keeps their range.
    """
    ranges = dict(plan.ranges)
    for name in placement.tensors:
        root = base.root(name)
        if name not in ranges and (root in ranges or name in ready.stats):
            ranges[name] = ranges[root] if root in ranges else ready.stats[name].extremes
    return replace(
        plan,
        ranges=ranges,
        weights={name: own for name, own in plan.weights.items() if name in placement.nodes},
        biases={name: own for name, own in plan.biases.items() if name in placement.nodes},
    )


def float_nodes(ready: CalibratedNetwork, placement: OperatorPlacement) -> frozenset[str]:
    """The nodes that a placement leaves in float beyond what cannot be INT8."""
    return ready.place().nodes - placement.nodes


@dataclass
class LayerTrials:
    """Outputs of a network where some layers and tensors are quantized, against its float ones.

    Attributes:
        samples: 32 to 64 do, for one layer's error is alike on all images.
    """

    ready: CalibratedNetwork
    plan: QuantizationPlan
    samples: Samples

    def __post_init__(self) -> None:
        network = self.ready.network
        self.expected = simulate(network, self.samples)
        self.single = replace(self.plan, biases={})
        if "compensation" in self.ready.preset.techniques:
            # These weights mend what layers before do: alone they would have nothing to mend, and
            # cost more than they do. Rounded to the nearest, what they cost alone adds up again.
            nearest = {
                node.name: quantize_weights(
                    network.constants[node.inputs[1]].numpy(),
                    output_axis(node, network),
                    self.plan.scheme,
                )
                for node in weighted_nodes(network)
                if node.name in self.plan.weights
            }
            self.single = replace(self.single, weights=nearest)
        self.mean_errors = mean_weight_errors(network, self.single, self.samples)

    def quantize_alone(self, layer: str | None, tensors: Sequence[str]) -> OutputDistance:
        """With one layer's weights (None: no weights) and these tensors on their grids alone.

        The plan's biases, too, mend what all layers before do: here they mend this layer's error.
        """
        if layer is None:
            return self.quantize(OperatorPlacement(tensors=tuple(tensors)), self.single)
        node = self.ready.network.nodes_by_name[layer]
        biases = {}
        if layer in self.plan.biases:
            before = self.ready.network.constants[node.inputs[2]].numpy()
            biases = {layer: (before - self.mean_errors[layer]).astype(np.float32)}
        placement = OperatorPlacement(frozenset((layer,)), tuple(tensors))
        return self.quantize(placement, replace(self.single, biases=biases))

    def quantize(self, placement: OperatorPlacement, plan: QuantizationPlan) -> OutputDistance:
        """With all that a placement quantizes."""
        outputs = simulate(self.ready.network, self.samples, placement, plan)
        return output_distance(self.expected, outputs)


def mean_weight_errors(
    network: Network, plan: QuantizationPlan, samples: Samples
) -> dict[str, Array]:
    """By layer, what its rounded weights add to the mean of each output channel, on exact inputs.

    Nearly all of the error of weights is the same for all images where their inputs are: means of
    activations behind a nonlinearity are far from 0 (Nagel et al. 2019, arXiv:1906.04721).
    """
    import torch

    changes = {
        node.name: torch.from_numpy(plan.weights[node.name].floats)
        - network.constants[node.inputs[1]]
        for node in weighted_nodes(network)
        if node.name in plan.weights
    }
    sums = dict.fromkeys(changes, np.zeros(1))
    for feeds in samples:
        values: dict[str, torch.Tensor] = dict(feeds)

        def hook(
            node: NetworkNode,
            outputs: list[torch.Tensor],
            values: dict[str, torch.Tensor] = values,
        ) -> list[torch.Tensor]:
            if node.name in changes:
                (error,) = network.apply(node, [values[node.inputs[0]], changes[node.name]])
                channels = 1 if node.op == "Conv" else error.ndim - 1
                others = [axis for axis in range(error.ndim) if axis != channels]
                means = error.double().mean(others).numpy()
                sums[node.name] = sums[node.name] + len(error) * means
            values.update(zip(node.outputs, outputs, strict=False))
            return outputs

        with torch.no_grad():
            network.run(feeds, hook)
    count = count_samples(samples)
    return {name: total / count for name, total in sums.items()}


def layer_sensitivities(
    ready: CalibratedNetwork,
    placement: OperatorPlacement,
    plan: QuantizationPlan,
    samples: Samples,
    progress: Progress = ignore_progress,
) -> tuple[LayerSensitivity, ...]:
    """What each INT8 layer of a placement costs, in graph order.

    Quantized alone: what it adds to an exact network. Left in float alone, all others in INT8: what
    is gained, which is less, for its input and output are quantized for its neighbours all the
    same where these are INT8.
    """
    trials = LayerTrials(ready, plan, samples)
    whole = trials.quantize(placement, restrict_plan(ready, placement, plan, placement))
    base = float_nodes(ready, placement)
    modelled = rounding_noise(placement, ready.weighed_stats)
    layers = []
    owned = tensors_by_layer(ready.network, placement)
    for number, (name, tensors) in enumerate(owned.items()):
        progress(number / len(owned), f"layer {number + 1} of {len(owned)}")
        node = ready.network.nodes_by_name[name]
        without = ready.place(base | {name})
        left = trials.quantize(without, restrict_plan(ready, placement, plan, without))
        layers.append(
            LayerSensitivity(
                name, node.op, tensors, ready.network.constants[node.inputs[1]].numel(),
                trials.quantize_alone(name, tensors), left,
                modelled=sum(modelled.get(tensor, 0.0) for tensor in tensors),
                gained=_gained_decibels(whole, left),
            )
        )  # fmt: skip
    noise = sum(layer.alone.noise for layer in layers) or 1.0
    model = sum(layer.modelled for layer in layers) or 1.0
    return tuple(
        replace(layer, share=layer.alone.noise / noise, modelled=layer.modelled / model)
        for layer in layers
    )


def _gained_decibels(whole: OutputDistance, left: OutputDistance) -> float:
    """dB from one distance to a shorter one; 0 where neither has a number."""
    before, after = max(whole.noise, SILENCE), max(left.noise, SILENCE)
    return float(10 * np.log10(before / after)) if np.isfinite(before + after) else 0.0
