"""What quantization did to each INT8 artifact: the waterfall, and every layer, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.report import words
from workbench.report.data import PRECISION, Block, Row
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


def sections(block: Block) -> list[Section]:
    """A section for every artifact that the quantization engine made."""
    quantized = [row for row in block.rows if row.quantization is not None]
    return [_section(block, row, f"waterfall-{number}") for number, row in enumerate(quantized)]


def _section(block: Block, row: Row, name: str) -> Section:
    evidence = row.quantization
    assert evidence is not None
    branch = row.key.rpartition(".")[0]
    alike = [
        other.label for other in block.rows[block.rows.index(row) :]
        if other is row or (other.path and branch and other.key.rpartition(".")[0] == branch)
    ]  # fmt: skip
    layers = evidence["layers"]
    integer = sum(layer["precision"] == "int8" for layer in layers if layer["op"] != "input")
    total = sum(layer["op"] != "input" for layer in layers)
    noisy = sorted((layer for layer in layers if layer["noise"]), key=lambda layer: -layer["noise"])
    return Section(
        title=", ".join(alike),
        caption=(
            f"On {evidence['staged']} calibration samples, against FP32, one technique after the "
            "other; each but the last is simulated, the last is the file itself."
        ),
        stages=tuple(_stages(evidence["waterfall"])),
        summary=f"{total} layers, {integer} in INT8",
        layers=tuple(_layer(layer) for layer in layers),
        worst=tuple(f"{layer['name']} {words.percent(100 * layer['noise'], 0)}"
                    for layer in noisy[:WORST]),
        svg=waterfall(name, evidence["waterfall"]),
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
    for stage in stages:
        gain = words.NOTHING if before is None else f"{stage['sqnr'] - before:+.1f} dB"
        yield stage["name"], words.decibels(stage["sqnr"]), gain, _share(stage["agreement"])
        before = stage["sqnr"]


def _layer(layer: Mapping[str, Any]) -> tuple[str, ...]:
    ranged = layer["low"] is not None
    return (
        layer["name"], layer["op"], PRECISION.get(layer["precision"], layer["precision"]),
        words.decibels(layer["weight_sqnr"]),
        f"{layer['low']:.3g} to {layer['high']:.3g}" if ranged else words.NOTHING,
        _share(layer["clipped"], 3), words.decibels(layer["sqnr"]), _share(layer["noise"]),
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
        for position, stage in enumerate(stages):
            after = stage["sqnr"]
            colour = INK if position == 0 else GAIN if after >= before else LOSS
            low, high = min(before, after), max(before, after)
            axes.barh(
                position, high - low, 0.62, low, color=colour, alpha=0.4 if position == 0 else 0.9
            )
            if position + 1 < len(stages):
                axes.vlines(after, position, position + 1, INK, linewidth=0.8, alpha=0.5)
            gain = "" if position == 0 else f" ({after - before:+.1f})"
            agreed = (
                "" if stage["agreement"] is None else f", {_share(stage['agreement'], 0)} agree"
            )
            axes.annotate(
                f"{after:.1f} dB{gain}{agreed}", (max(high, 0), position), (6, 0),
                textcoords="offset points", va="center", fontsize=9, parse_math=False,
            )  # fmt: skip
            before = after
        axes.set_yticks(range(len(stages)))
        axes.set_yticklabels([stage["name"] for stage in stages], parse_math=False)
        axes.set_ylim(len(stages) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        ends = [0.0, *(stage["sqnr"] for stage in stages)]
        # Room for the words behind the longest bar.
        axes.set_xlim(min(ends) * 1.1, max(*ends, 1.0) * 1.35)
        axes.set_xlabel("SQNR of the outputs (dB)")
        axes.grid(axis="x", color=INK, alpha=0.15, linewidth=0.8)
        return figure_svg(figure, name)
