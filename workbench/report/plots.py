"""The report's plots as SVG text, to stand inside an HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.report.data import Block, Row
from workbench.report.drawing import (
    BLUE,
    FONT,
    GREEN,
    INK,
    PURPLE,
    VERMILION,
    WIDE,
    figure_svg,
    new_figure,
    plot_settings,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

COLOURS = {"float32": BLUE, "int8": VERMILION, "float16": GREEN, "dynamic-int8": PURPLE}
MARKERS = {"torch": "X", "onnx": "o", "ort": "s", "tflite": "^", "torchscript": "D", "pt2": "P"}
LEAST_SPAN = 2.0  # points of a percent axis: less would draw noise as a difference


@dataclass(frozen=True)
class Quality:
    """What the vertical axis shows.

    Attributes:
        axis: the words beside it.
        percent: whether the values are percent.
        values: by row key.
    """

    kind: Literal["accuracy", "agreement", "SQNR"]
    axis: str
    percent: bool
    values: dict[str, float]


@dataclass(frozen=True)
class _Point:
    row: Row
    x: float
    y: float
    low: float = math.nan  # of x, where it has an interval
    high: float = math.nan


def quality(block: Block) -> Quality | None:
    """Accuracy, else agreement with the reference, else SQNR, else None."""
    rows = [row for row in block.rows if row.error is None]
    figures = block.figures
    unlabelled = "" if block.labelled else ", no labels"
    base = block.row(block.reference)
    against = base.label if base else "FP32"
    accuracy = {row.key: figures[row.key].accuracy for row in rows}
    if values := _finite(accuracy):
        percent = block.metric == "top-1"
        axis = f"{block.metric} (%)" if percent else block.metric
        return Quality("accuracy", axis, percent, values)
    agreement = {row.key: figures[row.key].agreement for row in rows}
    if values := _finite(agreement):
        if base is not None and base.error is None:
            values[base.key] = 100.0  # with itself
        return Quality("agreement", f"agreement with {against} (%){unlabelled}", True, values)
    ratios = {row.key: figures[row.key].sqnr for row in rows}
    if values := _finite(ratios):
        equal = "; equal outputs left out" if math.inf in ratios.values() else ""
        return Quality("SQNR", f"SQNR against {against} (dB){unlabelled}{equal}", False, values)
    return None


def _finite(values: dict[str, float | None]) -> dict[str, float]:
    return {
        key: value for key, value in values.items() if value is not None and math.isfinite(value)
    }


def accuracy_size(block: Block) -> str:
    """Accuracy against size, or '' where no row has both."""
    shown = quality(block)
    if shown is None:
        return ""
    points = [
        _Point(row, row.bytes / 1e6, shown.values[row.key])
        for row in block.rows
        if row.bytes and row.key in shown.values
    ]
    return _scatter("size", points, "size (MB)", shown)


def accuracy_latency(block: Block) -> str:
    """Accuracy against median latency with its interval, or '' where no row has both."""
    shown = quality(block)
    if shown is None:
        return ""
    points = []
    for row in block.rows:
        median = block.figures[row.key].median
        if median is not None and median.value > 0 and row.key in shown.values:
            y = shown.values[row.key]
            points.append(_Point(row, median.value, y, median.low, median.high))
    return _scatter("latency", points, "median latency (ms), 95 % interval", shown)


def latency_distributions(block: Block) -> str:
    """A strip for each artifact: quantiles of all samples, and each process's median above them."""
    rows = [row for row in block.rows if row.latency is not None and row.error is None]
    if not rows:
        return ""
    with plot_settings("distributions"):
        figure, axes = new_figure(9.3, 0.9 + 0.52 * len(rows))
        ends: list[float] = []
        for line, row in enumerate(rows):
            assert row.latency is not None
            runs = row.latency.processes
            samples = np.concatenate([np.asarray(run.samples_ns, float) for run in runs]) / 1e6
            low, left, middle, right, high = np.quantile(samples, [0.05, 0.25, 0.5, 0.75, 0.95])
            medians = [run.median_ms for run in runs]
            ends += [float(low), float(high), *medians]
            colour = COLOURS.get(row.precision, INK)
            base = line + 0.16
            axes.hlines(base, low, high, colour, linewidth=1.5)
            axes.hlines(base, left, right, colour, linewidth=9, alpha=0.45)
            axes.vlines(middle, base - 0.12, base + 0.12, INK, linewidth=1.5)
            # In the order of the rounds from top to bottom, so that drift shows as a slope.
            heights = line - 0.15 + np.linspace(-0.13, 0.13, len(medians))
            axes.scatter(medians, heights, s=16, color=colour, marker="o", linewidths=0, zorder=3)
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels([row.label for row in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        _span_x(axes, ends)
        axes.set_xlabel("latency (ms)")
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.8)
        return figure_svg(figure, "distributions")


def _scatter(name: str, points: Sequence[_Point], across: str, shown: Quality) -> str:
    if not points:
        return ""
    with plot_settings(name):
        figure, axes = new_figure(6.2, 4.4)
        for point in points:
            colour = COLOURS.get(point.row.precision, INK)
            if math.isfinite(point.low) and math.isfinite(point.high):
                axes.hlines(point.y, point.low, point.high, color=colour, linewidth=1.5)
                for end in (point.low, point.high):
                    axes.plot([end], [point.y], "|", color=colour, markersize=7)
            axes.scatter([point.x], [point.y], s=52, color=colour, linewidths=0, alpha=0.9,
                         marker=MARKERS.get(point.row.format, "v"), zorder=3)  # fmt: skip
        ends = [point.x for point in points]
        ends += [end for point in points for end in (point.low, point.high) if math.isfinite(end)]
        _span_x(axes, ends)
        _span_y(axes, [point.y for point in points], shown.percent)
        axes.set_xlabel(across)
        axes.set_ylabel(shown.axis, parse_math=False)
        axes.grid(color=INK, alpha=0.15, linewidth=0.8)
        figure.draw_without_rendering()  # lays the axes out: labels are placed in its pixels
        figure.set_layout_engine("none")
        _label(figure, axes, points)
        return figure_svg(figure, name)


def _span_x(axes: Axes, values: Sequence[float]) -> None:
    """From zero, or logarithmic where the values differ widely."""
    low, high = min(values), max(values)
    if low <= 0 or high <= low * WIDE:
        axes.set_xlim(0, high * 1.12 or 1)
        return
    margin = (high / low) ** 0.1
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    _plain_ticks(axes.xaxis, (1, 2, 5) if high / low < 1e3 else (1,))


def _plain_ticks(axis: Axis, steps: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _span_y(axes: Axes, values: Sequence[float], percent: bool) -> None:
    low, high = min(values), max(values)
    room = max(high - low, LEAST_SPAN if percent else abs(high) * 0.02 or 1)
    middle = (low + high) / 2
    bottom, top = middle - room * 0.75, middle + room * 0.75
    if percent:
        bottom, top = max(bottom, -room * 0.05), min(top, 100 + room * 0.1)
    axes.set_ylim(bottom, top)
    if percent:
        axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= min(top, 100)])


_Box = tuple[float, float, float, float]


def _label(figure: Figure, axes: Axes, points: Sequence[_Point]) -> None:
    """Write each label where it is nearest and covers no marker, bar or other label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)  # its get_renderer has no annotations
    renderer = canvas.get_renderer()
    left, bottom, right, top = axes.get_window_extent(renderer).extents
    frame = (left, bottom, right, top)
    taken: list[_Box] = []
    centres = []
    for point in points:
        x, y = axes.transData.transform((point.x, point.y))
        centres.append((x, y))
        taken.append((x - 5, y - 5, x + 5, y + 5))
        if math.isfinite(point.low) and math.isfinite(point.high):
            left, right = axes.transData.transform([(point.low, 0), (point.high, 0)])[:, 0]
            taken.append((left, y - 4, right, y + 4))

    def cost(box: _Box) -> float:
        covered = sum(_overlap(box, other) for other in taken)
        return round(covered + 10 * (_overlap(box, box) - _overlap(box, frame)), 3)

    for point, (x, y) in zip(points, centres, strict=True):
        text = axes.text(0, 0, point.row.label, parse_math=False, fontsize=FONT - 1)
        extent = text.get_window_extent(renderer)
        text.remove()
        width, height = extent.width + 4, extent.height
        box = min(_label_boxes(x, y, width, height), key=cost)
        taken.append(box)
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        near = max(box[0] - x, x - box[2], box[1] - y, y - box[3]) < 14
        axes.annotate(
            point.row.label, (x, y), middle, "figure pixels", "figure pixels",
            ha="center", va="center_baseline", fontsize=FONT - 1, parse_math=False,
            arrowprops=None if near else {"arrowstyle": "-", "color": INK, "linewidth": 0.6,
                                          "alpha": 0.5, "shrinkA": 1, "shrinkB": 4},
        )  # fmt: skip


def _label_boxes(x: float, y: float, width: float, height: float) -> Iterator[_Box]:
    """Boxes in which a label may stand, the nearest first: `min` takes the first of equals."""
    for far in (7, 12, 20, 30, 42, 56, 72, 90, 110, 132):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
            left = x + across * far - (0, width / 2, width)[1 - across]
            bottom = y + up * far - (0, height / 2, height)[1 - up]
            yield left, bottom, left + width, bottom + height


def _overlap(box: _Box, other: _Box) -> float:
    across = min(box[2], other[2]) - max(box[0], other[0])
    up = min(box[3], other[3]) - max(box[1], other[1])
    return across * up if across > 0 and up > 0 else 0.0
