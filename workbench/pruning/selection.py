"""How many channels each width loses, and which: the least important ones, to a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError
from workbench.pruning.cost import Cost

LEAST = 1 / 8  # of a width's channels stay: with fewer, global ranking closes layers altogether

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Selection:
    """removed: of each width the channels that go, sorted; cost: what is left, as a ratio."""

    removed: tuple[tuple[int, ...], ...]
    cost: float


def select(
    scores: Sequence[Scores],
    cost: Cost,
    measure: str,
    target: float,
    *,
    scope: str,
    round_to: int,
) -> Selection:
    """The channels to remove so that a measure, `macs` or `parameters`, falls to target or below.

    scores: importance [channels] of each width, which must be comparable for scope `global`.
    scope: `local` narrows all widths alike; `global` takes what loses the least importance for what
    it saves. Widths become multiples of round_to. Raises StepError with what can be reached.
    """
    whole = cost.of(measure)
    sizes = [len(one) for one in scores]
    removed = [0] * len(sizes)
    full = whole(removed)
    goal = target * full
    order = [np.argsort(one, kind="stable") for one in scores]
    ends = most_removed(sizes, round_to)
    if whole(ends) > goal:
        raise StepError(
            f"{measure} cannot be brought to {target:g} of what they are",
            f"with these layers kept and widths of multiples of {round_to} the least is "
            f"{whole(ends) / full:.3f}",
            "ask for more, keep fewer layers, or lower round_to",
        )
    left = whole(removed)
    while left > goal:
        blocks = {
            at: _block(sizes[at] - removed[at], round_to)
            for at in range(len(sizes))
            if removed[at] < ends[at]
        }
        saved = {at: left - _without(whole, removed, at, count) for at, count in blocks.items()}
        enough = {at: saving for at, saving in saved.items() if left - saving <= goal}
        if scope == "local":
            # What ends it with the least beyond the target, else the widest that is left.
            at = max(blocks, key=lambda one: ((sizes[one] - removed[one]) / sizes[one], saved[one]))
            if at in enough:
                widest = (sizes[at] - removed[at]) / sizes[at]
                alike = [o for o in enough if (sizes[o] - removed[o]) / sizes[o] >= widest]
                at = min(alike, key=lambda one: saved[one])
        else:
            at = min(
                blocks,
                key=lambda one: (
                    _lost(scores[one], order[one], removed[one], blocks[one]) / max(saved[one], 1)
                ),
            )
        removed[at] += blocks[at]
        left = whole(removed)
    return Selection(
        tuple(
            tuple(sorted(int(i) for i in one[:count]))
            for one, count in zip(order, removed, strict=True)
        ),
        left / full,
    )


def most_removed(sizes: Sequence[int], round_to: int) -> list[int]:
    """How many channels widths of such sizes can lose at most."""
    return [size - _least(size, round_to) for size in sizes]


def _least(size: int, round_to: int) -> int:
    if size <= round_to:
        return size
    few = max(round_to, int(np.ceil(size * LEAST)))
    return min(size, -(-few // round_to) * round_to)


def _block(left: int, round_to: int) -> int:
    """Channels that go next: to the next multiple below."""
    return left % round_to or round_to


def _without(whole: Callable[[Sequence[int]], int], removed: list[int], at: int, count: int) -> int:
    removed[at] += count
    try:
        return whole(removed)
    finally:
        removed[at] -= count


def _lost(scores: Scores, order: NDArray[np.int64], removed: int, count: int) -> float:
    return float(scores[order[removed : removed + count]].sum())
