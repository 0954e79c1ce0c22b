"""What quantization did to each INT8 artifact: the waterfall, and every layer, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.report import words
from workbench.report.data import PRECISION, Report, Row
from workbench.report.drawing import (
    GREEN,
    INK,
    VERMILION,
    figure_svg,
    new_figure,
    plot_settings,
)

HEADINGS = (
    "layer", "operator", "precision", "weights SQNR", "output range", "clipped", "output SQNR",
    "share of noise",
)  # fmt: skip
STAGES = ("technique", "SQNR", "gain", "agreement")
GAIN, LOSS = GREEN, VERMILION
WORST = 5  # layers that Markdown names


@dataclass(frozen=True)
class Section:
    """One artifact's. stages, layers: texts under STAGES and HEADINGS. svg: '' without stages."""

    title: str
    caption: str
    stages: tuple[tuple[str, ...], ...]
    summary: str
    layers: tuple[tuple[str, ...], ...]
    worst: tuple[str, ...]
    svg: str


def sections(report: Report) -> list[Section]:
    """A section for every artifact that the quantization engine made."""
    made = [row for row in report.rows if row.quantization is not None]
    return [_section(report, row, f"waterfall-{number}") for number, row in enumerate(made)]


def _section(report: Report, row: Row, name: str) -> Section:
    found = row.quantization
    assert found is not None
    branch = row.key.rpartition(".")[0]
    alike = [
        one.label for one in report.rows[report.rows.index(row) :]
        if one is row or (one.path and branch and one.key.rpartition(".")[0] == branch)
    ]  # fmt: skip
    layers = found["layers"]
    integer = sum(layer["precision"] == "int8" for layer in layers if layer["op"] != "input")
    total = sum(layer["op"] != "input" for layer in layers)
    noisy = sorted((one for one in layers if one["noise"]), key=lambda one: -one["noise"])
    return Section(
        title=", ".join(alike),
        caption=(
            f"On {found['staged']} calibration samples, against FP32, one technique after the "
            "other; each but the last is simulated, the last is the file itself."
        ),
        stages=tuple(_stages(found["waterfall"])),
        summary=f"{total} layers, {integer} in INT8",
        layers=tuple(_layer(one) for one in layers),
        worst=tuple(f"{one['name']} {words.percent(100 * one['noise'], 0)}"
                    for one in noisy[:WORST]),
        svg=waterfall(name, found["waterfall"]),
    )  # fmt: skip


def method() -> Iterator[tuple[str, str]]:
    """What the figures of layers mean, as names and sentences."""
    yield (
        "Layers",
        "Weights SQNR: of the rounded weights against the equalized float ones. Output range: what "
        "its 8-bit grid spans; clipped: the share of FP32's values outside. Output SQNR: of the "
        "file's values against FP32's, with all that came before. Share of noise: what rounding "
        "this output adds to the outputs' noise, of all layers, by the model.",
    )


def _stages(stages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    before = None
    for one in stages:
        gain = words.NOTHING if before is None else f"{one['sqnr'] - before:+.1f} dB"
        yield one["name"], words.decibels(one["sqnr"]), gain, _share(one["agreement"])
        before = one["sqnr"]


def _layer(one: Mapping[str, Any]) -> tuple[str, ...]:
    ranged = one["low"] is not None
    return (
        one["name"], one["op"], PRECISION.get(one["precision"], one["precision"]),
        words.decibels(one["weight_sqnr"]),
        f"{one['low']:.3g} to {one['high']:.3g}" if ranged else words.NOTHING,
        _share(one["clipped"], 3), words.decibels(one["sqnr"]), _share(one["noise"]),
    )  # fmt: skip


def _share(part: float | None, digits: int = 1) -> str:
    return words.percent(None if part is None else 100 * part, digits)


def waterfall(name: str, stages: Sequence[Mapping[str, Any]]) -> str:
    """SQNR from plain quantization to the file, a bar for what each technique gave; '' of none."""
    if not stages:
        return ""
    with plot_settings(name):
        figure, axes = new_figure(9.3, 0.9 + 0.42 * len(stages))
        before = 0.0
        for place, one in enumerate(stages):
            after = one["sqnr"]
            colour = INK if place == 0 else GAIN if after >= before else LOSS
            low, high = min(before, after), max(before, after)
            axes.barh(place, high - low, 0.62, low, color=colour, alpha=0.4 if place == 0 else 0.9)
            if place + 1 < len(stages):
                axes.vlines(after, place, place + 1, INK, linewidth=0.8, alpha=0.5)
            gain = "" if place == 0 else f" ({after - before:+.1f})"
            agreed = "" if one["agreement"] is None else f", {_share(one['agreement'], 0)} agree"
            axes.annotate(
                f"{after:.1f} dB{gain}{agreed}", (max(high, 0), place), (6, 0),
                textcoords="offset points", va="center", fontsize=9, parse_math=False,
            )  # fmt: skip
            before = after
        axes.set_yticks(range(len(stages)))
        axes.set_yticklabels([one["name"] for one in stages], parse_math=False)
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        ends = [0.0, *(one["sqnr"] for one in stages)]
        # Room for the words behind the longest bar.
        axes.set_xlim(min(ends) * 1.1, max(*ends, 1.0) * 1.35)
        axes.set_xlabel("SQNR of the outputs (dB)")
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.8)
        return figure_svg(figure, name)
