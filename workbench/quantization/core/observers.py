"""What calibration samples show of a float network: every channel's extremes, power and weight."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size, channel_axis, slice_batch
from workbench.quantization.core.hutchinson import projected_gradients, run_with_leaves
from workbench.quantization.core.plan import ActivationRange

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.samples import Feeds, Samples

Array = NDArray[Any]

MANY = 100  # values of a channel, from which its extremes can be told
RARE = 0.25  # a channel that stays below this part of its span before a ReLU is hardly ever on


@dataclass(frozen=True)
class ChannelStatistics:
    """What was observed of one tensor, by channel [C].

    Attributes:
        low, high: the extremes, low <= 0 <= high.
        power: the mean square.
        importance: how much noise of unit variance in one channel moves the outputs, in the mean.
        count: of values that were seen of each channel.
    """

    low: Array
    high: Array
    power: Array
    importance: Array
    count: int = MANY

    @property
    def extremes(self) -> ActivationRange:
        """The range of all channels together."""
        return ActivationRange(float(self.low.min()), float(self.high.max()))

    @property
    def rounding_noise(self) -> float:
        """The variance that 8 bits for the whole tensor add to each element.

        A grid of step s has noise of s² / 12.
        """
        step = (float(self.high.max()) - float(self.low.min())) / 255
        return step**2 / 12

    def scaled(self, scales: Array) -> ChannelStatistics:
        """The same after the channels are divided by `scales` [C]."""
        return ChannelStatistics(
            self.low / scales, self.high / scales, self.power / scales**2,
            self.importance * scales**2, self.count,
        )  # fmt: skip


def batch_among_channels(network: Network, feeds: Feeds) -> frozenset[str]:
    """The tensors in whose channels' place the batch stands, as in [3, N, heads, T, D].

    Found by a run of one sample and one of all.
    """
    import torch

    def channel_counts(samples: int) -> dict[str, int]:
        counts: dict[str, int] = {}

        def hook(node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
            for name, value in zip(node.outputs, outputs, strict=False):
                if value.ndim > 1:
                    counts[name] = value.shape[channel_axis(value.ndim)]
            return outputs

        with torch.no_grad():
            network.run(slice_batch(feeds, 0, samples), hook)
        return counts

    if batch_size(feeds) < 2:
        return frozenset()
    single, whole = channel_counts(1), channel_counts(batch_size(feeds))
    return frozenset(name for name, count in whole.items() if single.get(name) != count)


def observe_channels(
    network: Network, tensors: Collection[str], samples: Samples
) -> dict[str, ChannelStatistics]:
    """Extremes and power of the channels of `tensors`, in one pass; importance 1.

    Where the batch stands in the channels' place, all values count as one channel.
    """
    import torch

    observed: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]] = {}
    together = batch_among_channels(network, samples[0]) if samples else frozenset()

    def observe(name: str, value: torch.Tensor) -> None:
        if name not in tensors or not value.is_floating_point() or value.ndim < 2:
            return
        rows = _by_channel(value.detach(), name in together)
        low, high = rows.amin((0, 2)), rows.amax((0, 2))
        power, count = _sums_of_squares(rows), rows.shape[0] * rows.shape[2]
        if name in observed:
            before = observed[name]
            low, high = torch.minimum(before[0], low), torch.maximum(before[1], high)
            power, count = before[2] + power, before[3] + count
        observed[name] = low, high, power, count

    def hook(node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        for name, value in zip(node.outputs, outputs, strict=False):
            observe(name, value)
        return outputs

    with torch.no_grad():
        for feeds in samples:
            for name, value in feeds.items():
                observe(name, value)
            network.run(feeds, hook)
    return {
        name: ChannelStatistics(
            np.minimum(low.numpy().astype(np.float64), 0),
            np.maximum(high.numpy().astype(np.float64), 0),
            power.numpy() / count,
            np.ones(len(low)),
            count,
        )
        for name, (low, high, power, count) in observed.items()
    }


def channel_importances(
    network: Network, tensors: Collection[str], samples: Samples, seed: int = 0, draws: int = 2
) -> dict[str, Array]:
    """For each tensor the importance of its channels [C]: the mean of Σ (∂(v · outputs) / ∂t)².

    Over samples and draws of random signs v: the diagonal of JᵀJ (see `hutchinson`). A tensor that
    no gradient reaches is absent.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, torch.Tensor] = {}
    together = batch_among_channels(network, samples[0]) if samples else frozenset()
    for feeds in samples:
        leaves, ends = run_with_leaves(network, feeds, tensors)
        if not ends:
            return {}
        for gradients in projected_gradients(ends, list(leaves.values()), draws, generator):
            for name, gradient in zip(leaves, gradients, strict=True):
                if gradient is None or gradient.ndim < 2:
                    continue
                squares = _sums_of_squares(_by_channel(gradient, name in together))
                sums[name] = sums[name] + squares if name in sums else squares
    total = draws * sum(map(batch_size, samples))
    return {name: squares.numpy() / total for name, squares in sums.items()}


def _by_channel(value: torch.Tensor, together: bool) -> torch.Tensor:
    """A view of values with the channels in the middle [A, C, B]; as one channel [A, 1, B]."""
    if together:
        return value.reshape(len(value), 1, -1)
    channels = channel_axis(value.ndim)
    return value.reshape(prod(value.shape[:channels]), value.shape[channels], -1)


def _sums_of_squares(rows: torch.Tensor) -> torch.Tensor:
    """Of every channel of [A, C, B], in double precision [C]; along B in single, which is enough.

    A copy of an activation in doubles would cost more than the sum.
    """
    import torch

    if rows.shape[2] == 1:
        values = rows[..., 0].numpy()
        return torch.from_numpy(np.einsum("ac,ac->c", values, values, dtype=np.float64))
    sums: torch.Tensor = torch.linalg.vector_norm(rows, dim=2).double().square().sum(0)
    return sums


def reachable_maxima(network: Network, stats: Mapping[str, ChannelStatistics], name: str) -> Array:
    """What a tensor's channels [C] may reach, behind a ReLU at least RARE of what it clips.

    A channel that calibration hardly saw above 0 may be on in the next sample: were it amplified
    to the range of the others, it would then leave the grid. Nor do less than MANY values, as 64
    samples show of a vector, tell the extremes of a channel: none is amplified above the others.
    """
    high: Array = stats[name].high
    if stats[name].count < MANY:
        high = np.full_like(high, high.max())
    producer = network.producers.get(name)
    clipped = producer is not None and producer.op in ("Relu", "Clip")
    before = stats.get(producer.inputs[0]) if producer is not None and clipped else None
    if before is None or before.high.shape != high.shape:
        return high
    maxima: Array = np.maximum(high, RARE * (before.high - before.low))
    return maxima


def with_importances(
    stats: Mapping[str, ChannelStatistics], importances: Mapping[str, Array]
) -> dict[str, ChannelStatistics]:
    """Statistics with importances; where no gradient came, of the channels' inverse power."""
    weighed = {}
    for name, tensor in stats.items():
        importance = importances.get(name)
        if importance is None or not np.isfinite(importance).all() or not importance.any():
            least = max(float(tensor.power.mean()), 1e-30) * 1e-6
            importance = 1 / np.maximum(tensor.power, least)
        weighed[name] = replace(tensor, importance=np.asarray(importance, np.float64))
    return weighed
