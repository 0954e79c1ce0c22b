"""Counts of a tensor's values in one pass, the same whatever the order of the samples.

The bins are those of the floats themselves (as in HdrHistogram, and in DDSketch: Masson, Rim and
Lee, VLDB 2019): an octave [2^e, 2^(e+1)) of magnitudes has 2^`bits` equal bins, found by shifting
the float's bit pattern, in integers. So edges are the same for every sample and need no first pass
that looks for extremes; an outlier of 1e6 takes no resolution from the rest; and a bin is never
wider than 2^-bits of its values: with 9 bits a half to a quarter of the step of an 8-bit grid at
the grid's end, and less below. Magnitudes more than `octaves` below the largest are counted as 0.
When a larger value comes the bins of the lowest octaves join that of 0; they would have been
counted there, had the larger come first: the counts depend on nothing but the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MANTISSA = 23  # bits of a float32 below its exponent
CHUNK = 1 << 16  # elements at a time: what fits the processor's cache beside the counts


@dataclass(frozen=True)
class Bins:
    """Bins that hold something, in ascending order: edges [n] in the tensor's units, counts [n].

    Counts are float64: whole numbers unless channels were weighted.
    """

    lower: Array
    upper: Array
    counts: Array

    @property
    def centres(self) -> Array:
        """The middle of each bin [n]; of the one around 0, 0 itself."""
        around = (self.lower <= 0) & (self.upper >= 0)
        found: Array = np.where(around, 0.0, (self.lower + self.upper) / 2)
        return found

    def chosen(self, mask: Array) -> Bins:
        return Bins(self.lower[mask], self.upper[mask], self.counts[mask])


class Histogram:
    """Streaming counts of float32 values, for each of `rows` channels (1: the whole tensor).

    bits: of resolution in each octave. octaves: how far below the largest magnitude values are told
    from 0; 32 keep a bulk around 1 beside an outlier of 1e6. Memory: 8 bytes x rows x octaves x
    2^bits, twice that once there are negative values; it does not grow with what is counted.
    """

    def __init__(self, rows: int = 1, bits: int = 9, octaves: int = 32) -> None:
        self.rows, self.bits, self.octaves = rows, bits, octaves
        self.half = octaves << bits  # bins of one sign; the first is that of 0
        self.counts = np.zeros((rows, self.half), np.int64)
        self.base = 0  # the lowest bin's place among those of all floats
        self.origin = 0  # the column of 0

    def add(self, values: Array, low: float, high: float) -> None:
        """Count finite float32 values [rows, n], whose extremes are `low` and `high`."""
        if not values.size:
            return
        if low < 0 and not self.origin:
            negative = np.zeros((self.rows, self.half - 1), np.int64)
            self.counts = np.concatenate([negative, self.counts], axis=1)
            self.origin = self.half - 1
        self._make_room(max(-low, high))
        width = self.counts.shape[1]
        flat = self.counts.reshape(-1)
        columns = min(values.shape[1], CHUNK)
        rows = max(CHUNK // columns, 1)
        for first in range(0, self.rows, rows):
            starts = np.arange(first, min(first + rows, self.rows))[:, None] * width
            for begin in range(0, values.shape[1], columns):
                part = values[first : first + rows, begin : begin + columns]
                np.add.at(flat, (self._places(part, low < 0) + starts).reshape(-1), 1)

    def _places(self, values: Array, signed: bool) -> Array:
        """The column of each value, int64."""
        pattern = np.ascontiguousarray(values).view(np.int32)
        shift = MANTISSA - self.bits
        # Without the sign's bit; of values that are not negative it is set in -0.0 alone, which
        # then falls below every bin, to that of 0.
        places = ((pattern & 0x7FFFFFFF) if signed else pattern) >> shift
        places -= self.base
        np.maximum(places, 0, out=places)
        if signed:
            sign = pattern >> 31  # -1 or 0
            places ^= sign
            places -= sign
        places += self.origin
        return places.astype(np.int64)

    def _make_room(self, magnitude: float) -> None:
        """Move the bins up until `magnitude` has one; what falls off below joins the bin of 0."""
        exponent = int(np.float32(magnitude).view(np.int32)) >> MANTISSA
        base = max(exponent + 1 - self.octaves, 0) << self.bits
        moved = base - self.base
        if moved <= 0:
            return
        self.base = base
        moved = min(moved, self.half - 1)
        sides = [self.counts[:, self.origin :]]
        if self.origin:
            sides.append(self.counts[:, self.origin :: -1])
        for side in sides:  # views, with 0 in front; the second finds that of 0 summed already
            zero = side[:, : moved + 1].sum(axis=1)
            side[:, 1 : self.half - moved] = side[:, moved + 1 :].copy()
            side[:, self.half - moved :] = 0
            side[:, 0] = zero

    def bins(self, row: int | None = None, weights: Array | None = None) -> Bins:
        """Bins of one channel, or of all together: their sum, weighted by `weights` [rows]."""
        if row is not None:
            counts = self.counts[row].astype(np.float64)
        elif weights is None:
            counts = self.counts.sum(axis=0).astype(np.float64)
        else:
            counts = np.zeros(self.counts.shape[1])
            for weight, channel in zip(weights, self.counts, strict=True):  # always in this order
                counts += float(weight) * channel
        filled = np.flatnonzero(counts)
        signed = filled - self.origin
        place = np.abs(signed)
        inner, outer = self._edge(place), self._edge(place + 1)
        lower = np.where(signed > 0, inner, -outer)
        upper = np.where(signed < 0, -inner, outer)
        if not self.origin:
            lower = np.maximum(lower, 0.0)
        return Bins(lower, upper, counts[filled])

    def _edge(self, places: Array) -> Array:
        """The least magnitude of each bin [n], float64; infinity is the largest float instead."""
        pattern = np.minimum((places + self.base) << (MANTISSA - self.bits), 0x7F7FFFFF)
        found: Array = pattern.astype(np.int32).view(np.float32).astype(np.float64)
        return found
