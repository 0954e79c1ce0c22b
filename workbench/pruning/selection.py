"""How many channels each group loses, and which: the least important ones, to a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError
from workbench.pruning.cost import ModuleCost

LEAST = 1 / 8  # of a group's channels stay: with fewer, global ranking closes layers altogether

Measure = Literal["macs", "parameters"]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class PruningTarget:
    """How far a module is to be pruned.

    Attributes:
        measure: of what: `macs` or `parameters`.
        ratio: what may be left, of the original's.
    """

    measure: Measure
    ratio: float


@dataclass(frozen=True)
class ChannelSelection:
    """Which channels go.

    Attributes:
        removed: the numbers in each group, sorted.
        cost: what is left, as a ratio.
    """

    removed: tuple[tuple[int, ...], ...]
    cost: float


def select_channels(
    scores: Sequence[Scores],
    cost: ModuleCost,
    target: PruningTarget,
    *,
    scope: Literal["local", "global"],
    round_to: int,
) -> ChannelSelection:
    """The channels to remove so that a measure falls to its target or below.

    Groups' sizes become multiples of round_to. Raises StepError with what can be reached.

    Args:
        scores: importance [channels] of each group, which must be comparable for scope `global`.
        scope: `local` narrows all groups alike; `global` takes what loses the least importance for
            what it saves.
    """
    measured = cost.measured_by(target.measure)
    sizes = [len(own) for own in scores]
    removed = [0] * len(sizes)
    whole = measured(removed)
    goal = target.ratio * whole
    order = [np.argsort(own, kind="stable") for own in scores]
    limits = most_removed(sizes, round_to)
    if measured(limits) > goal:
        raise StepError(
            f"{target.measure} cannot be brought to {target.ratio:g} of what they are",
            f"with these layers kept and widths of multiples of {round_to} the least is "
            f"{measured(limits) / whole:.3f}",
            "ask for more, keep fewer layers, or lower round_to",
        )

    def share(group: int) -> float:
        """Of a group's channels that are left."""
        return (sizes[group] - removed[group]) / sizes[group]

    left = whole
    while left > goal:
        blocks = {
            group: _block(sizes[group] - removed[group], round_to)
            for group in range(len(sizes))
            if removed[group] < limits[group]
        }
        saved = {
            group: left - _measure_without(measured, removed, group, count)
            for group, count in blocks.items()
        }
        if scope == "local":
            # What ends it with the least beyond the target, else the widest that is left.
            enough = [group for group, saving in saved.items() if left - saving <= goal]
            chosen = max(blocks, key=lambda group: (share(group), saved[group]))
            if chosen in enough:
                widest = share(chosen)
                alike = [group for group in enough if share(group) >= widest]
                chosen = min(alike, key=saved.__getitem__)
        else:
            lost = {
                group: float(scores[group][order[group][removed[group] :][:count]].sum())
                for group, count in blocks.items()
            }
            chosen = min(blocks, key=lambda group: lost[group] / max(saved[group], 1))
        removed[chosen] += blocks[chosen]
        left = measured(removed)
    return ChannelSelection(
        tuple(
            tuple(sorted(int(channel) for channel in ranked[:count]))
            for ranked, count in zip(order, removed, strict=True)
        ),
        left / whole,
    )


def most_removed(sizes: Sequence[int], round_to: int) -> list[int]:
    """How many channels groups of such sizes can lose at most."""
    return [size - _fewest(size, round_to) for size in sizes]


def _fewest(size: int, round_to: int) -> int:
    if size <= round_to:
        return size
    few = max(round_to, int(np.ceil(size * LEAST)))
    return min(size, -(-few // round_to) * round_to)


def _block(left: int, round_to: int) -> int:
    """Channels that go next: to the next multiple below."""
    return left % round_to or round_to


def _measure_without(
    measured: Callable[[Sequence[int]], int], removed: Sequence[int], group: int, count: int
) -> int:
    fewer = list(removed)
    fewer[group] += count
    return measured(fewer)
