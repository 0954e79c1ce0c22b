"""What calibration samples show of a float network: every channel's extremes, power and weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, Node

Array = NDArray[Any]
Feeds = Mapping[str, "torch.Tensor"]
Batches = Callable[[], Iterable[Feeds]]

MANY = 100  # values of a channel, from which its extremes can be told
RARE = 0.25  # a channel that stays below this part of its span before a ReLU is hardly ever on


@dataclass(frozen=True)
class Channels:
    """Of one tensor, by channel [C]: extremes (low <= 0 <= high), mean square, and importance.

    importance: how much noise of unit variance in one channel moves the outputs, in the mean.
    """

    low: Array
    high: Array
    power: Array
    importance: Array
    count: int = MANY  # of values that were seen of each channel

    def scaled(self, scales: Array) -> Channels:
        """The same after the channels are divided by `scales` [C]."""
        return Channels(
            self.low / scales, self.high / scales, self.power / scales**2,
            self.importance * scales**2, self.count,
        )  # fmt: skip


def channel_axis(rank: int) -> int:
    """Where the channels of a tensor of that rank stand: [N, C, …], or [N, T, C] of tokens."""
    return rank - 1 if rank in (2, 3) else 1


def grows(network: Network, feeds: Feeds) -> frozenset[str]:
    """The tensors in whose channels' place the batch stands, as in [3, N, heads, T, D]."""
    import torch

    count = len(next(iter(feeds.values())))
    lengths: list[dict[str, int]] = []
    with torch.no_grad():
        for some in (1, count) if count > 1 else ():
            seen: dict[str, int] = {}
            lengths.append(seen)

            def hook(
                node: Node, made: list[torch.Tensor], seen: dict[str, int] = seen
            ) -> list[torch.Tensor]:
                for name, value in zip(node.outputs, made, strict=False):
                    if value.ndim > 1:
                        seen[name] = value.shape[channel_axis(value.ndim)]
                return made

            network.run({name: value[:some] for name, value in feeds.items()}, hook)
    if not lengths:
        return frozenset()
    return frozenset(name for name, one in lengths[1].items() if lengths[0].get(name) != one)


def _rows(value: torch.Tensor, together: bool) -> torch.Tensor:
    """Values by channel [C, …], or as one channel."""
    if together:
        return value.reshape(1, -1)
    return value.movedim(channel_axis(value.ndim), 0).flatten(1)


def collected(network: Network, tensors: Collection[str], batches: Batches) -> dict[str, Channels]:
    """Extremes and power of the channels of `tensors`, in one pass; importance 1.

    Where the batch stands in the channels' place, all values count as one channel.
    """
    import torch

    found: dict[str, list[Any]] = {}
    together: frozenset[str] | None = None

    def watch(name: str, value: torch.Tensor) -> None:
        if not value.is_floating_point() or value.ndim < 2:
            return
        rows = _rows(value.detach(), name in (together or ()))
        new = [rows.amin(1), rows.amax(1), rows.double().square().sum(1), rows.shape[1]]
        if name in found:
            low, high, power, count = found[name]
            new = [
                torch.minimum(low, rows.amin(1)),
                torch.maximum(high, rows.amax(1)),
                power + rows.double().square().sum(1),
                count + rows.shape[1],
            ]
        found[name] = new

    def hook(node: Node, made: list[torch.Tensor]) -> list[torch.Tensor]:
        for name, value in zip(node.outputs, made, strict=False):
            if name in tensors:
                watch(name, value)
        return made

    with torch.no_grad():
        for feeds in batches():
            if together is None:
                together = grows(network, feeds)
            for name, value in feeds.items():
                if name in tensors:
                    watch(name, value)
            network.run(feeds, hook)
    return {
        name: Channels(
            np.minimum(low.numpy().astype(np.float64), 0),
            np.maximum(high.numpy().astype(np.float64), 0),
            power.numpy() / count,
            np.ones(len(low)),
            int(count),
        )
        for name, (low, high, power, count) in found.items()
    }


def importances(
    network: Network, tensors: Collection[str], batches: Batches, seed: int = 0, draws: int = 2
) -> dict[str, Array]:
    """For each tensor and channel, the mean over samples and draws of Σ (∂(v·outputs)/∂t)².

    v: random signs over all float outputs, each output over its own root mean square (Hutchinson's
    estimator of the diagonal of JᵀJ; Hutchinson 1989). A tensor that no gradient reaches is absent.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums: dict[str, torch.Tensor] = {}
    samples = 0
    together: frozenset[str] | None = None
    for feeds in batches():
        if together is None:
            together = grows(network, feeds)
        leaves: dict[str, torch.Tensor] = {}

        def hook(
            node: Node, made: list[torch.Tensor], leaves: dict[str, torch.Tensor] = leaves
        ) -> list[torch.Tensor]:
            for place, name in enumerate(node.outputs):
                if name in tensors and made[place].is_floating_point():
                    if not made[place].requires_grad:
                        made[place] = made[place].detach().requires_grad_()
                    leaves[name] = made[place]
            return made

        begun = {}
        for name, value in feeds.items():
            begun[name] = value
            if name in tensors and value.is_floating_point():
                begun[name] = leaves[name] = value.detach().requires_grad_()
        outputs = network.run(begun, hook)
        count = len(next(iter(feeds.values())))
        samples += count
        ends = [one for name in network.outputs
                if (one := outputs[name]).is_floating_point() and one.requires_grad]  # fmt: skip
        if not ends:
            return {}
        for draw in range(draws):
            total = torch.zeros(())
            for one in ends:
                signs = torch.randint(0, 2, one.shape, generator=generator).to(one.dtype) * 2 - 1
                size = one.detach().square().mean().sqrt().clamp_min(1e-12) if len(ends) > 1 else 1
                total = total + (signs * one / size).sum()
            names = list(leaves)
            gradients = torch.autograd.grad(
                total, [leaves[name] for name in names], allow_unused=True,
                retain_graph=draw + 1 < draws,
            )  # fmt: skip
            for name, gradient in zip(names, gradients, strict=True):
                if gradient is None or gradient.ndim < 2:
                    continue
                rows = _rows(gradient, name in together)
                each = rows.double().square().sum(1)
                sums[name] = sums[name] + each if name in sums else each
    return {name: total.numpy() / (samples * draws) for name, total in sums.items()}


def highest(network: Network, stats: Mapping[str, Channels], name: str) -> Array:
    """What a tensor's channels [C] may reach, behind a ReLU at least RARE of what it clips.

    A channel that calibration hardly saw above 0 may be on in the next sample: were it amplified
    to the range of the others, it would then leave the grid. Nor do less than MANY values, as 64
    samples show of a vector, tell the extremes of a channel: none is amplified above the others.
    """
    high: Array = stats[name].high
    if stats[name].count < MANY:
        high = np.full_like(high, high.max())
    maker = network.producers.get(name)
    before = stats.get(maker.inputs[0]) if maker and maker.op in ("Relu", "Clip") else None
    if before is None or before.high.shape != high.shape:
        return high
    found: Array = np.maximum(high, RARE * (before.high - before.low))
    return found


def weighed(found: Mapping[str, Channels], importance: Mapping[str, Array]) -> dict[str, Channels]:
    """Statistics with importances; where no gradient came, of the channels' inverse power."""
    result = {}
    for name, one in found.items():
        weight = importance.get(name)
        if weight is None or not np.isfinite(weight).all() or not weight.any():
            weight = 1 / np.maximum(one.power, max(float(one.power.mean()), 1e-30) * 1e-6)
        result[name] = replace(one, importance=np.asarray(weight, np.float64))
    return result
