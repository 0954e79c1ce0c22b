"""Quantization simulated in floats: a plan tried on the float network, as the file would compute.

Values are put on their grids and taken back at once, as QuantizeLinear and DequantizeLinear do
("fake quantization", Jacob et al., CVPR 2018, 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import concatenate
from workbench.quantization.core.placement import weighted_nodes
from workbench.quantization.core.plan import (
    LEVELS,
    ActivationRange,
    QuantizationPlan,
    QuantizationScheme,
    quantize_weights,
)

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.samples import Feeds, Samples

Array = NDArray[Any]

COMPARED = 32  # samples on which two ways are compared by simulation


def fake_quantize(
    x: torch.Tensor, tensor_range: ActivationRange, scheme: QuantizationScheme
) -> torch.Tensor:
    """Values on the grid of a range, as QuantizeLinear and DequantizeLinear give them."""
    import torch

    scale, zero_point = tensor_range.grid(scheme)
    low, high = (1, 255) if scheme.symmetric else (0, LEVELS)
    values = torch.div(x, float(scale))  # the one copy: all that follows is done in it
    values.round_().add_(zero_point).clamp_(low, high)
    return values.sub_(zero_point).mul_(float(scale))


def simulate(
    network: Network,
    samples: Samples,
    placement: OperatorPlacement | None = None,
    plan: QuantizationPlan | None = None,
) -> list[Array]:
    """The network's outputs [N, …] for batches of samples: float ones, or a plan's.

    Weights and biases of the plan are taken for the nodes of the placement alone.
    """
    import torch

    from workbench.quantization.core.network import Network

    changed, hook = network, None
    if placement is not None and plan is not None:
        changed = Network.__new__(Network)
        changed.__dict__.update(network.__dict__)
        changed.constants = {**network.constants, **_constants(network, placement, plan)}
        hook = _FakeQuantizer(placement, plan)
    batches = []
    with torch.no_grad():
        for feeds in samples:
            outputs = changed.run(feeds if hook is None else hook.quantize_inputs(feeds), hook)
            batches.append([outputs[name].numpy() for name in network.outputs])
    return concatenate(batches)


def output_sqnr(expected: Sequence[Array], outputs: Sequence[Array]) -> float:
    """10 log10(signal / noise) in dB, the mean over all float outputs of noise over power.

    -inf where one is not finite.
    """
    signal = noise = 0.0
    for reference, output in zip(expected, outputs, strict=True):
        if reference.dtype.kind != "f":
            continue
        power = max(float(np.square(reference, dtype=np.float64).mean()), 1e-30)
        signal += 1.0
        noise += float(np.square(reference.astype(np.float64) - output).mean()) / power
    if not np.isfinite(noise):
        return float("-inf")
    return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def min_max_plan(
    network: Network,
    placement: OperatorPlacement,
    stats: Mapping[str, ChannelStatistics],
    scheme: QuantizationScheme,
) -> QuantizationPlan:
    """Min-max ranges and weights rounded to the nearest: what every technique is measured by."""
    ranges = {name: stats[name].extremes for name in placement.tensors if name in stats}
    weights = {
        node.name: quantize_weights(
            network.constants[node.inputs[1]].numpy(), output_axis(node, network), scheme
        )
        for node in weighted_nodes(network)
        if node.name in placement.nodes
    }
    return QuantizationPlan(ranges, weights, {}, scheme).with_tied_ranges(placement.ties)


def output_axis(node: NetworkNode, network: Network) -> int:
    """The axis of a node's weights along which its output channels lie."""
    if node.op == "Conv" or node.attributes.get("transB"):
        return 0
    return network.constants[node.inputs[1]].ndim - 1


def _constants(
    network: Network, placement: OperatorPlacement, plan: QuantizationPlan
) -> dict[str, torch.Tensor]:
    import torch

    constants = {}
    for node in weighted_nodes(network):
        if node.name not in placement.nodes or node.name not in plan.weights:
            continue
        constants[node.inputs[1]] = torch.from_numpy(plan.weights[node.name].floats)
        if node.name in plan.biases:
            constants[node.inputs[2]] = torch.from_numpy(np.array(plan.biases[node.name]))
    return constants


class _FakeQuantizer:
    """A hook for `Network.run` that puts tensors on their grids."""

    def __init__(self, placement: OperatorPlacement, plan: QuantizationPlan) -> None:
        self.placement, self.plan = placement, plan

    def quantize_inputs(self, feeds: Feeds) -> Feeds:
        return {name: self._on_grid(name, value) for name, value in feeds.items()}

    def __call__(self, node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [
            self._on_grid(name, value) for name, value in zip(node.outputs, outputs, strict=False)
        ]

    def _on_grid(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.placement.tensors or name not in self.plan.ranges:
            return value
        return fake_quantize(value, self.plan.ranges[name], self.plan.scheme)
