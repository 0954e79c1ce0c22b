"""How far the outputs of two files are apart, output by output, summed up over batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.parity import apply_head, sqnr

Array = NDArray[Any]


@dataclass
class _Sums:
    whole: bool = False
    elements: int = 0
    same: int = 0
    largest: float = 0.0
    signal: float = 0.0
    power: float = 0.0
    product: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One output of two files, over all samples.

    Attributes:
        name: of the output.
        largest: the largest absolute difference.
        scale: the largest absolute value of the reference, which says what that means.
        same: the share of equal elements.
        sqnr: in dB, infinite where equal; None of whole numbers, such as classes.
        cosine: of the two as one vector each; None of whole numbers, and where one is all zeros or
            not finite.
    """

    name: str
    largest: float
    scale: float
    same: float
    sqnr: float | None
    cosine: float | None


class Differences:
    """Sums up the differences of a file's outputs from a reference's."""

    def __init__(self, names: Sequence[str], head: str = "") -> None:
        self.names = tuple(names)
        self.head = head
        self._sums = [_Sums() for _ in names]
        self._scales = [0.0 for _ in names]

    def add(self, reference: Sequence[Array], outputs: Sequence[Array]) -> None:
        """One batch of both, lists of outputs [N, ...]; the reference's get the other's head."""
        pairs = zip(self._sums, apply_head(reference, self.head), outputs, strict=True)
        for position, (sums, expected, output) in enumerate(pairs):
            left = expected.astype(np.float64)
            right = output.astype(np.float64)
            difference = np.abs(right - left)
            sums.whole = expected.dtype.kind != "f" or (position == 0 and self.head == "argmax")
            sums.elements += left.size
            sums.same += int((left == right).sum())
            self._scales[position] = max(
                self._scales[position], float(np.abs(left).max(initial=0.0))
            )
            if not np.isfinite(difference).all():
                sums.largest = sums.noise = math.inf
                continue
            sums.largest = max(sums.largest, float(difference.max(initial=0.0)))
            sums.signal += float((left**2).sum())
            sums.power += float((right**2).sum())
            sums.product += float((left * right).sum())
            sums.noise += float((difference**2).sum())

    def differences(self) -> tuple[Difference, ...]:
        """Of each output, over all batches added so far."""
        return tuple(
            Difference(
                name=name,
                largest=sums.largest,
                scale=scale,
                same=sums.same / max(1, sums.elements),
                sqnr=None if sums.whole else _decibels(sums),
                cosine=None if sums.whole else _cosine(sums),
            )
            for name, sums, scale in zip(self.names, self._sums, self._scales, strict=True)
        )


def _decibels(sums: _Sums) -> float:
    return sqnr(sums.signal, sums.noise) if math.isfinite(sums.noise) else -math.inf


def _cosine(sums: _Sums) -> float | None:
    lengths = math.sqrt(sums.signal * sums.power)
    if not math.isfinite(sums.noise) or lengths == 0:
        return None
    return min(1.0, max(-1.0, sums.product / lengths))
