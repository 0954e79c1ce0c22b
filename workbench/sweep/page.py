"""`front.html`: the front's plots with what hovers over them, and every trial in a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from workbench.report.pages import render_page
from workbench.sweep import plot
from workbench.sweep.goals import Goal
from workbench.sweep.result import Result, summary

TEMPLATE = Path(__file__).with_name("front.html")


@dataclass(frozen=True)
class Dot:
    """What hovers over a mark of a plot.

    Attributes:
        number: the trial's.
        left, top: in percent of the plot's width and height.
        text: the trial in words, a line each.
    """

    number: int
    left: float
    top: float
    text: str


@dataclass(frozen=True)
class HoverPlot:
    """A plot with its dots."""

    svg: Markup
    dots: tuple[Dot, ...]


def render(result: Result) -> str:
    """One self-contained page."""
    return render_page(
        TEMPLATE,
        title=f"The front of {result.record.folder.name}",
        folder=result.record.folder,
        recipe=result.record.spec.run.recipe,
        summary=summary(result),
        plots=[
            HoverPlot(plot.draw_pair(result, x, y), tuple(_dots(result, x, y)))
            for x, y in plot.pairs(result)
        ],
        headings=result.headings(),
        rows=[(point, result.cells(point)) for point in result.points],
        failed=[point.trial for point in result.points if point.state == "failed"],
    )


def _dots(result: Result, x: Goal, y: Goal) -> Iterator[Dot]:
    points = plot.visible_points(result, x, y)
    if not points:
        return
    across, up = plot.axes(points, x, y)
    for point in points:
        figures = point.trial.figures
        yield Dot(
            point.trial.number,
            left=100 * across.pixel(figures[x.name].value) / plot.WIDTH,
            top=100 * up.pixel(figures[y.name].value) / plot.HEIGHT,
            text=plot.describe_point(result, point),
        )
