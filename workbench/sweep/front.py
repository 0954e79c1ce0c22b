"""The Pareto front of points with intervals, and its knee. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.intervals import Estimate

# near: dominated, but not beyond the noise. over: a limit does not hold.
State = Literal["front", "near", "dominated", "over"]


@dataclass(frozen=True)
class Ranking:
    """What points are to one another.

    Attributes:
        states: of each point.
        knee: the index of the point that is the knee; None where there is no front.
    """

    states: tuple[State, ...]
    knee: int | None


def rank(points: Sequence[Sequence[Estimate]], holds: Sequence[bool]) -> Ranking:
    """Which points are on the front, all figures being better when smaller.

    points: [N][K] figures; holds: [N], whether a point keeps the limits. A point is `near` where
    others are better or equal in every figure, and none of them in any by more than the intervals
    leave to noise. Of points with the same figures, the first is on the front.
    """
    states: list[State] = []
    for number, point in enumerate(points):
        rivals = [
            other for rival, other in enumerate(points)
            if holds[rival] and _dominates(other, point, rival < number)
        ]  # fmt: skip
        if not holds[number]:
            states.append("over")
        elif not rivals:
            states.append("front")
        elif any(_surely(other, point) for other in rivals):
            states.append("dominated")
        else:
            states.append("near")
    return Ranking(tuple(states), _knee(points, states))


def _dominates(point: Sequence[Estimate], other: Sequence[Estimate], first: bool) -> bool:
    pairs = list(zip(point, other, strict=True))
    if not all(a.value <= b.value for a, b in pairs):
        return False
    return first or any(a.value < b.value for a, b in pairs)


def _surely(point: Sequence[Estimate], other: Sequence[Estimate]) -> bool:
    """Whether a point that dominates another does so beyond the noise of both."""
    return any(a.high < b.low for a, b in zip(point, other, strict=True))


def _knee(points: Sequence[Sequence[Estimate]], states: Sequence[State]) -> int | None:
    """The point of the front farthest below the plane through its extremes.

    Figures are scaled to the front's ranges, so that the plane is where they add up to 1 ("On
    characterizing the knee of the Pareto curve", Das, Structural Optimization 1999).
    """
    front = [number for number, state in enumerate(states) if state == "front"]
    if not front:
        return None
    columns = list(
        zip(*([figure.value for figure in points[number]] for number in front), strict=True)
    )
    lows = [min(column) for column in columns]
    spans = [max(column) - low for column, low in zip(columns, lows, strict=True)]

    def total(number: int) -> float:
        values = (figure.value for figure in points[number])
        scaled = zip(values, lows, spans, strict=True)
        return float(sum((value - low) / span for value, low, span in scaled if span))

    return min(front, key=total)
