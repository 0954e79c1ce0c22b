"""Ranges by what their error does to the network's outputs, to first order.

An activation's error e reaches the outputs as J e. For a random sign vector v over the outputs,
E_v[(vᵀ J e)²] = |J e|² (Hutchinson 1989), and vᵀJ is one backward pass. Errors that are alike all
over an image, as clipping gives, add up there, those of rounding cancel out, which no mean of
|e|^p sees. The error of an element depends on its value alone, so for every sample and draw the
gradient is summed by value: a histogram of gradients, from which the effect of any range is a
product of matrices. What is constant in a channel is taken off: bias correction removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.quantization.core.moments import channel_axis
from workbench.quantization.core.plan import LEVELS, Range, Scheme

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network, Node

BINS = 2048
FEW = 2000  # values of a channel: with fewer, the tails of the other samples are not among them
SHRINK = (0.12, 1.0, 23)  # the fractions of an extreme that are tried: from, to, how many


@dataclass(frozen=True)
class Projection:
    """Of one tensor: gradients summed by value, and how its values lie.

    centres [B]: of the bins. gradients [R, B]: for each sample and draw. counts [C, B]: the share
    of a channel's elements in each bin. totals [R, C]: the gradient of a channel, summed. after:
    the nonlinearity that follows, whose output the gradients are of; None for none.
    """

    centres: torch.Tensor
    gradients: torch.Tensor
    counts: torch.Tensor
    totals: torch.Tensor
    after: Callable[[torch.Tensor], torch.Tensor] | None

    def noise(self, low: torch.Tensor, high: torch.Tensor, scheme: Scheme) -> torch.Tensor:
        """The outputs' noise power for each range low [K], high [K]: [K]."""
        made = _on_grid(self.centres, low, high, scheme)
        aim = self.centres[:, None]
        if self.after is not None:
            made, aim = self.after(made), self.after(aim)
        error = made - aim
        reached = self.gradients @ error - self.totals @ (self.counts @ error)
        found: torch.Tensor = reached.square().mean(0)
        return found

    def best(self, scheme: Scheme) -> Range:
        """The range of least noise: both ends in turn, three times, ever finer."""
        import torch

        bottom, top = min(float(self.centres[0]), 0.0), max(float(self.centres[-1]), 0.0)
        low, high = bottom, top
        for step in (1.0, 1.0, 0.12, 0.03):
            parts = torch.linspace(*SHRINK) if step == 1.0 else 1 + step * torch.linspace(-1, 1, 13)
            start = (bottom, top) if step == 1.0 else (low, high)
            highs = start[1] * parts
            lows = low * parts if scheme.symmetric else torch.full_like(highs, low)
            high = float(highs[self.noise(lows, highs, scheme).argmin()])
            if low < 0:
                lows = start[0] * parts
                highs = torch.full_like(lows, high)
                low = float(lows[self.noise(lows, highs, scheme).argmin()])
        return Range(low, high)


def _on_grid(
    values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, scheme: Scheme
) -> torch.Tensor:
    """Values [B] on the grids of ranges [K]: [B, K]."""
    import torch

    if scheme.symmetric:
        scale = (torch.maximum(-low, high) / 127).clamp_min(1e-12)
        return torch.round(values[:, None] / scale).clamp(-127, 127) * scale
    scale = ((high - low) / LEVELS).clamp_min(1e-12)
    zero = torch.round(-low / scale)
    steps = (torch.round(values[:, None] / scale) + zero).clamp(0, LEVELS) - zero
    return steps * scale


def projected(
    network: Network,
    tensors: Mapping[str, Node | None],
    stats: Mapping[str, Channels],
    batches: Callable[[], Iterable[Mapping[str, torch.Tensor]]],
    seed: int = 0,
    draws: int = 4,
) -> dict[str, Projection]:
    """The projections of tensors, by name, each with the nonlinearity that alone takes it, or None.

    Those that no gradient reaches, or of which the samples show FEW values, are absent.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    of_gradient = {name: node.output if node else name for name, node in tensors.items()}
    watched = {*tensors, *of_gradient.values()}
    sums: dict[str, list[torch.Tensor]] = {}
    totals: dict[str, list[torch.Tensor]] = {}
    counts: dict[str, torch.Tensor] = {}
    for feeds in batches():
        leaves: dict[str, torch.Tensor] = {}

        def hook(
            node: Node, made: list[torch.Tensor], leaves: dict[str, torch.Tensor] = leaves
        ) -> list[torch.Tensor]:
            for place, name in enumerate(node.outputs):
                if name in watched and made[place].is_floating_point():
                    if not made[place].requires_grad:
                        made[place] = made[place].detach().requires_grad_()
                    leaves[name] = made[place]
            return made

        outputs = network.run(feeds, hook)
        ends = [outputs[name] for name in network.outputs if outputs[name].requires_grad]
        if not ends:
            return {}
        # By channel: so not where the batch stands in the channels' place (`statistics.grows`).
        index = {
            name: _bins(leaves[name].detach(), stats[name])
            for name in tensors
            if name in leaves
            and name in stats
            and leaves[name].ndim > 1
            and len(stats[name].low) == leaves[name].shape[channel_axis(leaves[name].ndim)]
        }
        if not index:
            return {}
        for name, bins in index.items():
            found = _by_channel(bins, leaves[name].ndim)
            counts[name] = counts[name] + found if name in counts else found
        for draw in range(draws):
            total = torch.zeros(())
            for one in ends:
                signs = torch.randint(0, 2, one.shape, generator=generator).to(one.dtype) * 2 - 1
                size = one.detach().square().mean().sqrt().clamp_min(1e-12) if len(ends) > 1 else 1
                total = total + (signs * one / size).sum()
            wanted = list(index)
            gradients = torch.autograd.grad(
                total, [leaves[of_gradient[name]] for name in wanted], allow_unused=True,
                retain_graph=draw + 1 < draws,
            )  # fmt: skip
            for name, gradient in zip(wanted, gradients, strict=True):
                if gradient is None or gradient.shape != leaves[name].shape:
                    continue
                sums.setdefault(name, []).append(_by_value(index[name], gradient))
                axis = channel_axis(gradient.ndim)
                over = [one for one in range(1, gradient.ndim) if one != axis]
                totals.setdefault(name, []).append(gradient.sum(over) if over else gradient)
    return {
        name: Projection(
            _centres(stats[name]), torch.cat(sums[name]),
            counts[name] / counts[name].sum(1, keepdim=True).clamp_min(1), torch.cat(totals[name]),
            _function(network, tensors[name]),
        )
        for name in sums if counts[name].sum(1).min() >= FEW
    }  # fmt: skip


def _function(network: Network, node: Node | None) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if node is None:
        return None
    rest = [network.constants.get(one) for one in node.inputs[1:]]
    return lambda x: network.apply(node, [x, *rest])[0]


def _ends(one: Channels) -> tuple[float, float]:
    low, high = float(one.low.min()), float(one.high.max())
    return low, high if high > low else low + 1.0


def _centres(one: Channels) -> torch.Tensor:
    import torch

    low, high = _ends(one)
    width = (high - low) / BINS
    return low + width * (torch.arange(BINS) + 0.5)


def _bins(values: torch.Tensor, one: Channels) -> torch.Tensor:
    low, high = _ends(one)
    return ((values - low) * (BINS / (high - low))).long().clamp_(0, BINS - 1)


def _by_value(bins: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradients [N, …] summed by bin, for each sample: [N, B]."""
    import torch

    count = len(bins)
    flat = bins.reshape(count, -1) + BINS * torch.arange(count)[:, None]
    found = torch.bincount(flat.reshape(-1), gradient.reshape(-1), BINS * count)
    return found.reshape(count, BINS).float()


def _by_channel(bins: torch.Tensor, rank: int) -> torch.Tensor:
    """How often each channel's values fall into each bin: [C, B]."""
    import torch

    rows = bins.movedim(channel_axis(rank), 0).flatten(1)
    flat = rows + BINS * torch.arange(len(rows))[:, None]
    return torch.bincount(flat.reshape(-1), minlength=BINS * len(rows)).reshape(-1, BINS).float()
