"""What each node costs in float and in INT8, from ONNX Runtime's profiles of the two files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network
    from workbench.quantization.core.placement import Placement

HEAVY = ("Conv", "Gemm", "MatMul")  # in the names of the operators that other nodes fuse into
SUFFIX = "_kernel_time"
# An activation that changes between float and INT8 costs a Q or DQ, and mostly a Transpose or
# Reorder, since the two kinds of convolution want other layouts: 2.5 times the Q, measured.
CROSSINGS = 2.5
QUANTIZE = 0.14e-3  # microseconds an element, where the profile tells none
CALL = 3.0  # microseconds that two more kernels take whatever their size


@dataclass(frozen=True)
class Kernel:
    """A kernel of a profile: its name, operator and microseconds of one run."""

    name: str
    op: str
    microseconds: float


def kernels(events: Sequence[Mapping[str, Any]]) -> list[Kernel]:
    """The kernels of a profile in the order in which they first ran.

    microseconds: the mean of the middle half of a kernel's runs, for a profile has whole ones.
    """
    times: dict[tuple[str, str, str], list[float]] = {}
    for event in events:
        about = event.get("args") or {}
        if event.get("cat") == "Node" and event["name"].endswith(SUFFIX):
            name = event["name"].removesuffix(SUFFIX)
            key = (name, str(about.get("op_name", "")), str(about.get("node_index", "")))
            times.setdefault(key, []).append(float(event["dur"]))
    return [Kernel(name, op, _middle(found)) for (name, op, _), found in times.items()]


def _middle(values: Sequence[float]) -> float:
    ordered = np.sort(np.asarray(values, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def by_node(
    found: Sequence[Kernel], network: Network, heads: Mapping[str, str]
) -> dict[str, float]:
    """Microseconds of each node of the network, by name; what is fused is in one of its nodes.

    heads: the node with weights of the unit that each node belongs to, which a kernel of such an
    operator counts for. ONNX Runtime names a kernel after a node or one of its tensors, with an
    ending; the Transposes and Reorders that it adds have other names: they go to what ran before.
    """
    owners = {name: taken[0].name for name, taken in network.consumers.items() if taken}
    owners |= {name: node.name for name, node in network.producers.items()}
    owners |= {node.name: node.name for node in network.nodes}
    last = network.nodes[0].name
    times: dict[str, float] = {}
    for kernel in found:
        last = _owner(kernel.name, owners) or last
        heavy = any(word in kernel.op for word in HEAVY)
        node = heads.get(last, last) if heavy else last
        times[node] = times.get(node, 0.0) + kernel.microseconds
    return times


def _owner(name: str, owners: Mapping[str, str]) -> str:
    """Whose the longest known beginning of a kernel's name is."""
    for end in range(len(name), 0, -1):
        if name[:end] in owners and (end == len(name) or not name[end].isalnum()):
            return owners[name[:end]]
    return ""


@dataclass(frozen=True)
class Costs:
    """What a placement is predicted by, in milliseconds.

    floats, ints: of each node. crossing: of each tensor that changes between float and INT8. base:
    the placement that was profiled in INT8; what crosses there is in the nodes' times.
    """

    floats: Mapping[str, float]
    ints: Mapping[str, float]
    crossing: Mapping[str, float]
    base: frozenset[str]
    consumers: Mapping[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)

    def predicted(self, integer: frozenset[str]) -> float:
        """Milliseconds of one run with these nodes in INT8.

        Sums of nodes' times predict prefix cuts well (r 0.97 to 0.99), single nodes less.
        """
        names = {*self.floats, *self.ints}
        times = sum((self.ints if name in integer else self.floats).get(name, 0.0)
                    for name in names)  # fmt: skip
        return times + sum(
            self.crossing.get(tensor, 0.0)
            for tensor, (maker, takers) in self.consumers.items()
            if _crosses(maker, takers, integer) and not _crosses(maker, takers, self.base)
        )


def _crosses(maker: str, takers: Sequence[str], integer: frozenset[str]) -> bool:
    return any((one in integer) != (maker in integer) for one in takers)


def costs(
    network: Network,
    placement: Placement,
    heads: Mapping[str, str],
    profiles: tuple[Sequence[Kernel], Sequence[Kernel]],
    measured: tuple[float, float],
    sizes: Mapping[str, int],
) -> Costs:
    """The cost model from the profiles of the float and of the quantized file.

    measured: milliseconds of one run of the two without the profiler, which the nodes' times are
    scaled to: profiling costs every kernel about a microsecond. sizes: elements of each tensor.
    """
    scaled = []
    for found, total in zip(profiles, measured, strict=True):
        factor = total / max(sum(one.microseconds for one in found), 1e-9)
        scaled.append({name: one * factor for name, one in by_node(found, network, heads).items()})
    rate = quantize_rate(profiles[1], sizes)
    crossing = {name: (CALL + CROSSINGS * rate * count) / 1e3 for name, count in sizes.items()}
    consumers = {
        name: (node.name, tuple(one.name for one in network.consumers.get(name, ())))
        for name, node in network.producers.items()
    }
    return Costs(scaled[0], scaled[1], crossing, placement.nodes, consumers)


def quantize_rate(found: Sequence[Kernel], sizes: Mapping[str, int]) -> float:
    """Microseconds that one element takes to quantize: of the largest tensor in the profile."""
    known = [(sizes[one.name.removesuffix("/q")], one.microseconds) for one in found
             if one.op == "QuantizeLinear" and one.name.removesuffix("/q") in sizes]  # fmt: skip
    count, time = max(known, default=(0, 0.0))
    return time / count if count >= 10_000 else QUANTIZE


def sizes(network: Network, sample: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Elements of every tensor for one sample."""
    found = {name: value.numel() for name, value in sample.items()}

    def note(node: Any, made: list[torch.Tensor]) -> list[torch.Tensor]:
        found.update({name: one.numel() for name, one in zip(node.outputs, made, strict=False)})
        return made

    import torch

    hook: Callable[[Any, list[torch.Tensor]], list[torch.Tensor]] = note
    with torch.no_grad():
        network.run(sample, hook)
    return found
