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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.observers import reachable_maxima
from workbench.quantization.core.placement import weighted_nodes
from workbench.quantization.core.union_find import UnionFind

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.channel_classes import ScalableChannels
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics
    from workbench.quantization.core.placement import OperatorPlacement

Array = NDArray[Any]
Noise: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"  # of the outputs, for all factors

STEPS, FASTEST, SLOWEST = 150, 0.08, 0.001  # of Adam
WIDEST = 100.0  # factors lie between 1 / WIDEST and WIDEST
POWER = 20  # of the mean that stands for the maximum, so that a gradient reaches more than one


@dataclass(frozen=True)
class _QuantizedTensor:
    """A tensor with one grid: classes, extremes and importance of its channels, each [C]."""

    classes: Array
    low: Array
    high: Array
    importance: Array

    def noise(self) -> Noise:
        """The noise of its rounding."""
        import torch

        index = torch.from_numpy(np.ascontiguousarray(self.classes))
        importance = torch.from_numpy(self.importance)
        high, low = torch.from_numpy(self.high), torch.from_numpy(-self.low)
        signed = self.low.any()

        def noise(factors: torch.Tensor) -> torch.Tensor:
            own = factors[index]
            span = _smooth_maximum(high / own) + (_smooth_maximum(low / own) if signed else 0.0)
            return (span / 255) ** 2 / 12 * (importance * own**2).sum()

        return noise


@dataclass(frozen=True)
class _Consumer:
    """Weights that multiply channels.

    Attributes:
        largest: magnitude of the weights of each row and column, over the kernel [O, I/g].
        classes, power: of the input's channels, as rows see them [O, I/g].
        importance: of the rows [O].
        kernel: elements of it.
    """

    largest: Array
    classes: Array
    power: Array
    importance: Array
    kernel: int

    def noise(self, weight_max: int) -> Noise:
        """The noise of its weights' rounding."""
        import torch

        index = torch.from_numpy(np.ascontiguousarray(self.classes))
        importance = torch.from_numpy(self.importance)
        largest, power = torch.from_numpy(self.largest), torch.from_numpy(self.power)

        def noise(factors: torch.Tensor) -> torch.Tensor:
            own = factors[index]
            rows = (_smooth_maximum(largest * own) / weight_max) ** 2 / 12
            return (importance * rows * self.kernel * (power / own**2).sum(-1)).sum()

        return noise


def _smooth_maximum(values: torch.Tensor) -> torch.Tensor:
    """About the largest of the last axis, with a gradient for all that come near."""
    peak = values.detach().amax(-1, keepdim=True).clamp_min(1e-30)
    total = ((values / peak) ** POWER).sum(-1, keepdim=True).clamp_min(1e-30)  # rows of zeros
    return (total ** (1 / POWER) * peak).squeeze(-1)


def least_noise_factors(
    network: Network,
    channels: ScalableChannels,
    stats: Mapping[str, ChannelStatistics],
    placement: OperatorPlacement,
    weight_max: int = 127,
) -> Array:
    """The factor of every class [count], 1 for class 0; by Adam on the logarithm of the noise.

    The placement says which tensors have grids of their own, and whose weights are quantized.
    """
    import torch

    tensors = [
        _QuantizedTensor(channels.tensors[name], stats[name].low,
                         reachable_maxima(network, stats, name), stats[name].importance)
        for name in placement.tensors
        if name in channels.tensors and name in stats and channels.tensors[name].any()
    ]  # fmt: skip
    consumers = _consumers(network, channels, stats, placement)
    terms = [(part.classes, part.noise()) for part in tensors]
    terms += [(part.classes, part.noise(weight_max)) for part in consumers]
    if not terms:
        return np.ones(channels.count)
    groups = _groups(channels.count, [classes for classes, _ in terms])
    count = int(groups.max()) + 1
    if count < 2:
        return np.ones(channels.count)
    logarithms = torch.zeros(channels.count, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logarithms], lr=FASTEST)
    decay = torch.optim.lr_scheduler.ExponentialLR(adam, (SLOWEST / FASTEST) ** (1 / STEPS))
    grouped = [(torch.tensor([int(groups[classes.max()])]), noise) for classes, noise in terms]
    free = torch.ones(channels.count, dtype=torch.float64)
    free[0] = 0
    floor = torch.from_numpy(np.log(channels.least))
    for _ in range(STEPS):
        factors = torch.exp(logarithms * free)
        total = torch.zeros(count, dtype=torch.float64)
        for group, noise in grouped:
            total = total.index_add(0, group, noise(factors).reshape(1))
        loss = torch.log(total[1:] + 1e-30).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        decay.step()
        with torch.no_grad():
            widest = np.log(WIDEST)
            logarithms.copy_(torch.maximum(logarithms, floor).clamp(-widest, widest))
    solution: Array = torch.exp(logarithms * free).detach().numpy()
    return solution


def _consumers(
    network: Network,
    channels: ScalableChannels,
    stats: Mapping[str, ChannelStatistics],
    placement: OperatorPlacement,
) -> list[_Consumer]:
    consumers = []
    for node in weighted_nodes(network):
        taken = node.inputs[0]
        if node.name not in placement.nodes or taken not in channels.tensors or taken not in stats:
            continue
        classes = channels.tensors[taken]
        rows = weight_rows(node, network.constants[node.inputs[1]].numpy())
        if not classes.any() or rows.shape[1] == 1 or node.op == "MatMul":
            continue
        group = int(node.attributes.get("group", 1))
        columns = input_columns(np.arange(len(classes)), rows.shape[0], group)
        after = stats.get(node.output)
        importance = after.importance if after is not None else np.ones(len(rows))
        consumers.append(
            _Consumer(
                np.abs(rows).max(axis=2).astype(np.float64), classes[columns],
                stats[taken].power[columns], importance, rows.shape[2],
            )
        )  # fmt: skip
    return consumers


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
