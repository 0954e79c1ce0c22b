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
    found: float = 0.0
    product: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One output of two files, over all samples.

    largest: the largest absolute difference; `scale`, the largest absolute value of the reference,
    says what that means. same: the share of equal elements. sqnr: in dB, infinite where equal.
    cosine: of the two as one vector each, None where one is all zeros or not finite. Of whole
    numbers, such as classes, neither means anything: both are None.
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
        for place, (sums, wanted, found) in enumerate(pairs):
            left = wanted.astype(np.float64)
            right = found.astype(np.float64)
            difference = np.abs(right - left)
            sums.whole = wanted.dtype.kind != "f" or (place == 0 and self.head == "argmax")
            sums.elements += left.size
            sums.same += int((left == right).sum())
            self._scales[place] = max(self._scales[place], float(np.abs(left).max(initial=0.0)))
            if not np.isfinite(difference).all():
                sums.largest = sums.noise = math.inf
                continue
            sums.largest = max(sums.largest, float(difference.max(initial=0.0)))
            sums.signal += float((left**2).sum())
            sums.found += float((right**2).sum())
            sums.product += float((left * right).sum())
            sums.noise += float((difference**2).sum())

    def found(self) -> tuple[Difference, ...]:
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
    lengths = math.sqrt(sums.signal * sums.found)
    if not math.isfinite(sums.noise) or lengths == 0:
        return None
    return min(1.0, max(-1.0, sums.product / lengths))
