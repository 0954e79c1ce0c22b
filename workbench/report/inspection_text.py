"""The facts of a model file in a terminal: labels, and texts that are wrapped beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.inspect.facts import printable
from workbench.report.words import NOTHING, size

if TYPE_CHECKING:
    from workbench.inspect import Facts, Tensor

TIED = "\N{NO-BREAK SPACE}"  # between words that stay on one line


def lines(facts: Facts, columns: int) -> Iterator[str]:
    """The facts in a terminal that has so many columns."""
    labelled = list(labelled_lines(facts))
    margin = max(len(label) for label, _ in labelled) + 2
    width = max(40, columns)
    for label, text in labelled:
        wrapped = textwrap.wrap(
            text,
            width=width - margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for number, part in enumerate(wrapped):
            yield f"{'' if number else label:{margin}}{part.replace(TIED, ' ')}"


def labelled_lines(facts: Facts) -> Iterator[tuple[str, str]]:
    """Labels and texts, in the order in which they are read."""
    yield "file", printable(str(facts.path), longest=4096)
    yield "format", f"{facts.format}, {facts.precision}, {size(facts.bytes)}"
    yield "sha256", facts.sha256
    for tensor in facts.inputs:
        yield "input", _declared(tensor)
    for tensor in facts.outputs:
        yield "output", _declared(tensor)
    if facts.opsets:
        yield "opsets", ", ".join(f"{domain} {facts.opsets[domain]}" for domain in _used(facts))
    yield "parameters", _count(facts.parameters)
    yield "MACs", _count(facts.macs) + (" for one sample" if facts.macs is not None else "")
    total = sum(facts.operators.values())
    yield (
        "operators",
        f"{total}: " + ", ".join(f"{count}{TIED}{name}" for name, count in facts.operators.items()),
    )
    yield from facts.takes.items()
    for note in facts.notes:
        yield "note", note


def _declared(tensor: Tensor) -> str:
    """A tensor as `name  float32 [?, 3, 224, 224]`, and how its integers stand for real values."""
    axes = ", ".join("?" if axis is None else str(axis) for axis in tensor.shape)
    shape = f"[{axes}]" if tensor.ranked else "[shape not in the file]"
    text = f"{printable(tensor.name)}  {tensor.dtype} {shape}"
    if tensor.quantization:
        scale, zero = tensor.quantization
        shifted = f"(q {'-' if zero > 0 else '+'} {abs(zero)})" if zero else "q"
        text += f", real = {scale:.6g} × {shifted}"
    return text


def _used(facts: Facts) -> list[str]:
    """The domains that operators come from: a file may import others that it has nothing of."""
    used = {name.rpartition(":")[0] or "ai.onnx" for name in facts.operators}
    return [domain for domain in facts.opsets if domain in used] or list(facts.opsets)


def _count(value: int | None) -> str:
    """A count with its thousands apart, and in millions where it has some."""
    if value is None:
        return NOTHING
    exact = f"{value:,}".replace(",", " ")
    return f"{exact} ({value / 1e6:.2f} M)" if value >= 1e6 else exact
