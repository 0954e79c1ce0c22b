"""Channels that must be scaled alike, through everything between convolutions that commutes.

A positive factor on a channel passes ReLU, pooling, a shuffle; two summands of one sum must have
the same; the sigmoid's argument may have none. Union-find over single channels says so for any
graph: residual sums, concatenations and shuffles need no cases of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.observers import reachable_maxima
from workbench.quantization.core.placement import clip_bounds, weighted_nodes
from workbench.quantization.core.union_find import UnionFind

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics
    from workbench.quantization.core.samples import Feeds

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


@dataclass(frozen=True)
class ScaledConstant:
    """An initializer that is added to channels, and divided as they are.

    Attributes:
        classes: of the channels [C].
        rank: of the tensor that it is added to.
    """

    classes: Array
    rank: int


@dataclass(frozen=True)
class ScalableChannels:
    """Which factors may be chosen, and where they act.

    Attributes:
        tensors: by name, the class [C] of every channel; class 0 is fixed at 1.
        constants: by node and position among its inputs.
        least: the smallest factor of each class [count], class 0 included.
    """

    tensors: Mapping[str, Array]
    constants: Mapping[tuple[str, int], ScaledConstant]
    least: Array

    @property
    def count(self) -> int:
        """Of classes, 0 included."""
        return len(self.least)


def find_scalable_channels(
    network: Network, sample: Feeds, stats: Mapping[str, ChannelStatistics]
) -> ScalableChannels:
    """The classes of a network's channels; one sample shows the shapes."""
    import torch

    walk = _Walk(network, stats)
    for name, value in sample.items():
        walk.members[name] = np.zeros((1, *value.shape[1:]), int)
    with torch.no_grad():
        outputs = network.run(sample, walk.visit)
    walk.pin([n for n in network.outputs if n in walk.members and outputs[n].is_floating_point()])
    classes = walk.classes.numbers()
    least = np.full(int(classes.max()) + 1, 0.01)
    for channels, floor in walk.floors:
        np.maximum.at(least, classes[channels], np.maximum(floor, 0.01))
    channels_of = {name: walk.by_channel(name) for name in walk.members}
    return ScalableChannels(
        {name: classes[members] for name, members in channels_of.items() if members is not None},
        {
            (name, position): ScaledConstant(
                classes[members], walk.members[network.nodes_by_name[name].output].ndim
            )
            for (name, position), members in walk.constants.items()
        },
        least,
    )


class _Walk:
    """The walk through a network, node after node, that joins classes of channels."""

    def __init__(self, network: Network, stats: Mapping[str, ChannelStatistics]) -> None:
        self.network, self.stats = network, stats
        self.classes = UnionFind(1)  # class 0 holds all that may not be scaled
        self.members: dict[str, Array] = {}  # the member of every element of a tensor [1, …]
        self.constants: dict[tuple[str, int], Array] = {}
        self.floors: list[tuple[Array, Array]] = []
        self.layers = {node.name for node in weighted_nodes(network) if node.op in ("Conv", "Gemm")}

    def by_channel(self, name: str) -> Array | None:
        """The member of every channel, or None where a channel has several."""
        members = self.members[name]
        if members.ndim not in (2, 4):
            return None
        rows = np.moveaxis(members, 1, 0).reshape(members.shape[1], -1)
        return rows[:, 0] if (rows == rows[:, :1]).all() else None

    def pin(self, names: Sequence[str]) -> None:
        """These may not be scaled."""
        for name in names:
            self._pin(self.members[name])

    def _pin(self, members: Array) -> None:
        members = np.unique(members)
        self.classes.union(members, np.zeros(len(members), int))

    def visit(self, node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """A hook for `Network.run`."""
        inputs = [name for name in node.inputs if name in self.members]
        shape = tuple(outputs[0].shape)
        if not outputs[0].is_floating_point():
            return outputs
        if node.name in self.layers:
            if not inputs or self.by_channel(node.inputs[0]) is None:
                self.pin(inputs)
            self.members[node.output] = self._new_channels(shape)
            return outputs
        commutes = (
            (node.op in HOMOGENEOUS and self._homogeneous(node, inputs, shape))
            or (node.op in MOVING and self._moving(node, inputs, outputs))
            or self._sum(node, shape)
            or self._product(node, shape)
            or self._clip(node)
        )
        if not commutes:
            self.pin(inputs)
            for name, value in zip(node.outputs, outputs, strict=False):
                self.members[name] = np.zeros((1, *value.shape[1:]), int)
        return outputs

    def _new_channels(self, shape: tuple[int, ...]) -> Array:
        if len(shape) not in (2, 4):
            return np.zeros((1, *shape[1:]), int)
        return _spread(self.classes.add(shape[1]), shape)

    def _homogeneous(self, node: NetworkNode, inputs: list[str], shape: tuple[int, ...]) -> bool:
        if not inputs or not _acts_behind_channels(node, self.network, inputs):
            return False
        channels = self.by_channel(inputs[0])
        if channels is None or shape[1:2] != self.members[inputs[0]].shape[1:2]:
            return False
        if node.op == "PRelu" and self.network.constants[node.inputs[1]].numel() > len(channels):
            return False
        self.members[node.output] = _spread(channels, shape)
        return True

    def _moving(self, node: NetworkNode, inputs: list[str], outputs: list[torch.Tensor]) -> bool:
        if not inputs:
            return False
        moved = _move(node, self.network, self.members)
        if [part.shape[1:] for part in moved] != [tuple(part.shape[1:]) for part in outputs]:
            return False  # it depends on the batch, or mixes samples
        self.members.update(zip(node.outputs, moved, strict=True))
        return True

    def _sum(self, node: NetworkNode, shape: tuple[int, ...]) -> bool:
        if node.op not in ("Add", "Sub"):
            return False
        a, b = node.inputs
        if a in self.members and b in self.members:
            if self.members[a].shape != self.members[b].shape:
                return False
            self.classes.union(self.members[a], self.members[b])
            self.members[node.output] = self.members[a]
            return True
        return self._constant_summand(node, 1 if a in self.members else 0, shape)

    def _constant_summand(self, node: NetworkNode, position: int, shape: tuple[int, ...]) -> bool:
        """A summand that is the same everywhere in a channel."""
        value = self.network.constants.get(node.inputs[position])
        tensor = node.inputs[1 - position]
        channels = self.by_channel(tensor) if tensor in self.members else None
        if value is None or channels is None or self.members[tensor].shape[1:] != shape[1:]:
            return False
        full = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
        if full[:1] + full[2:] != (1,) * (len(shape) - 1) or full[1] not in (1, len(channels)):
            return False
        self.constants[node.name, position] = channels
        self.members[node.output] = self.members[tensor]
        return True

    def _product(self, node: NetworkNode, shape: tuple[int, ...]) -> bool:
        if node.op not in ("Mul", "Div"):
            return False
        factor = self._scaled_factor(node)
        if factor is None or self.members[factor].shape[1:] != shape[1:]:
            return False
        self.members[node.output] = self.members[factor]
        return True

    def _scaled_factor(self, node: NetworkNode) -> str | None:
        """The factor whose channels a product has; a gate, the other factor, stays as it is."""
        a, b = node.inputs
        computed = [name for name in (a, b) if name in self.members]
        if len(computed) == 1 and (computed[0] == a or node.op == "Mul"):
            constant = b if computed[0] == a else a
            return computed[0] if constant in self.network.constants else None
        gates = [name for name in (a, b) if _is_gate(self.network, name)]
        if node.op == "Div" or len(computed) < 2 or len(gates) != 1:
            return None
        # A network that squashes its own input is no gate: its argument is pinned elsewhere.
        self.pin(gates)
        return b if gates[0] == a else a

    def _clip(self, node: NetworkNode) -> bool:
        """A ReLU6: channels that never reach 6 may be scaled, as long as they do not."""
        if node.op != "Clip" or node.inputs[0] not in self.members:
            return False
        low, high = clip_bounds(node, self.network)
        stats, channels = self.stats.get(node.output), self.by_channel(node.inputs[0])
        if low != 0 or high is None or stats is None or channels is None:
            return False
        reach = reachable_maxima(self.network, self.stats, node.output) / (0.9 * high)
        self._pin(channels[reach > 1])
        self.floors.append((channels, np.minimum(reach, 1.0)))
        self.members[node.output] = self.members[node.inputs[0]]
        return True


def _acts_behind_channels(node: NetworkNode, network: Network, inputs: list[str]) -> bool:
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
    return len(inputs) == 1


def _spread(channels: Array, shape: tuple[int, ...]) -> Array:
    return np.broadcast_to(
        channels.reshape(1, -1, *[1] * (len(shape) - 2)), (1, len(channels), *shape[2:])
    )


def _move(node: NetworkNode, network: Network, members: Mapping[str, Array]) -> list[Array]:
    """The members where an operator that only moves elements puts them."""
    import torch

    inputs: list[torch.Tensor | None] = []
    for name in node.inputs:
        if name in members:
            inputs.append(torch.from_numpy(np.array(members[name], np.float64)))
        else:
            inputs.append(network.constants.get(name) if name else None)
    try:
        outputs = network.apply(node, inputs)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return [np.zeros((0,), int) for _ in node.outputs]  # a shape computed from the batch, say
    return [output.numpy().astype(int) for output in outputs]


def _is_gate(network: Network, name: str) -> bool:
    """Whether a tensor comes out of a sigmoid or the like, perhaps reshaped."""
    node = network.producers.get(name)
    while node is not None and node.op in MOVING | {"Identity", "Expand"}:
        node = network.producers.get(node.inputs[0])
    return node is not None and node.op in GATES
