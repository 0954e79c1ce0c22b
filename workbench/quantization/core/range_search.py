"""Ranges of activations by what their error does to the network's outputs, to first order.

An error e reaches the outputs as J e, and random projections vᵀ J of it are gradients (see
`hutchinson`). Errors that are alike all over an image, as clipping gives, add up there, those of
rounding cancel out, which no mean of |e|^p sees. The error of an element depends on its value
alone, so for every sample and draw the gradient is summed by value: a histogram of gradients, from
which the effect of any range is a product of matrices. What is constant in a channel is taken off:
bias correction removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.arrays import channel_axis
from workbench.quantization.core.hutchinson import projected_gradients, run_with_leaves
from workbench.quantization.core.plan import LEVELS, ActivationRange, QuantizationScheme

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics
    from workbench.quantization.core.samples import Samples

BINS = 2048
FEW = 2000  # values of a channel: with fewer, the tails of the other samples are not among them
SHRINK = (0.12, 1.0, 23)  # the fractions of an extreme that are tried: from, to, how many


@dataclass(frozen=True)
class GradientHistogram:
    """Of one tensor: gradients summed by value, and how its values lie.

    Attributes:
        centres: of the bins [B].
        gradients: for each sample and draw [R, B].
        counts: the share of a channel's elements in each bin [C, B].
        totals: the gradient of a channel, summed [R, C].
        nonlinearity: that which follows, whose output the gradients are of; None for none.
    """

    centres: torch.Tensor
    gradients: torch.Tensor
    counts: torch.Tensor
    totals: torch.Tensor
    nonlinearity: Callable[[torch.Tensor], torch.Tensor] | None

    def output_noise(
        self, low: torch.Tensor, high: torch.Tensor, scheme: QuantizationScheme
    ) -> torch.Tensor:
        """The outputs' noise power for each range low [K], high [K]: [K]."""
        quantized = _on_grids(self.centres, low, high, scheme)
        exact = self.centres[:, None]
        if self.nonlinearity is not None:
            quantized, exact = self.nonlinearity(quantized), self.nonlinearity(exact)
        error = quantized - exact
        projections = self.gradients @ error - self.totals @ (self.counts @ error)
        power: torch.Tensor = projections.square().mean(0)
        return power

    def best_range(self, scheme: QuantizationScheme) -> ActivationRange:
        """The range of least noise: both ends in turn, over all and then ever finer."""
        import torch

        bottom, top = min(float(self.centres[0]), 0.0), max(float(self.centres[-1]), 0.0)
        low, high = bottom, top
        for step in (1.0, 1.0, 0.12, 0.03):
            parts = torch.linspace(*SHRINK) if step == 1.0 else 1 + step * torch.linspace(-1, 1, 13)
            start = (bottom, top) if step == 1.0 else (low, high)
            highs = start[1] * parts
            lows = low * parts if scheme.symmetric else torch.full_like(highs, low)
            high = float(highs[self.output_noise(lows, highs, scheme).argmin()])
            if low < 0:
                lows = start[0] * parts
                highs = torch.full_like(lows, high)
                low = float(lows[self.output_noise(lows, highs, scheme).argmin()])
        return ActivationRange(low, high)


def _on_grids(
    values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, scheme: QuantizationScheme
) -> torch.Tensor:
    """Values [B] on the grids of ranges [K]: [B, K]."""
    import torch

    if scheme.symmetric:
        scale = (torch.maximum(-low, high) / 127).clamp_min(1e-12)
        return torch.round(values[:, None] / scale).clamp(-127, 127) * scale
    scale = ((high - low) / LEVELS).clamp_min(1e-12)
    zero_point = torch.round(-low / scale)
    steps = (torch.round(values[:, None] / scale) + zero_point).clamp(0, LEVELS) - zero_point
    return steps * scale


def gradient_histograms(
    network: Network,
    tensors: Mapping[str, NetworkNode | None],
    stats: Mapping[str, ChannelStatistics],
    samples: Samples,
    seed: int = 0,
    draws: int = 4,
) -> dict[str, GradientHistogram]:
    """The histograms of tensors by name, each with the nonlinearity that alone takes it, or None.

    Those that no gradient reaches, or of which the samples show FEW values, are absent.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    behind = {name: node.output if node else name for name, node in tensors.items()}
    gradients: dict[str, list[torch.Tensor]] = {}
    totals: dict[str, list[torch.Tensor]] = {}
    counts: dict[str, torch.Tensor] = {}
    for feeds in samples:
        leaves, ends = run_with_leaves(network, feeds, {*tensors, *behind.values()})
        # By channel: so not where the batch stands in the channels' place.
        bins = {
            name: _bins(leaves[name].detach(), stats[name])
            for name in tensors
            if name in leaves
            and name in stats
            and leaves[name].ndim > 1
            and len(stats[name].low) == leaves[name].shape[channel_axis(leaves[name].ndim)]
        }
        if not ends or not bins:
            return {}
        for name, indices in bins.items():
            count = _count_by_channel(indices)
            counts[name] = counts[name] + count if name in counts else count
        ahead = [leaves[behind[name]] for name in bins]
        for drawn in projected_gradients(ends, ahead, draws, generator):
            for name, gradient in zip(bins, drawn, strict=True):
                if gradient is None or gradient.shape != leaves[name].shape:
                    continue
                gradients.setdefault(name, []).append(_sum_by_bin(bins[name], gradient))
                channels = channel_axis(gradient.ndim)
                others = [axis for axis in range(1, gradient.ndim) if axis != channels]
                totals.setdefault(name, []).append(gradient.sum(others) if others else gradient)
    return {
        name: GradientHistogram(
            _centres(stats[name]), torch.cat(gradients[name]),
            counts[name] / counts[name].sum(1, keepdim=True).clamp_min(1), torch.cat(totals[name]),
            _function(network, tensors[name]),
        )
        for name in gradients if counts[name].sum(1).min() >= FEW
    }  # fmt: skip


def _function(
    network: Network, node: NetworkNode | None
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if node is None:
        return None
    stored = [network.constants.get(name) for name in node.inputs[1:]]
    # One value each: a slope [1, 1, 1] would add an axis to the values [B, K].
    constants = [None if constant is None else constant.reshape(()) for constant in stored]
    return lambda x: network.apply(node, [x, *constants])[0]


def _ends(tensor: ChannelStatistics) -> tuple[float, float]:
    low, high = float(tensor.low.min()), float(tensor.high.max())
    return low, high if high > low else low + 1.0


def _centres(tensor: ChannelStatistics) -> torch.Tensor:
    import torch

    low, high = _ends(tensor)
    width = (high - low) / BINS
    return low + width * (torch.arange(BINS) + 0.5)


def _bins(values: torch.Tensor, tensor: ChannelStatistics) -> torch.Tensor:
    """The bin of each value."""
    low, high = _ends(tensor)
    return ((values - low) * (BINS / (high - low))).long().clamp_(0, BINS - 1)


def _sum_by_bin(bins: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradients [N, …] summed by bin, for each sample: [N, B]."""
    import torch

    count = len(bins)
    flat = bins.reshape(count, -1) + BINS * torch.arange(count)[:, None]
    sums = torch.bincount(flat.reshape(-1), gradient.reshape(-1), BINS * count)
    return sums.reshape(count, BINS).float()


def _count_by_channel(bins: torch.Tensor) -> torch.Tensor:
    """How often each channel's values fall into each bin: [C, B]."""
    import torch

    rows = bins.movedim(channel_axis(bins.ndim), 0).flatten(1)
    flat = rows + BINS * torch.arange(len(rows))[:, None]
    return torch.bincount(flat.reshape(-1), minlength=BINS * len(rows)).reshape(-1, BINS).float()
