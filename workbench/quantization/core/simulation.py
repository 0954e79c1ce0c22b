"""A plan tried on the float network: outputs as the quantized file would give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.grid import quantized
from workbench.quantization.core.placement import weighted
from workbench.quantization.core.plan import Plan, Range, Scheme, rounded

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network, Node
    from workbench.quantization.core.placement import Placement

Array = NDArray[Any]
Samples = Sequence[Mapping[str, "torch.Tensor"]]


def outputs(
    network: Network, samples: Samples, placement: Placement | None = None, plan: Plan | None = None
) -> list[Array]:
    """The network's float outputs [N, …] for batches of samples; quantized where a plan is given.

    Weights and biases of the plan are taken for the nodes of the placement alone.
    """
    import torch

    from workbench.quantization.core.network import Network

    names = list(network.outputs)
    parts: list[list[Array]] = [[] for _ in names]
    changed = network
    hook = None
    if placement is not None and plan is not None:
        changed = Network.__new__(Network)
        changed.__dict__.update(network.__dict__)
        changed.constants = {**network.constants, **_constants(network, placement, plan)}
        hook = _Hook(placement, plan)
    with torch.no_grad():
        for feeds in samples:
            given = dict(feeds) if hook is None else hook.entering(feeds)
            found = changed.run(given, hook)
            for part, name in zip(parts, names, strict=True):
                part.append(found[name].numpy())
    return [np.concatenate(part) for part in parts]


def sqnr(expected: Sequence[Array], found: Sequence[Array]) -> float:
    """10 log10(signal / noise) in dB over all float outputs; -inf where one is not finite."""
    signal = noise = 0.0
    for one, other in zip(expected, found, strict=True):
        if one.dtype.kind != "f":
            continue
        size = max(float(np.square(one, dtype=np.float64).mean()), 1e-30)
        signal += 1.0
        noise += float(np.square(one.astype(np.float64) - other).mean()) / size
    if not np.isfinite(noise):
        return float("-inf")
    return float(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))


def plain(
    network: Network, placement: Placement, stats: Mapping[str, Channels], scheme: Scheme
) -> Plan:
    """Min-max ranges and weights rounded to the nearest: what every technique is measured by."""
    ranges = {
        name: Range(float(stats[name].low.min()), float(stats[name].high.max()))
        for name in placement.tensors
        if name in stats
    }
    weights = {
        node.name: rounded(
            network.constants[node.inputs[1]].numpy(), axis_of(node, network), scheme
        )
        for node in weighted(network)
        if node.name in placement.nodes
    }
    return Plan(ranges, weights, {}, frozenset(), scheme).tied(placement.ties)


def axis_of(node: Node, network: Network) -> int:
    """The axis of a node's weights along which its output channels lie."""
    if node.op == "Conv" or node.attributes.get("transB"):
        return 0
    return network.constants[node.inputs[1]].ndim - 1


def _constants(network: Network, placement: Placement, plan: Plan) -> dict[str, torch.Tensor]:
    import torch

    found = {}
    for node in weighted(network):
        if node.name not in placement.nodes or node.name not in plan.weights:
            continue
        found[node.inputs[1]] = torch.from_numpy(plan.weights[node.name].floats)
        if node.name in plan.biases:
            found[node.inputs[2]] = torch.from_numpy(np.array(plan.biases[node.name]))
    return found


class _Hook:
    """Puts what INT8 nodes make on its grid, and what the network is given."""

    def __init__(self, placement: Placement, plan: Plan) -> None:
        self.placement, self.plan = placement, plan

    def entering(self, feeds: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._on_grid(name, value) for name, value in feeds.items()}

    def __call__(self, node: Node, made: list[torch.Tensor]) -> list[torch.Tensor]:
        return [self._on_grid(name, value) for name, value in zip(node.outputs, made, strict=False)]

    def _on_grid(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.placement.tensors or name not in self.plan.ranges:
            return value
        return quantized(value, self.plan.ranges[name], self.plan.scheme)
