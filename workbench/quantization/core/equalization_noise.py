"""The noise that reaches the outputs, by a model, and the factors between channels of least noise.

A tensor with one grid for all channels has noise of variance ((H + L) / 255)² / 12 in every
element, H = max_c high_c / s_c, L likewise; a channel's share of it reaches the outputs with
importance I_c s_c². A consumer's row o, of scale m_o / 127, adds (m_o / 127)² / 12 for each weight,
times the power of what the weight multiplies, E[x_c²] / s_c². With a scale for each row, the
producer's rows and depthwise consumers absorb any factor for free. Importance is 1 for all
channels, or what gradients say (`observers.with_importances`): which is better differs between
networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.observers import reachable_maxima
from workbench.quantization.core.placement import weighted_nodes
from workbench.quantization.core.union_find import UnionFind

if TYPE_CHECKING:
    from workbench.quantization.core.channel_classes import ScalableChannels
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics
    from workbench.quantization.core.placement import OperatorPlacement

Array = NDArray[Any]

STEPS, FASTEST, SLOWEST = 150, 0.08, 0.001  # of Adam: how many, the first's rate, the last's
MOMENTUM, POWER_MOMENTUM, TINY = 0.9, 0.999, 1e-8  # of Adam, as its authors give them
WIDEST = 100.0  # factors lie between 1 / WIDEST and WIDEST
POWER = 20  # of the mean that stands for the maximum, so that a gradient reaches more than one
LEAST = 1e-30  # of what is divided by, or whose logarithm is taken


@dataclass(frozen=True)
class TensorNoise:
    """A tensor with one grid: classes, extremes and importance of its channels, each [C]."""

    classes: Array
    low: Array
    high: Array
    importance: Array

    def noise(self, factors: Array) -> tuple[float, Array]:
        """The noise of its rounding, and how it grows with the logarithm of each factor."""
        own = factors[self.classes]
        span, shares = 0.0, np.zeros(len(own))
        for extremes in (self.high, -self.low) if self.low.any() else (self.high,):
            largest, powers, total = _smooth_maximum(extremes / own)
            span += float(largest)
            shares += largest * powers / total
        squares = self.importance * own**2
        scale = (span / 255) ** 2 / 12
        noise = scale * float(squares.sum())
        growth = 2 * scale * squares - 2 * noise * shares / max(span, LEAST)
        return noise, np.bincount(self.classes, growth, len(factors))


@dataclass(frozen=True)
class WeightNoise:
    """Weights that multiply channels.

    Attributes:
        largest: magnitude of the weights of each row and column, over the kernel [g, O/g, I/g].
        classes, power: of the input's channels [g, I/g].
        importance: of the rows [g, O/g].
        kernel: elements of it.
        weight_max: the largest integer of a weight.
    """

    largest: Array
    classes: Array
    power: Array
    importance: Array
    kernel: int
    weight_max: int

    def noise(self, factors: Array) -> tuple[float, Array]:
        """The noise of the weights' rounding, and how it grows with each factor's logarithm."""
        own = factors[self.classes]
        rows, powers, total = _smooth_maximum(self.largest * own[:, None])
        squares = self.importance * rows**2 * (self.kernel / 12 / self.weight_max**2)
        multiplied = self.power / own**2
        noises = squares.sum(1) * multiplied.sum(1)
        shares = np.einsum("go,goi->gi", squares / total, powers)
        growth = 2 * (shares * multiplied.sum(1)[:, None] - squares.sum(1)[:, None] * multiplied)
        spread = np.bincount(self.classes.ravel(), growth.ravel(), len(factors))
        return float(noises.sum()), spread


def _smooth_maximum(values: Array) -> tuple[Array, Array, Array]:
    """About the largest of the last axis; each value's share of it: powers [..., n] and their sum.

    It is (Σ v^p)^(1/p), whose growth with the logarithm of v is its own times v's share.
    """
    peak = np.maximum(values.max(-1, keepdims=True), LEAST)
    powers = _to_power(values / peak)
    total = np.maximum(powers.sum(-1), LEAST)  # rows of zeros
    return total ** (1 / POWER) * peak[..., 0], powers, total


def _to_power(values: Array) -> Array:
    """`values` to the power of 20, in place: five products, where `**` takes a logarithm each."""
    assert POWER == 20
    np.square(values, out=values)
    np.square(values, out=values)
    fourth = values.copy()
    np.square(values, out=values)
    np.square(values, out=values)
    return np.multiply(values, fourth, out=values)


def least_noise_factors(
    network: Network,
    channels: ScalableChannels,
    stats: Mapping[str, ChannelStatistics],
    placement: OperatorPlacement,
    weight_max: int = 127,
) -> Array:
    """The factor of every class [count], 1 for class 0; by Adam on the logarithm of the noise.

    The placement says which tensors have grids of their own, and whose weights are quantized.
    Adam: Kingma and Ba, arXiv 1412.6980.
    """
    terms: list[TensorNoise | WeightNoise] = [
        TensorNoise(channels.tensors[name], stats[name].low,
                    reachable_maxima(network, stats, name), stats[name].importance)
        for name in placement.tensors
        if name in channels.tensors and name in stats and channels.tensors[name].any()
    ]  # fmt: skip
    terms += _weights(network, channels, stats, placement, weight_max)
    groups = _groups(channels.count, [term.classes for term in terms])
    members = [int(groups[term.classes.max()]) for term in terms]
    if not any(members):
        return np.ones(channels.count)
    free = np.ones(channels.count)
    free[0] = 0
    floor = np.maximum(np.log(channels.least), -np.log(WIDEST))
    logarithms = np.zeros(channels.count)
    mean, power = np.zeros(channels.count), np.zeros(channels.count)
    for step in range(STEPS):
        gradient = free * _growth(terms, members, np.exp(logarithms * free))
        mean += (1 - MOMENTUM) * (gradient - mean)
        power += (1 - POWER_MOMENTUM) * (gradient**2 - power)
        direction = mean / (1 - MOMENTUM ** (step + 1))
        size = np.sqrt(power / (1 - POWER_MOMENTUM ** (step + 1))) + TINY
        rate = FASTEST * (SLOWEST / FASTEST) ** (step / STEPS)
        logarithms = np.clip(logarithms - rate * direction / size, floor, np.log(WIDEST))
    solution: Array = np.exp(logarithms * free)
    return solution


def _growth(
    terms: Sequence[TensorNoise | WeightNoise], members: Sequence[int], factors: Array
) -> Array:
    """How Σ log(noise of a group) grows with the logarithm of each factor [count]."""
    totals = np.zeros(max(members) + 1)
    growths = np.zeros((len(totals), len(factors)))
    for group, term in zip(members, terms, strict=True):
        if group:
            noise, growth = term.noise(factors)
            totals[group] += noise
            growths[group] += growth
    sums: Array = (growths / (totals + LEAST)[:, None]).sum(0)
    return sums


def _weights(
    network: Network,
    channels: ScalableChannels,
    stats: Mapping[str, ChannelStatistics],
    placement: OperatorPlacement,
    weight_max: int,
) -> list[WeightNoise]:
    weights = []
    for node in weighted_nodes(network):
        taken = node.inputs[0]
        if node.name not in placement.nodes or taken not in channels.tensors or taken not in stats:
            continue
        classes = channels.tensors[taken]
        rows = weight_rows(node, network.constants[node.inputs[1]].numpy())
        if not classes.any() or rows.shape[1] == 1 or node.op == "MatMul":
            continue
        group = int(node.attributes.get("group", 1))
        after = stats.get(node.output)
        importance = after.importance if after is not None else np.ones(len(rows))
        largest = np.abs(rows).max(axis=2).astype(np.float64)
        weights.append(
            WeightNoise(
                largest.reshape(group, -1, largest.shape[1]), classes.reshape(group, -1),
                stats[taken].power.reshape(group, -1), importance.reshape(group, -1),
                rows.shape[2], weight_max,
            )
        )  # fmt: skip
    return weights


def weight_rows(node: NetworkNode, weights: Array) -> Array:
    """Weights as [O, I/g, kernel], a kernel of 1 for matrix products."""
    if node.op == "Conv":
        return weights.reshape(*weights.shape[:2], -1)
    return (weights if node.attributes.get("transB") else weights.T)[:, :, None]


def input_columns(channels: Array, rows: int, group: int) -> Array:
    """What of the input's channels [C] each row of a grouped convolution sees [rows, C/group]."""
    return np.repeat(channels.reshape(group, -1), rows // group, axis=0)


def _groups(count: int, members: Sequence[Array]) -> Array:
    """Classes that meet in one noise term, as numbers [count]; class 0 is group 0."""
    groups = UnionFind(count)
    for classes in members:
        present = np.unique(classes)
        present = present[present > 0]
        if len(present):
            groups.union(np.full(len(present), present[0]), present)
    return groups.numbers()
