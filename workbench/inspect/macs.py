"""Multiply-accumulates from shapes: the arithmetic, whatever the format calls the operator.

Counted are convolutions, matrix products, recurrent layers and attention, as papers count them;
elementwise work, normalization and pooling are not. Shapes are those of one sample.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

Shape = Sequence[int | None] | None


class UnknownError(Exception):
    """What an operator computes cannot be known from the file; the text says why."""


class Tally:
    """A sum of multiply-accumulates, unknown as soon as one operator's are; with the reasons."""

    def __init__(self) -> None:
        self.sum = 0
        self.reasons: Counter[str] = Counter()

    def add(self, count: int) -> None:
        """Add an operator's multiply-accumulates."""
        self.sum += count

    def unknown(self, reason: str) -> None:
        """Note that an operator's multiply-accumulates cannot be known, and why."""
        self.reasons[reason] += 1

    @property
    def total(self) -> int | None:
        """The sum, None where an operator's part of it is not known."""
        return None if self.reasons else self.sum

    def notes(self, more: str = "") -> tuple[str, ...]:
        """Why there is no total, in a line; none where there is one."""
        if not self.reasons:
            return ()
        (reason, times), *rest = self.reasons.most_common()
        remainder = f", and {len(rest)} other reasons" if len(rest) > 1 else ""
        remainder = remainder or (f", and {rest[0][0]}" if rest else "")
        often = f" ({times} times)" if times > 1 else ""
        return (f"MACs unknown: {reason}{often}{remainder}{f'; {more}' if more else ''}",)


def known_shape(shape: Shape) -> tuple[int, ...]:
    """The shape, all of whose axes are known. Raises UnknownError."""
    if shape is None:
        raise UnknownError("a shape is not known")
    sizes = tuple(size for size in shape if size is not None)
    if len(sizes) < len(shape):
        raise UnknownError("an axis is open")
    return sizes


def convolution(output: Shape, weights: Shape) -> int:
    """Weights [out channels, in channels of a group, *kernel], in any order after the first."""
    return prod(known_shape(output)) * prod(known_shape(weights)[1:])


def transposed_convolution(data: Shape, weights: Shape) -> int:
    """Weights [in channels, out channels of a group, *kernel]: each input meets them all."""
    return prod(known_shape(data)) * prod(known_shape(weights)[1:])


def matmul(left: Shape, right: Shape) -> int:
    """numpy's matmul: [..., M, K] by [..., K, N], leading axes broadcast."""
    a, b = known_shape(left), known_shape(right)
    if not a or not b:
        raise UnknownError("a matrix product of scalars")
    a = (1, *a) if len(a) == 1 else a
    b = (*b, 1) if len(b) == 1 else b
    if a[-1] != b[-2]:
        raise UnknownError(f"a matrix product of {a} and {b}")
    return prod(_broadcast(a[:-2], b[:-2])) * a[-2] * a[-1] * b[-1]


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> list[int]:
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    return [b if a == 1 else a for a, b in pairs]


def recurrent(data: Shape, *weights: Shape) -> int:
    """Every weight once a time step: input [time, batch, features], the first two in any order."""
    time, batch = known_shape(data)[:2]
    return time * batch * sum(prod(known_shape(shape)) for shape in weights)


def attention(batch: int, queries: int, keys: int, query_width: int, value_width: int) -> int:
    """Scores and their weighted sum: all heads' widths together, masked positions too."""
    return batch * queries * keys * (query_width + value_width)


def einsum(equation: str, shapes: Sequence[Shape]) -> int:
    """A product of two tensors, every index once."""
    operands = equation.replace(" ", "").partition("->")[0].split(",")
    if "." in equation or len(operands) != 2 or len(shapes) != 2:
        raise UnknownError(f"Einsum of '{equation}'")
    sizes: dict[str, int] = {}
    for letters, shape in zip(operands, shapes, strict=True):
        for letter, size in zip(letters, known_shape(shape), strict=False):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return prod(sizes.values())
