"""What each node costs in float and in INT8, from ONNX Runtime's profiles of the two files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.quantization.search.latency_moves import SearchSpace
from workbench.quantization.search.latency_timing import profile_events

if TYPE_CHECKING:
    import torch

    from workbench.device.profile import Device
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.samples import Feeds

HEAVY = ("Conv", "Gemm", "MatMul")  # in the names of the operators that other nodes fuse into
SUFFIX = "_kernel_time"
# An activation that changes between float and INT8 costs a Q or DQ, and mostly a Transpose or
# Reorder, since the two kinds of convolution want other layouts: 2.5 times the Q, measured.
CROSSINGS = 2.5
QUANTIZE = 0.14e-3  # microseconds an element, where the profile tells none
CALL = 3.0  # microseconds that two more kernels take whatever their size


@dataclass(frozen=True)
class ProfiledKernel:
    """A kernel of a profile: its name, operator and microseconds of one run."""

    name: str
    op: str
    microseconds: float


def read_kernels(events: Sequence[Mapping[str, Any]]) -> list[ProfiledKernel]:
    """The kernels of a profile in the order in which they first ran.

    Their time is the mean of the middle half of a kernel's runs, for a profile has whole
    microseconds.
    """
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        details = event.get("args") or {}
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            name = event["name"].removesuffix(SUFFIX)
            key = (name, str(details.get("op_name", "")), str(details.get("node_index", "")))
            times.setdefault(key, []).append(float(event["dur"]))
    return [ProfiledKernel(name, op, _middle_mean(runs)) for (name, op, _), runs in times.items()]


def _middle_mean(values: Sequence[float]) -> float:
    ordered = np.sort(np.asarray(values, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def time_by_node(kernels: Sequence[ProfiledKernel], network: Network) -> dict[str, float]:
    """Microseconds of each node of the network, by name; what is fused is in one of its nodes.

    A kernel of an operator with weights counts for the layer of the unit that its node belongs to.
    ONNX Runtime names a kernel after a node or one of its tensors, with an ending; the Transposes
    and Reorders that it adds have other names: they go to what ran before.
    """
    layers = {name: unit.name for unit in SearchSpace(network).units for name in unit.nodes}
    owners = {name: takers[0].name for name, takers in network.consumers.items() if takers}
    owners |= {name: node.name for name, node in network.producers.items()}
    owners |= {node.name: node.name for node in network.nodes}
    last = network.nodes[0].name
    times: dict[str, float] = {}
    for kernel in kernels:
        last = _owner(kernel.name, owners) or last
        heavy = any(word in kernel.op for word in HEAVY)
        node = layers.get(last, last) if heavy else last
        times[node] = times.get(node, 0.0) + kernel.microseconds
    return times


def _owner(name: str, owners: Mapping[str, str]) -> str:
    """Whose the longest known beginning of a kernel's name is."""
    for end in range(len(name), 0, -1):
        if name[:end] in owners and (end == len(name) or not name[end].isalnum()):
            return owners[name[:end]]
    return ""


@dataclass(frozen=True)
class LatencyCosts:
    """What a placement is predicted by, in milliseconds.

    Attributes:
        floats, ints: of each node.
        crossing: of each tensor that changes between float and INT8.
        base: the INT8 nodes of the placement that was profiled; what crosses there is in the nodes'
            times.
        consumers: by tensor, the node that makes it and those that take it.
    """

    floats: Mapping[str, float]
    ints: Mapping[str, float]
    crossing: Mapping[str, float]
    base: frozenset[str]
    consumers: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def predict(self, integer: frozenset[str]) -> float:
        """Milliseconds of one run with these nodes in INT8.

        Sums of nodes' times predict prefix cuts well (r 0.97 to 0.99), single nodes less.
        """
        times = sum(
            (self.ints if name in integer else self.floats).get(name, 0.0)
            for name in {*self.floats, *self.ints}
        )
        return times + sum(
            self.crossing.get(tensor, 0.0)
            for tensor, (maker, takers) in self.consumers.items()
            if _crosses(maker, takers, integer) and not _crosses(maker, takers, self.base)
        )


def _crosses(maker: str, takers: Sequence[str], integer: frozenset[str]) -> bool:
    return any((taker in integer) != (maker in integer) for taker in takers)


@dataclass(frozen=True)
class GraphPair:
    """The float graph and a quantized one of it, serialized, and what one run of each takes.

    Attributes:
        placement: of the quantized one.
        milliseconds: of the float graph, of the quantized one; without the profiler.
    """

    floats: bytes
    quantized: bytes
    placement: OperatorPlacement
    milliseconds: tuple[float, float]


def profile_costs(
    network: Network, graphs: GraphPair, sample: Feeds, device: Device, folder: Path
) -> LatencyCosts:
    """The costs of a network's nodes, from a profile of each graph on a sample."""
    feeds = {name: value.numpy() for name, value in sample.items()}
    kernels = [
        read_kernels(profile_events(model, feeds, device, folder))
        for model in (graphs.floats, graphs.quantized)
    ]
    sizes = tensor_sizes(network, sample)
    return estimate_costs(network, graphs.placement, kernels, graphs.milliseconds, sizes)


def estimate_costs(
    network: Network,
    placement: OperatorPlacement,
    profiles: Sequence[Sequence[ProfiledKernel]],
    milliseconds: Sequence[float],
    sizes: Mapping[str, int],
) -> LatencyCosts:
    """The cost model from the profiles of the float and of the quantized file.

    Args:
        milliseconds: of one run of the two without the profiler, which the nodes' times are scaled
            to: profiling costs every kernel about a microsecond.
        sizes: elements of each tensor.
    """
    scaled = []
    for kernels, total in zip(profiles, milliseconds, strict=True):
        factor = total / max(sum(kernel.microseconds for kernel in kernels), 1e-9)
        times = time_by_node(kernels, network)
        scaled.append({name: time * factor for name, time in times.items()})
    rate = quantize_rate(profiles[1], sizes)
    crossing = {name: (CALL + CROSSINGS * rate * count) / 1e3 for name, count in sizes.items()}
    consumers = {
        name: (node.name, tuple(taker.name for taker in network.consumers.get(name, ())))
        for name, node in network.producers.items()
    }
    return LatencyCosts(scaled[0], scaled[1], crossing, placement.nodes, consumers)


def quantize_rate(kernels: Sequence[ProfiledKernel], sizes: Mapping[str, int]) -> float:
    """Microseconds that one element takes to quantize: of the largest tensor in the profile."""
    quantized = [
        (sizes[kernel.name.removesuffix("/q")], kernel.microseconds)
        for kernel in kernels
        if kernel.op == "QuantizeLinear" and kernel.name.removesuffix("/q") in sizes
    ]
    count, time = max(quantized, default=(0, 0.0))
    return time / count if count >= 10_000 else QUANTIZE


def tensor_sizes(network: Network, sample: Feeds) -> dict[str, int]:
    """Elements of every tensor for one sample."""
    import torch

    sizes = {name: value.numel() for name, value in sample.items()}

    def note(node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes.update(
            {name: value.numel() for name, value in zip(node.outputs, outputs, strict=False)}
        )
        return outputs

    with torch.no_grad():
        network.run(sample, note)
    return sizes
