"""The table of `wb sensitivity` as text, and the words that the page shares with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.report import words

if TYPE_CHECKING:
    from workbench.quantization.explain.sensitivity_table import LayerRow, Table
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


def cells(layer: LayerRow) -> tuple[str, ...]:
    """A layer's figures as text, all but the bar, in the order of the headings."""
    one = layer.found
    same = words.NOTHING if one.alone.agreement is None else f"{one.alone.agreement:.1f} %"
    times = [f"{value:.3f}" for value in layer.milliseconds or ()] or [words.NOTHING] * 2
    saved = words.NOTHING if layer.saved is None else f"{layer.saved:+.3f}"
    return (
        one.layer, one.op, words.decibels(one.alone.sqnr), f"{one.gained + 0.0:+.2f} dB",
        f"{100 * one.share:.1f} %", same, f"{one.parameters:,}", *times, saved,
    )  # fmt: skip


def lines(found: Table) -> Iterator[str]:
    """The table with bars of the noise; nothing of a name's end, which tells, is cut off."""
    most = max((one.found.share for one in found.layers), default=0.0) or 1.0
    rows: list[tuple[str, ...]] = [HEADINGS]
    for layer in found.layers:
        name, op, alone, gained, share, *rest = cells(layer)
        bar = "█" * round(BAR * layer.found.share / most)
        name = name if len(name) <= NAME else f"…{name[1 - NAME :]}"
        rows.append((name, op, alone, gained, share, bar, *rest))
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADINGS))]
    for row in rows:
        yield "  ".join(
            f"{text:{width}}" if at in (0, 1, 5) else f"{text:>{width}}"
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()


def summary(found: OutputDistance) -> str:
    """A distance in words."""
    parts = [f"{words.decibels(found.sqnr)} SQNR"]
    if found.agreement is not None:
        parts.append(f"{found.agreement:.1f} % agreement")
    if found.kl is not None:
        parts.append(f"{found.kl:.2g} nats")
    return ", ".join(parts)


def total(found: Table) -> str:
    """The time of all layers in float and in INT8, '' where it was not measured."""
    times = [one.milliseconds for one in found.layers if one.milliseconds is not None]
    if not times:
        return ""
    floats, ints = sum(one for one, _ in times), sum(other for _, other in times)
    return f"these layers take {floats:.2f} ms in FP32, {ints:.2f} ms in INT8, on {found.device}"


def remarks(found: Table) -> Iterator[str]:
    """What else a reader has to know, a line each."""
    if text := total(found):
        yield text
    if found.prefix:
        yield (
            f"the first {len(found.prefix)} stay in float by default, where 8 bits cost most and "
            "gain little or no time; --set quantize.whole=true quantizes these too"
        )
    yield from found.notes
    yield from LEGEND
    yield (
        "Left in float, a layer's input and output stay quantized for its neighbours: several in a "
        "row gain more. 'wb recipe … --max-drop 0.5' finds which; --set quantize.exclude=NAME,… "
        "names them."
    )
