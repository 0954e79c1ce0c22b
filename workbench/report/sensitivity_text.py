"""The table of `wb sensitivity` as text, and the words that the page shares with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.report import words

if TYPE_CHECKING:
    from workbench.quantization.explain.sensitivity_table import SensitivityRow, SensitivityTable
    from workbench.quantization.search.output_distance import OutputDistance

BAR = 16  # characters of the longest bar
NAME = 44  # characters of a layer's name in the terminal

HEADINGS = ("layer", "op", "SQNR alone", "gained", "noise", "", "agree", "weights", "FP32 ms",
            "INT8 ms", "saved ms")  # fmt: skip
LEGEND = (
    "SQNR alone: of the outputs with this layer alone in INT8, against FP32. gained: by the "
    "outputs with all layers in INT8, where this one goes to float: tenths of a dB, up or down, "
    "may be chance.",
    "noise: its share of what all layers add, each alone. agree: samples of the same class with "
    "this layer alone in INT8. saved: milliseconds that INT8 saves, with what follows up to "
    "the next layer.",
)


def cells(row: SensitivityRow) -> tuple[str, ...]:
    """A layer's figures as text, all but the bar, in the order of the headings."""
    layer = row.sensitivity
    agreement = layer.alone.agreement
    agree = words.NOTHING if agreement is None else f"{agreement:.1f} %"
    times = [f"{value:.3f}" for value in row.milliseconds or ()] or [words.NOTHING] * 2
    saved = words.NOTHING if row.saved is None else f"{row.saved:+.3f}"
    return (
        layer.layer, layer.op, words.decibels(layer.alone.sqnr), f"{layer.gained + 0.0:+.2f} dB",
        f"{100 * layer.share:.1f} %", agree, f"{layer.parameters:,}", *times, saved,
    )  # fmt: skip


def shorten(name: str, length: int) -> str:
    """A layer's name in so many characters, of which the end tells."""
    return name if len(name) <= length else f"…{name[1 - length :]}"


def largest_share(table: SensitivityTable) -> float:
    """The longest bar's share of the noise, above 0; 1 where there is no noise."""
    return max((row.sensitivity.share for row in table.layers), default=0.0) or 1.0


def lines(table: SensitivityTable) -> Iterator[str]:
    """The table with bars of the noise; nothing of a name's end, which tells, is cut off."""
    largest = largest_share(table)
    rows: list[tuple[str, ...]] = [HEADINGS]
    for row in table.layers:
        name, op, alone, gained, share, *rest = cells(row)
        bar = "█" * round(BAR * row.sensitivity.share / largest)
        rows.append((shorten(name, NAME), op, alone, gained, share, bar, *rest))
    widths = [max(len(texts[column]) for texts in rows) for column in range(len(HEADINGS))]
    for texts in rows:
        yield "  ".join(
            f"{text:{width}}" if column in (0, 1, 5) else f"{text:>{width}}"
            for column, (text, width) in enumerate(zip(texts, widths, strict=True))
        ).rstrip()


def summary(distance: OutputDistance) -> str:
    """A distance in words."""
    parts = [f"{words.decibels(distance.sqnr)} SQNR"]
    if distance.agreement is not None:
        parts.append(f"{distance.agreement:.1f} % agreement")
    if distance.kl is not None:
        parts.append(f"{distance.kl:.2g} nats")
    return ", ".join(parts)


def total(table: SensitivityTable) -> str:
    """The time of all layers in float and in INT8, '' where it was not measured."""
    times = [row.milliseconds for row in table.layers if row.milliseconds is not None]
    if not times:
        return ""
    in_float, in_int8 = (sum(column) for column in zip(*times, strict=True))
    return (
        f"these layers take {in_float:.2f} ms in FP32, {in_int8:.2f} ms in INT8, on {table.device}"
    )


def remarks(table: SensitivityTable) -> Iterator[str]:
    """What else a reader has to know, a line each."""
    if text := total(table):
        yield text
    if table.prefix:
        yield (
            f"the first {len(table.prefix)} stay in float by default, where 8 bits cost most and "
            "gain little or no time; --set quantize.whole=true quantizes these too"
        )
    yield from table.notes
    yield from LEGEND
    yield (
        "Left in float, a layer's input and output stay quantized for its neighbours: several in a "
        "row gain more. 'wb recipe … --max-drop 0.5' finds which; --set quantize.exclude=NAME,… "
        "names them."
    )
