"""Channels that must be scaled alike, through everything between convolutions that commutes.

A positive factor on a channel passes ReLU, pooling, a shuffle; two summands of one sum must have
the same; the sigmoid's argument may have none. Union-find over single channels says so for any
graph: residual sums, concatenations and shuffles need no cases of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.moments import highest
from workbench.quantization.core.placement import clipped, weighted

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network, Node

Array = NDArray[Any]

# Positively homogeneous and channel by channel: f(s x) = s f(x) for s > 0.
HOMOGENEOUS = {
    "Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
    "Identity", "Dropout", "ReduceMean", "ReduceMax", "Resize", "Pad",
}  # fmt: skip
MOVING = {
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat",
    "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
GATES = {"Sigmoid", "HardSigmoid", "Softmax", "Tanh"}


class _Classes:
    """Union-find over integers; class 0 holds all that may not be scaled."""

    def __init__(self) -> None:
        self.parents = [0]

    def new(self, count: int) -> Array:
        start = len(self.parents)
        self.parents += range(start, start + count)
        return np.arange(start, start + count)

    def find(self, one: int) -> int:
        while self.parents[one] != one:
            self.parents[one] = self.parents[self.parents[one]]
            one = self.parents[one]
        return one

    def union(self, left: Array, right: Array) -> None:
        pairs = np.unique(np.stack([left.reshape(-1), right.reshape(-1)]), axis=1)
        for one, other in pairs.T:
            a, b = self.find(int(one)), self.find(int(other))
            self.parents[max(a, b)] = min(a, b)

    def pin(self, ids: Array) -> None:
        self.union(np.unique(ids), np.zeros(len(np.unique(ids)), int))


@dataclass(frozen=True)
class Scaling:
    """Which factors may be chosen, and where they act.

    tensors: by name, the class [C] of every channel; class 0 is fixed at 1. constants: initializers
    by (node, place) with the class of every channel, to be divided as the tensors are. count: of
    classes, 0 included. least: the smallest factor of each class [count]. ranks: of the outputs of
    the nodes in `constants`.
    """

    tensors: Mapping[str, Array]
    constants: Mapping[tuple[str, int], Array]
    count: int
    least: Array
    ranks: Mapping[str, int] = field(default_factory=dict)


def scaling(
    network: Network, feeds: Mapping[str, torch.Tensor], stats: Mapping[str, Channels]
) -> Scaling:
    """The classes of a network's channels. feeds: one sample, for the shapes."""
    import torch

    walk = _Walk(network, stats)
    for name, value in feeds.items():
        walk.ids[name] = np.zeros((1, *value.shape[1:]), int)
    with torch.no_grad():
        outputs = network.run(feeds, walk.visit)
    walk.pin([n for n in network.outputs if n in walk.ids and outputs[n].is_floating_point()])
    classes = walk.classes
    roots = np.array([classes.find(one) for one in range(len(classes.parents))])
    compact = np.unique(roots, return_inverse=True)[1]
    least = np.full(int(compact.max()) + 1, 0.01)
    for channels, floor in walk.floors:
        np.maximum.at(least, compact[channels], np.maximum(floor, 0.01))
    tensors = {name: walk.by_channel(name) for name in walk.ids}
    return Scaling(
        {name: compact[found] for name, found in tensors.items() if found is not None},
        {place: compact[found] for place, found in walk.constants.items()},
        len(least),
        least,
        {
            name: walk.ids[walk.network.nodes_by_name[name].output].ndim
            for name, _ in walk.constants
        },
    )


class _Walk:
    """The walk through a network, node after node, that joins classes of channels."""

    def __init__(self, network: Network, stats: Mapping[str, Channels]) -> None:
        self.network, self.stats = network, stats
        self.classes = _Classes()
        self.ids: dict[str, Array] = {}  # the class of every element [1, …]
        self.constants: dict[tuple[str, int], Array] = {}
        self.floors: list[tuple[Array, Array]] = []
        self.producers = {one.name for one in weighted(network) if one.op in ("Conv", "Gemm")}

    def by_channel(self, name: str) -> Array | None:
        """The class of every channel, or None where a channel has several."""
        found = self.ids[name]
        if found.ndim not in (2, 4):
            return None
        rows = np.moveaxis(found, 1, 0).reshape(found.shape[1], -1)
        return rows[:, 0] if (rows == rows[:, :1]).all() else None

    def pin(self, names: list[str]) -> None:
        """These may not be scaled."""
        for name in names:
            self.classes.pin(self.ids[name])

    def visit(self, node: Node, made: list[torch.Tensor]) -> list[torch.Tensor]:
        """A hook for `Network.run`."""
        given = [name for name in node.inputs if name in self.ids]
        shape = tuple(made[0].shape)
        if not made[0].is_floating_point():
            return made
        if node.name in self.producers:
            if not given or self.by_channel(node.inputs[0]) is None:
                self.pin(given)
            self.ids[node.output] = self._fresh(shape)
            return made
        known = (
            (node.op in HOMOGENEOUS and self._homogeneous(node, given, shape))
            or (node.op in MOVING and self._moving(node, given, made))
            or self._sum(node, shape)
            or self._product(node, shape)
            or self._clip(node)
        )
        if not known:
            self.pin(given)
            for name, value in zip(node.outputs, made, strict=False):
                self.ids[name] = np.zeros((1, *value.shape[1:]), int)
        return made

    def _fresh(self, shape: tuple[int, ...]) -> Array:
        if len(shape) not in (2, 4):
            return np.zeros((1, *shape[1:]), int)
        return _spread(self.classes.new(shape[1]), shape)

    def _homogeneous(self, node: Node, given: list[str], shape: tuple[int, ...]) -> bool:
        if not given or not _spatial(node, self.network, given):
            return False
        channels = self.by_channel(given[0])
        if channels is None or shape[1:2] != self.ids[given[0]].shape[1:2]:
            return False
        if node.op == "PRelu" and self.network.constants[node.inputs[1]].numel() > len(channels):
            return False
        self.ids[node.output] = _spread(channels, shape)
        return True

    def _moving(self, node: Node, given: list[str], made: list[torch.Tensor]) -> bool:
        if not given:
            return False
        moved = _moved(node, self.network, self.ids)
        if [one.shape[1:] for one in moved] != [tuple(one.shape[1:]) for one in made]:
            return False  # it depends on the batch, or mixes samples
        self.ids.update(zip(node.outputs, moved, strict=True))
        return True

    def _sum(self, node: Node, shape: tuple[int, ...]) -> bool:
        if node.op not in ("Add", "Sub"):
            return False
        a, b = node.inputs
        if a in self.ids and b in self.ids:
            if self.ids[a].shape != self.ids[b].shape:
                return False
            self.classes.union(self.ids[a], self.ids[b])
            self.ids[node.output] = self.ids[a]
            return True
        place = 1 if a in self.ids else 0
        return self._constant(node, place, shape, node.inputs[1 - place])

    def _constant(self, node: Node, place: int, shape: tuple[int, ...], other: str) -> bool:
        """A summand that is the same everywhere in a channel."""
        value = self.network.constants.get(node.inputs[place])
        channels = self.by_channel(other) if other in self.ids else None
        if value is None or channels is None or self.ids[other].shape[1:] != shape[1:]:
            return False
        wide = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
        if wide[:1] + wide[2:] != (1,) * (len(shape) - 1) or wide[1] not in (1, len(channels)):
            return False
        self.constants[node.name, place] = channels
        self.ids[node.output] = self.ids[other]
        return True

    def _product(self, node: Node, shape: tuple[int, ...]) -> bool:
        if node.op not in ("Mul", "Div"):
            return False
        kept = self._kept(node)
        if kept is None or self.ids[kept].shape[1:] != shape[1:]:
            return False
        self.ids[node.output] = self.ids[kept]
        return True

    def _kept(self, node: Node) -> str | None:
        """The factor whose channels a product has; a gate, the other factor, stays as it is."""
        a, b = node.inputs
        known = [name for name in (a, b) if name in self.ids]
        if len(known) == 1 and (known[0] == a or node.op == "Mul"):
            other = b if known[0] == a else a
            return known[0] if other in self.network.constants else None
        gates = [name for name in (a, b) if _is_gate(self.network, name)]
        if node.op == "Div" or len(known) < 2 or len(gates) != 1:
            return None
        # A network that squashes its own input is no gate: its argument is pinned elsewhere.
        self.pin(gates)
        return b if gates[0] == a else a

    def _clip(self, node: Node) -> bool:
        """A ReLU6: channels that never reach 6 may be scaled, as long as they do not."""
        if node.op != "Clip" or node.inputs[0] not in self.ids:
            return False
        low, high = clipped(node, self.network)
        stats, channels = self.stats.get(node.output), self.by_channel(node.inputs[0])
        if low != 0 or high is None or stats is None or channels is None:
            return False
        reach = highest(self.network, self.stats, node.output) / (0.9 * high)
        self.classes.pin(channels[reach > 1])
        self.floors.append((channels, np.minimum(reach, 1.0)))
        self.ids[node.output] = self.ids[node.inputs[0]]
        return True


def _spatial(node: Node, network: Network, given: list[str]) -> bool:
    """Whether an operator acts on the axes behind the channels alone."""
    if node.op in ("ReduceMean", "ReduceMax"):
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1 and node.inputs[1] in network.constants:
            axes = network.constants[node.inputs[1]].tolist()
        axes = axes or []
        return bool(axes) and all(axis >= 2 or axis in (-1, -2) for axis in axes)
    if node.op == "PRelu":
        return node.inputs[1] in network.constants
    if node.op == "Pad":
        amounts = network.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        value = network.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        plain = len(node.inputs) < 3 or not node.inputs[2] or (
            value is not None and not value.any())  # fmt: skip
        if amounts is None or not plain:
            return False
        half = len(amounts) // 2
        return not (amounts[:2].any() or amounts[half : half + 2].any())
    return len(given) == 1


def _spread(channels: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(
        channels.reshape(1, -1, *[1] * (len(shape) - 2)), (1, len(channels), *shape[2:])
    )


def _moved(node: Node, network: Network, ids: Mapping[str, Array]) -> list[Array]:
    """The classes where an operator that only moves elements puts them."""
    import torch

    given: list[torch.Tensor | None] = []
    for name in node.inputs:
        if name in ids:
            given.append(torch.from_numpy(np.array(ids[name], np.float64)))
        else:
            given.append(network.constants.get(name) if name else None)
    try:
        found = network.apply(node, given)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return [np.zeros((0,), int) for _ in node.outputs]  # a shape computed from the batch, say
    return [one.numpy().astype(int) for one in found]


def _is_gate(network: Network, name: str) -> bool:
    """Whether a tensor comes out of a sigmoid or the like, perhaps reshaped."""
    node = network.producers.get(name)
    while node is not None and node.op in MOVING | {"Identity", "Expand"}:
        node = network.producers.get(node.inputs[0])
    return node is not None and node.op in GATES
