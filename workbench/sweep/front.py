"""The Pareto front of points with intervals, and its knee. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.intervals import Estimate

# near: dominated, but not beyond the noise. over: a limit does not hold.
State = Literal["front", "near", "dominated", "over"]


@dataclass(frozen=True)
class Ranked:
    """The state of each point, and the place of the knee among them, None where no front is."""

    states: tuple[State, ...]
    knee: int | None


def ranked(points: Sequence[Sequence[Estimate]], holds: Sequence[bool]) -> Ranked:
    """Which points are on the front, all figures being better when smaller.

    points: [N][K] figures; holds: [N], whether a point keeps the limits. A point is `near` where
    others are better or equal in every figure, and none of them in any by more than the intervals
    leave to noise. Of points with the same figures, the first is on the front.
    """
    states: list[State] = []
    for at, point in enumerate(points):
        rivals = [
            other for place, other in enumerate(points)
            if holds[place] and _dominates(other, point, place < at)
        ]  # fmt: skip
        if not holds[at]:
            states.append("over")
        elif not rivals:
            states.append("front")
        elif any(_surely(other, point) for other in rivals):
            states.append("dominated")
        else:
            states.append("near")
    return Ranked(tuple(states), _knee(points, states))


def _dominates(one: Sequence[Estimate], other: Sequence[Estimate], first: bool) -> bool:
    pairs = list(zip(one, other, strict=True))
    if not all(a.value <= b.value for a, b in pairs):
        return False
    return first or any(a.value < b.value for a, b in pairs)


def _surely(one: Sequence[Estimate], other: Sequence[Estimate]) -> bool:
    """Whether a point that dominates another does so beyond the noise of both."""
    return any(a.high < b.low for a, b in zip(one, other, strict=True))


def _knee(points: Sequence[Sequence[Estimate]], states: Sequence[State]) -> int | None:
    """The point of the front farthest below the plane through its extremes.

    Figures are scaled to the front's ranges, so that the plane is where they add up to 1 ("On
    characterizing the knee of the Pareto curve", Das, Structural Optimization 1999).
    """
    front = [at for at, state in enumerate(states) if state == "front"]
    if not front:
        return None
    columns = list(zip(*([figure.value for figure in points[at]] for at in front), strict=True))
    lows = [min(column) for column in columns]
    spans = [max(column) - low for column, low in zip(columns, lows, strict=True)]

    def total(at: int) -> float:
        values = (figure.value for figure in points[at])
        scaled = zip(values, lows, spans, strict=True)
        return float(sum((value - low) / span for value, low, span in scaled if span))

    return min(front, key=total)
