"""A comparison of two files in a terminal: what stands above and below its table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.report import words
from workbench.report.data import FORMAT, PRECISION

if TYPE_CHECKING:
    from workbench.measure.difference import Difference
    from workbench.measure.divergence import TensorDivergence
    from workbench.run.comparison import Comparison

WORST = 5  # layers in the table


def titles(comparison: Comparison) -> Iterator[str]:
    """The two files, as A and B."""
    for letter, row in zip("AB", comparison.report.first.rows, strict=True):
        precision = PRECISION.get(row.precision, row.precision)
        yield f"{letter}  {row.path}  ({precision} {FORMAT.get(row.format, row.format)})"


def details(comparison: Comparison) -> Iterator[str]:
    """Each output's difference, what goes by other names, and the layers that diverge."""
    block = comparison.report.first
    if comparison.outputs:
        yield f"\nEach output · {block.samples} samples of {block.dataset}"
        width = max(len(output.name) for output in comparison.outputs)
        for output in comparison.outputs:
            yield f"  {output.name:{width}}  {_distance(output, comparison.head)}"
    for name in comparison.alone:
        yield f"  {name}: {block.rows[1].label} has no such output"
    if comparison.mapping:
        yield "\nNames and layouts"
        for line in comparison.mapping:
            yield f"  {line}"
    yield from _layer_lines(comparison)


def _distance(output: Difference, head: str) -> str:
    if output.sqnr is None:
        if head == "argmax" and output.scale == 1:
            return "the class alone: how often it is the same stands as agreement"
        return f"whole numbers, {words.percent(100 * output.same)} of them equal"
    cosine = words.NOTHING if output.cosine is None else f"{output.cosine:.6f}"
    return (
        f"largest difference {output.largest:.3g} (values up to {output.scale:.3g})  "
        f"SQNR {words.decibels(output.sqnr)}  cosine {cosine}"
    )


def _layer_lines(comparison: Comparison) -> Iterator[str]:
    """Where the two graphs diverge, or why that is not known."""
    layers = comparison.layers
    if layers is None:
        if comparison.why:
            yield (f"\nLayers · not compared: {comparison.why}.")
        return
    yield (
        f"\nLayers · {layers.inside} of {layers.of} tensors inside A are in B too, "
        f"{layers.samples} samples, both graphs run without optimization"
    )
    first, worst = layers.first, layers.worst(WORST)
    limit = f"{layers.threshold:g} dB"
    if all(layer.sqnr == math.inf for layer in layers.layers):
        yield ("  every one is equal")
        return
    if first is None:
        least = min(layers.layers, key=lambda layer: layer.sqnr)
        yield (
            f"  none diverges: the least SQNR is {words.decibels(least.sqnr)} ({least.title}), "
            f"{limit} would be a divergence"
        )
    else:
        yield (f"  first below {limit}: {first.title}, {words.decibels(first.sqnr)}")
    if not worst:
        yield ("  none loses more than rounding does")
        return
    yield ("  those that lose most:")
    for line in _table(worst):
        yield (f"    {line}")


def _table(worst: tuple[TensorDivergence, ...]) -> list[str]:
    rows = [("layer", "SQNR before", "after", "drop")]
    for layer in worst:
        rows.append((layer.title, words.decibels(layer.before), words.decibels(layer.sqnr),
                     words.decibels(layer.drop)))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return [
        "  ".join([f"{row[0]:{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3))])
        for row in rows
    ]
