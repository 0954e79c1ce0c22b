"""The front as SVG: one goal against another, intervals as bars, the rest of the points grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from workbench.intervals import Estimate
from workbench.sweep.goals import Goal
from workbench.sweep.result import Point, Result

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 30, 58
# Okabe and Ito's, as in the reports; what is not on the front is grey.
COLOURS = {"front": "#0072B2", "near": "#56B4E9", "dominated": "#9aa3ad", "over": "#9aa3ad"}
KNEE = "#D55E00"
WIDE = 10  # an axis whose largest value is that many times its smallest is logarithmic
FEW = 3  # points: fewer make no front to look at
STYLE = (
    "text { font: 12px system-ui, 'Segoe UI', Roboto, sans-serif; fill: currentColor; } "
    ".grid { stroke: currentColor; stroke-opacity: .13; } "
    ".bar { stroke-opacity: .55; stroke-width: 1.5; } "
    ".line { fill: none; stroke: #0072B2; stroke-opacity: .5; stroke-width: 1.5; }"
)


@dataclass(frozen=True)
class Axis:
    """Where values of a goal lie on a line of pixels."""

    goal: Goal
    low: float
    high: float
    log: bool
    start: float
    end: float

    def at(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        scale = math.log if self.log else float
        share = (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))
        return self.start + share * (self.end - self.start)

    def holds(self, figure: Estimate) -> bool:
        return self.low <= figure.value <= self.high

    def ticks(self) -> list[float]:
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [one * 10.0**power for power in powers for one in (1, 2, 5)]
            return [one for one in every if self.low <= one <= self.high]
        step = _nice((self.high - self.low) / 5)
        first = math.ceil(self.low / step)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _nice(step: float) -> float:
    """The next of 1, 2, 5 and their decades above."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(one * power for one in (1, 2, 5, 10) if one * power >= step - 1e-12)


def axis(goal: Goal, values: Sequence[float], start: float, end: float) -> Axis:
    """An axis with room around the values."""
    low, high = min(values), max(values)
    if goal.kind != "drop" and low > 0 and high / low >= WIDE:
        return Axis(goal, low / 1.1, high * 1.1, True, start, end)
    room = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return Axis(goal, low - room, high + room, False, start, end)


def axes(points: Sequence[Point], x: Goal, y: Goal) -> tuple[Axis, Axis]:
    """Both axes, with room for the intervals of what is on the front."""

    def values(goal: Goal) -> list[float]:
        found = [(one.trial.figures[goal.name], one.state) for one in points]
        ends = [end for each, state in found if state == "front" for end in (each.low, each.high)]
        return [each.value for each, _ in found] + [one for one in ends if math.isfinite(one)]

    return axis(x, values(x), LEFT, WIDTH - RIGHT), axis(y, values(y), HEIGHT - BOTTOM, TOP)


def pairs(result: Result) -> list[tuple[Goal, Goal]]:
    """What is drawn against what: every two goals; of one goal, against what else is known."""
    goals = list(result.goals)
    if len(goals) == 1:
        goals += [one for one in result.shown if one not in goals][:1]
    return [(a, b) for at, a in enumerate(goals) for b in goals[at + 1 :]]


def drawn(result: Result, x: Goal, y: Goal) -> list[Point]:
    """The points that have both figures, those of the front last: on top.

    What is beyond a limit is left out where the rest would shrink to a corner for its sake.
    """
    found = [one for one in result.points if {x.name, y.name} <= one.trial.figures.keys()]
    within = [one for one in found if one.state != "over"]
    if len(within) < FEW:
        return found[::-1]
    across, up = axes(within, x, y)
    return [
        one for one in reversed(found)
        if one.state != "over"
        or (across.holds(one.trial.figures[x.name]) and up.holds(one.trial.figures[y.name]))
    ]  # fmt: skip


def picture(result: Result) -> str:
    """The first plot as a file of its own, readable on white and on dark pages."""
    chosen = pairs(result)
    body = figure(result, *chosen[0]) if chosen else _empty("nothing to draw: one goal alone")
    return body.replace("<style>", "<style>svg { color: #24292f; background: #fff; } ", 1).replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1
    )


def _empty(said: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} 60" role="img"><style>{STYLE}</style>'
        f'<text x="20" y="35">{escape(said)}</text></svg>\n'
    )


def figure(result: Result, x: Goal, y: Goal) -> str:
    """One plot. Each point has a title, which browsers show on hover."""
    points = drawn(result, x, y)
    if not points:
        return _empty("no trial is done yet")
    across, up = axes(points, x, y)
    two = len(result.goals) == 2 and {x, y} == set(result.goals)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y.axis)} against {escape(x.axis)}">',
        f"<style>{STYLE}</style>",
        *_axes(across, up),
        *([_stairs(result, across, up)] if two else []),
        *(_mark(result, one, across, up) for one in points),
        *_numbers(points, across, up),
        _legend(points),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _axes(across: Axis, up: Axis) -> list[str]:
    parts = []
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{up.start}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{up.start + 18}" text-anchor="middle">{value:.6g}</text>'
        )
    for value in up.ticks():
        y = up.at(value)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{across.end}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    middle = (LEFT + across.end) / 2
    height = (TOP + up.start) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{escape(across.goal.axis)}'
        "</text>"
    )
    parts.append(
        f'<text x="18" y="{height}" text-anchor="middle" '
        f'transform="rotate(-90 18 {height})">{escape(up.goal.axis)}</text>'
    )
    return parts


def _stairs(result: Result, across: Axis, up: Axis) -> str:
    """What the front dominates begins at this line."""
    found = sorted(
        (one.trial.figures[across.goal.name].value, one.trial.figures[up.goal.name].value)
        for one in result.front
    )
    if not found:
        return ""
    steps = [f"M {across.at(found[0][0]):.1f} {up.end}"]
    for x, y in found:
        steps.append(f"H {across.at(x):.1f} V {up.at(y):.1f}")
    return f'<path class="line" d="{" ".join(steps)} H {across.end}"/>'


def _mark(result: Result, point: Point, across: Axis, up: Axis) -> str:
    figures = point.trial.figures
    x, y = figures[across.goal.name], figures[up.goal.name]
    colour = KNEE if point.knee else COLOURS[point.state]
    at = f"{across.at(x.value):.1f}", f"{up.at(y.value):.1f}"
    fill = "none" if point.state == "over" else colour
    faint = ' opacity=".6"' if point.state in ("dominated", "over") else ""
    parts = [f"<g{faint}>", f"<title>{escape(told(result, point))}</title>"]
    if point.state in ("front", "near"):
        parts += _bars(x, y, across, up, colour)
    size = 7 if point.knee else 5
    parts.append(
        f'<circle cx="{at[0]}" cy="{at[1]}" r="{size}" fill="{fill}" stroke="{colour}" '
        'stroke-width="1.5"/>'
    )
    return "".join([*parts, "</g>"])


def _numbers(points: Sequence[Point], across: Axis, up: Axis) -> list[str]:
    """The numbers of the front's trials, the knee's first, where they do not hide one another."""
    front = sorted((one for one in points if one.state == "front"), key=lambda one: not one.knee)
    taken: list[tuple[float, float, float]] = []
    parts = []
    for one in front:
        figures = one.trial.figures
        x = across.at(figures[across.goal.name].value) + 9
        y = up.at(figures[up.goal.name].value) - 7
        word = f"{one.trial.number}{' (knee)' if one.knee else ''}"
        ends = x + 7.0 * len(word)
        if any(x < end and begin < ends and abs(y - at) < 13 for begin, end, at in taken):
            continue
        taken.append((x, ends, y))
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}">{word}</text>')
    return parts


def _bars(x: Estimate, y: Estimate, across: Axis, up: Axis, colour: str) -> list[str]:
    parts = []
    place = across.at(x.value), up.at(y.value)
    if x.low < x.high:
        ends = across.at(x.low), across.at(x.high)
        parts.append(
            f'<line class="bar" stroke="{colour}" x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" '
            f'y1="{place[1]:.1f}" y2="{place[1]:.1f}"/>'
        )
    if y.low < y.high:
        ends = up.at(y.low), up.at(y.high)
        parts.append(
            f'<line class="bar" stroke="{colour}" x1="{place[0]:.1f}" x2="{place[0]:.1f}" '
            f'y1="{ends[0]:.1f}" y2="{ends[1]:.1f}"/>'
        )
    return parts


def told(result: Result, point: Point) -> str:
    """A point in words, a line each."""
    lines = dict(zip(result.headings(), result.cells(point), strict=True))
    return "\n".join(f"{name}: {text}" for name, text in lines.items())


def _legend(points: Sequence[Point]) -> str:
    words = {"front": "front", "near": "within noise of it", "dominated": "dominated",
             "over": "beyond a limit"}  # fmt: skip
    parts, x = [], float(LEFT)
    for state, word in words.items():
        if not any(one.state == state for one in points):
            continue
        fill = "none" if state == "over" else COLOURS[state]
        parts.append(
            f'<circle cx="{x + 5}" cy="14" r="5" fill="{fill}" stroke="{COLOURS[state]}" '
            f'stroke-width="1.5"/><text x="{x + 15}" y="18">{word}</text>'
        )
        x += 32 + 6.6 * len(word)
    return "".join(parts)
