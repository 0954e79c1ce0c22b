"""The front as SVG: one goal against another, intervals as bars, the rest of the points grey."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from workbench.intervals import Estimate
from workbench.report.drawing import BLUE, GREY, SKY, VERMILION, WIDE, element, join_elements
from workbench.sweep.goals import Goal
from workbench.sweep.result import Point, Result

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 30, 58
COLOURS = {"front": BLUE, "near": SKY, "dominated": GREY, "over": GREY}
KNEE = VERMILION
LEGEND = {"front": "front", "near": "within noise of it", "dominated": "dominated",
          "over": "beyond a limit"}  # fmt: skip
FEW = 3  # points: fewer make no front to look at
STYLE = (
    "text { font: 12px system-ui, 'Segoe UI', Roboto, sans-serif; fill: currentColor; } "
    ".grid { stroke: currentColor; stroke-opacity: .13; } "
    ".bar { stroke-opacity: .55; stroke-width: 1.5; } "
    f".line {{ fill: none; stroke: {BLUE}; stroke-opacity: .5; stroke-width: 1.5; }}"
)
PAPER = "svg { color: #24292f; background: #fff; } "  # of a plot that stands in no page


@dataclass(frozen=True)
class GoalAxis:
    """Where values of a goal lie on a line of pixels.

    Attributes:
        low, high: the values at the axis' ends.
        log: whether it is logarithmic.
        start, end: the pixels of `low` and `high`.
    """

    goal: Goal
    low: float
    high: float
    log: bool
    start: float
    end: float

    def pixel(self, value: float) -> float:
        """The place of a value; of one beyond the axis, the nearer end."""
        value = min(max(value, self.low), self.high)
        scale = math.log if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.start + share * (self.end - self.start)

    def holds(self, figure: Estimate) -> bool:
        """Whether a figure's value lies on the axis."""
        return self.low <= figure.value <= self.high

    def ticks(self) -> list[float]:
        """Round values on the axis: about five, or 1, 2 and 5 of each decade."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
            return [value for value in values if self.low <= value <= self.high]
        step = _round_up((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_up(step: float) -> float:
    """The next of 1, 2, 5 and their decades above."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step - 1e-12)


def axis(goal: Goal, values: Sequence[float], start: float, end: float) -> GoalAxis:
    """An axis with room around the values."""
    low, high = min(values), max(values)
    if goal.kind != "drop" and low > 0 and high / low >= WIDE:
        return GoalAxis(goal, low / 1.1, high * 1.1, True, start, end)
    room = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return GoalAxis(goal, low - room, high + room, False, start, end)


def axes(points: Sequence[Point], x: Goal, y: Goal) -> tuple[GoalAxis, GoalAxis]:
    """Both axes, with room for the intervals of what is on the front."""

    def values(goal: Goal) -> list[float]:
        figures = [(point.trial.figures[goal.name], point.state) for point in points]
        ends = [end for each, state in figures if state == "front" for end in (each.low, each.high)]
        return [each.value for each, _ in figures] + [end for end in ends if math.isfinite(end)]

    return axis(x, values(x), LEFT, WIDTH - RIGHT), axis(y, values(y), HEIGHT - BOTTOM, TOP)


def pairs(result: Result) -> list[tuple[Goal, Goal]]:
    """What is drawn against what: every two goals; of one goal, against what else is known."""
    goals = list(result.goals)
    if len(goals) == 1:
        goals += [goal for goal in result.shown if goal not in goals][:1]
    return [(x, y) for number, x in enumerate(goals) for y in goals[number + 1 :]]


def visible_points(result: Result, x: Goal, y: Goal) -> list[Point]:
    """The points that have both figures, those of the front last: on top.

    What is beyond a limit is left out where the rest would shrink to a corner for its sake.
    """
    points = [point for point in result.points if {x.name, y.name} <= point.trial.figures.keys()]
    within = [point for point in points if point.state != "over"]
    if len(within) < FEW:
        return points[::-1]
    across, up = axes(within, x, y)
    return [
        point for point in reversed(points)
        if point.state != "over"
        or (across.holds(point.trial.figures[x.name]) and up.holds(point.trial.figures[y.name]))
    ]  # fmt: skip


def picture(result: Result) -> str:
    """The first plot as a file of its own, readable on white and on dark pages."""
    drawn = pairs(result)
    if not drawn:
        return _message("nothing to draw: one goal alone", alone=True)
    return draw_pair(result, *drawn[0], alone=True)


def draw_pair(result: Result, x: Goal, y: Goal, *, alone: bool = False) -> Markup:
    """One plot. Each point has a title, which browsers show on hover.

    alone: for a file of its own, not for a page.
    """
    points = visible_points(result, x, y)
    if not points:
        return _message("no trial is done yet", alone=alone)
    across, up = axes(points, x, y)
    two = len(result.goals) == 2 and {x, y} == set(result.goals)
    parts = [
        *_grid(across, up),
        *(_stairs(result, across, up) if two else ()),
        *(_mark(result, point, across, up) for point in points),
        *_numbers(points, across, up),
        *_legend(points),
    ]
    return _svg(HEIGHT, parts, alone=alone, label=f"{y.axis} against {x.axis}")


def _message(text: str, *, alone: bool) -> Markup:
    return _svg(60, [element("text", text, x=20, y=35)], alone=alone)


def _svg(height: int, parts: Iterable[Markup], *, alone: bool, label: str | None = None) -> Markup:
    style = element("style", Markup((PAPER if alone else "") + STYLE))  # noqa: S704 - constants
    drawing = element(
        "svg", join_elements([style, *parts]),
        xmlns="http://www.w3.org/2000/svg" if alone else None,
        viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=label,
    )  # fmt: skip
    return drawing + "\n"


def _grid(across: GoalAxis, up: GoalAxis) -> Iterator[Markup]:
    """Lines and numbers at the ticks of both axes, and the axes' names."""
    for value in across.ticks():
        x = across.pixel(value)
        yield element("line", class_="grid", x1=x, x2=x, y1=TOP, y2=up.start)
        yield element("text", f"{value:.6g}", x=x, y=up.start + 18, text_anchor="middle")
    for value in up.ticks():
        y = up.pixel(value)
        yield element("line", class_="grid", x1=LEFT, x2=across.end, y1=y, y2=y)
        yield element("text", f"{value:.6g}", x=LEFT - 8, y=y + 4, text_anchor="end")
    middle, height = (LEFT + across.end) / 2, (TOP + up.start) / 2
    yield element("text", across.goal.axis, x=middle, y=HEIGHT - 14, text_anchor="middle")
    yield element(
        "text", up.goal.axis, x=18, y=height, text_anchor="middle",
        transform=f"rotate(-90 18 {height})",
    )  # fmt: skip


def _stairs(result: Result, across: GoalAxis, up: GoalAxis) -> Iterator[Markup]:
    """What the front dominates begins at this line."""
    corners = sorted(
        (point.trial.figures[across.goal.name].value, point.trial.figures[up.goal.name].value)
        for point in result.front
    )
    if not corners:
        return
    steps = [f"M {across.pixel(corners[0][0]):.1f} {up.end}"]
    steps += [f"H {across.pixel(x):.1f} V {up.pixel(y):.1f}" for x, y in corners]
    yield element("path", class_="line", d=f"{' '.join(steps)} H {across.end}")


def _mark(result: Result, point: Point, across: GoalAxis, up: GoalAxis) -> Markup:
    """A point with its title, and bars where it is on the front or near it."""
    x, y = point.trial.figures[across.goal.name], point.trial.figures[up.goal.name]
    colour = KNEE if point.knee else COLOURS[point.state]
    parts = [element("title", describe_point(result, point))]
    if point.state in ("front", "near"):
        parts += _bars(x, y, across, up, colour)
    size = 7 if point.knee else 5
    fill = "none" if point.state == "over" else colour
    left, top = across.pixel(x.value), up.pixel(y.value)
    parts += [
        element("circle", cx=left, cy=top, r=size, fill=fill, stroke=colour, stroke_width=1.5)
    ]
    faint = point.state in ("dominated", "over")
    return element("g", Markup("").join(parts), opacity=".6" if faint else None)


def _bars(
    x: Estimate, y: Estimate, across: GoalAxis, up: GoalAxis, colour: str
) -> Iterator[Markup]:
    """The intervals of a point, where it has any."""
    left, top = across.pixel(x.value), up.pixel(y.value)
    if x.low < x.high:
        ends = {"x1": across.pixel(x.low), "x2": across.pixel(x.high), "y1": top, "y2": top}
        yield element("line", class_="bar", stroke=colour, **ends)
    if y.low < y.high:
        ends = {"x1": left, "x2": left, "y1": up.pixel(y.low), "y2": up.pixel(y.high)}
        yield element("line", class_="bar", stroke=colour, **ends)


def _numbers(points: Sequence[Point], across: GoalAxis, up: GoalAxis) -> Iterator[Markup]:
    """The numbers of the front's trials, the knee's first, where they do not hide one another."""
    front = [point for point in points if point.state == "front"]
    taken: list[tuple[float, float, float]] = []
    for point in sorted(front, key=lambda point: not point.knee):
        figures = point.trial.figures
        x = across.pixel(figures[across.goal.name].value) + 9
        y = up.pixel(figures[up.goal.name].value) - 7
        number = f"{point.trial.number}{' (knee)' if point.knee else ''}"
        end = x + 7.0 * len(number)
        if any(x < right and left < end and abs(y - line) < 13 for left, right, line in taken):
            continue
        taken.append((x, end, y))
        yield element("text", number, x=x, y=y)


def _legend(points: Sequence[Point]) -> Iterator[Markup]:
    x = float(LEFT)
    for state, words in LEGEND.items():
        if not any(point.state == state for point in points):
            continue
        fill = "none" if state == "over" else COLOURS[state]
        yield element(
            "circle", cx=x + 5, cy=14, r=5, fill=fill, stroke=COLOURS[state], stroke_width=1.5
        )
        yield element("text", words, x=x + 15, y=18)
        x += 32 + 6.6 * len(words)


def describe_point(result: Result, point: Point) -> str:
    """A point in words, a line each."""
    lines = dict(zip(result.headings(), result.cells(point), strict=True))
    return "\n".join(f"{name}: {text}" for name, text in lines.items())
