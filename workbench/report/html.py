"""The report as one self-contained HTML page: no scripts, no requests, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.measure.latency import PRESETS, UNSTABLE
from workbench.report import blocks, checklist, formats, plots, quantized, words
from workbench.report.data import PRECISION, Block, Report, Row
from workbench.report.drawing import label_svg
from workbench.report.markdown import FORMATS, caption, cells, headings, named
from workbench.report.pages import render_page

TEMPLATE = Path(__file__).with_name("report.html")


@dataclass(frozen=True)
class Cell:
    """A figure with its interval apart, and a class: `same`, `worse`, `nothing`, or none."""

    value: str
    interval: str
    kind: str


@dataclass(frozen=True)
class ReportLine:
    """A row of the table, and what its artifact's section tells of it by name."""

    row: Row
    cells: tuple[Cell, ...]
    facts: dict[str, str]


@dataclass(frozen=True)
class ShownBlock:
    """A device's block as the page shows it."""

    title: str
    block: Block
    headings: list[tuple[str, str]]
    lines: list[ReportLine]
    caption: str
    host: dict[str, str]


@dataclass(frozen=True)
class Plot:
    """A figure of the page. svg: an <svg> element, not to be escaped. wide: over both columns."""

    title: str
    caption: str
    svg: str
    wide: bool = False


def render(report: Report) -> str:
    """The whole page."""
    first, *others = map(_shown, report.blocks)
    return render_page(
        TEMPLATE,
        title=f"{report.recipe} on {report.model}",
        report=report,
        first=first,
        others=others,
        several=report.several,
        plots=list(_plots(first.block)),
        quantized=[(section, _picture(section)) for section in quantized.sections(first.block)],
        layer_headings=quantized.HEADINGS,
        method=list(_method(first.block)),
        nothing=words.NOTHING,
        decided=any(row.checks for row in first.block.rows),
        checklist=checklist.lines(first.block, report.verified),
        formats=formats.entries(first.block, report.versions),
        format_headings=FORMATS,
    )


def _shown(block: Block) -> ShownBlock:
    return ShownBlock(
        blocks.title(block),
        block,
        [_split(heading) for heading in headings(block)],
        [_line(block, row) for row in block.rows],
        caption(block),
        named(block.host),
    )


def _line(block: Block, row: Row) -> ReportLine:
    figures = block.figures[row.key]
    names = headings(block)
    kinds = [""] * len(names)
    speed_columns = [column for column, name in enumerate(names) if name.startswith("× faster")]
    ratios = (
        *((figures.than_eager,) if block.eager else ()),
        *((figures.than_onnx,) if block.onnx else ()),
    )
    for column, ratio in zip(speed_columns, ratios, strict=True):
        if ratio is not None and words.known(ratio) and not ratio.excludes(1):
            kinds[column] = "same"
        elif words.slower(ratio) and row.key != block.eager:
            kinds[column] = "worse"
    delta_column = next(column for column, name in enumerate(names) if " delta" in name)
    if figures.delta is not None and not figures.delta.excludes(0):
        kinds[delta_column] = "same"
    elif figures.delta is not None and figures.delta.value < 0 and block.metric == "top-1":
        kinds[delta_column] = "worse"  # of a user's metric, who knows which way is better
    shown = []
    for text, kind in zip(cells(block, row), kinds, strict=True):
        value, interval = _split(text)
        shown.append(Cell(value, interval, "nothing" if text == words.NOTHING else kind))
    shown[0] = Cell(row.label, "", "")
    facts = {
        "file": row.path,
        "SHA-256" if row.path else "fingerprint": row.sha256,
        "precision": PRECISION.get(row.precision, row.precision),
        "size": f"{row.bytes:,} bytes" if row.bytes is not None else "",
        "first inference": f"{words.milliseconds(figures.first_ms)} ms" if row.latency else "",
        "top-5": words.percent(figures.top5) if figures.top5 is not None else "",
        "ran on": words.placement(row.placement, row.left),
        "time by operator": words.operators(row.operators),
        "process spread": f"{100 * row.latency.spread:.1f} %" if row.latency else "",
    }
    return ReportLine(row, tuple(shown), {name: fact for name, fact in facts.items() if fact})


def _split(text: str) -> tuple[str, str]:
    """`4.20 [4.10, 4.31]` as the value and the interval."""
    value, bracket, rest = text.partition(" [")
    return value, bracket.strip() + rest


def _plots(block: Block) -> Iterator[Plot]:
    shown = plots.quality(block)
    kind = "" if shown is None else shown.kind[0].upper() + shown.kind[1:]
    instead = "" if kind == "Accuracy" else f" There is no accuracy to show: {kind} stands for it."
    # Which way is better in a user's metric, who knows.
    better = "Left" if kind == "Accuracy" and shown and not shown.percent else "Up and left"
    key = "Colour tells the precision, the marker the format."
    for title, text, svg, wide in (
        (f"{kind} against size", f"{better} is better. {key}{instead}",
         plots.accuracy_size(block), False),
        (f"{kind} against latency",
         f"{better} is better. Bars: 95 % intervals of the median. {key}{instead}",
         plots.accuracy_latency(block), False),
        ("Latency distributions",
         "ReportLine: 5th to 95th percentile of all runs; band: the middle half; tick: median. "
         "Dots above: the median of each fresh process, the first round on top.",
         plots.latency_distributions(block), True),
    ):  # fmt: skip
        if svg:
            yield _plot(title, text, svg, wide, "The figures are in the table.")


def _picture(section: quantized.Section) -> Plot | None:
    """An artifact's waterfall."""
    if not section.svg:
        return None
    figures = "; ".join(f"{name}: {value}" for name, value, *_ in section.stages)
    return _plot(f"From plain INT8 to {section.title}", section.caption, section.svg, True, figures)


def _plot(title: str, text: str, svg: str, wide: bool, figures: str) -> Plot:
    return Plot(title, text, label_svg(svg, f"{title}. {text} {figures}"), wide)


def _method(block: Block) -> Iterator[tuple[str, str]]:
    """What was done and what each figure means, as names and sentences."""
    if block.preset == "none":
        yield "Latency", "Not measured: --no-latency was given."
    else:
        yield from _latency_method(block)
    yield from _accuracy_method(block)
    if any(row.quantization for row in block.rows):
        yield from quantized.method()
    if any(row.checks for row in block.rows):
        yield from checklist.method()


def _latency_method(block: Block) -> Iterator[tuple[str, str]]:
    preset = PRESETS.get(block.preset)
    if preset is not None:
        yield (
            f"Preset {preset.name}",
            f"{preset.processes} fresh processes for each artifact, one at a time and in turns; in "
            f"each, {preset.warmup} runs to warm up, then at least {preset.runs} timed runs and "
            f"{preset.seconds:g} s.",
        )
    else:
        yield f"Preset {block.preset}", "Fresh processes for each artifact, in turns."
    yield "Load and first inference", "Timed apart, and in no median."
    yield (
        "Latency intervals",
        "95 %, by bootstrap over the processes' medians, not over runs: runs in one process are "
        "alike, processes are not.",
    )
    yield (
        "Process spread",
        "The interquartile range of the processes' medians, relative to their median: above "
        f"{100 * UNSTABLE:.0f} %, the machine was not quiet.",
    )
    yield (
        "× faster",
        "The median over rounds of the ratio of the two processes of a round; where the interval "
        "contains 1, there is no difference shown.",
    )
    yield (
        "Allocator",
        "Every process's keeps the memory it took (glibc's thresholds raised): PyTorch eager, "
        "which has no arena, is slower without.",
    )
    yield "Peak memory", "The most that loading and running added to a process."


def _accuracy_method(block: Block) -> Iterator[tuple[str, str]]:
    reference = block.row(block.reference)
    against = reference.label if reference else "the FP32 reference"
    if not block.samples:
        yield "Accuracy", "Not measured: the run had no evaluation samples."
        return
    yield (
        "Delta",
        f"The difference in {block.metric} from {against} on the same samples, which calibration "
        "never saw, with a 95 % interval for pairs.",
    )
    yield "Agreement", f"The share of samples whose predicted class is that of {against}."
    yield (
        "SQNR",
        f"The power of {against}'s outputs over the power of the difference from them, in "
        "decibels: 20 dB more is a tenth of the error; equal outputs read 'equal'.",
    )
