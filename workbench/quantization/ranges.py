"""Ranges of tensors from any number of samples, in one pass and in memory that does not grow.

    estimator = Estimator(per_channel={"conv1"})
    for name, values in ...:                 # as many times as there are batches
        estimator.observe(name, values)      # [samples, channels, ...]
    estimator.ranges(Norm(2.4), after={"conv1": leaky_relu(0.1)})

What is kept of a tensor is order-free: extremes, exact sums of each sample's extremes, integer
counts in bins that are the same for every sample (`histogram`). So the ranges are the same to the
bit whatever the order of the samples and the size of the batches.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DatasetError, StepError, did_you_mean
from workbench.quantization import ranges_search
from workbench.quantization.histogram import Bins, Histogram
from workbench.quantization.plan import LEVELS, Range
from workbench.quantization.ranges_search import Nonlinearity

Array = NDArray[Any]

UNCLIPPED = 0.99  # of the extreme: an end from here on counts as the extreme itself
FEW = 16  # samples: with fewer their extremes say too little about the next one's
CHANNEL_BITS, CHANNEL_OCTAVES = 7, 24  # of histograms per channel: 24 or 48 kB each
UNIT = 2.0**149  # every float32 is a whole number of 2^-149


@dataclass(frozen=True)
class MinMax:
    """Everything that was seen."""


@dataclass(frozen=True)
class MovingAverage:
    """The mean over samples of each one's extremes.

    Jacob et al. (CVPR 2018) average them exponentially in the order in which they come; this is
    that average with every sample weighing the same, for an order should decide nothing.
    """


@dataclass(frozen=True)
class Percentile:
    """All but (100 - percent) / 2 % of the values at each end."""

    percent: float = 99.999


@dataclass(frozen=True)
class Entropy:
    """Least Kullback-Leibler divergence (Migacz, TensorRT 2017): see ranges_search.entropy."""


@dataclass(frozen=True)
class Norm:
    """Least mean |g(Q(y)) - g(y)|^p, g what follows: see ranges_search.norm. MSE is p = 2."""

    p: float = 2.0
    symmetric: bool = False  # the zero point in the grid's middle


Method = MinMax | MovingAverage | Percentile | Entropy | Norm
MSE = Norm(2.0)


class Estimator:
    """Streaming statistics of named tensors, and ranges from them.

    per_channel: names of tensors that are counted channel by channel, which costs 24 kB for each,
    48 where they have negative values; they give `channel_ranges`, and take importances. axis:
    where channels are. histogram: without it only MinMax and MovingAverage are to be had. few: with
    fewer samples ranges are widened; 0 for never.
    """

    def __init__(
        self,
        per_channel: Collection[str] = (),
        axis: int = 1,
        histogram: bool = True,
        few: int = FEW,
    ) -> None:
        self._per_channel = frozenset(per_channel)
        self._axis = axis
        self._histogram = histogram
        self._few = few
        self._seen: dict[str, _Statistics] = {}

    def observe(self, name: str, values: Array, first: int | None = None) -> None:
        """Take in a batch [samples, ...]; `first` is its first sample's number, for messages.

        Integers and booleans are passed over. Raises DatasetError for NaN and infinity.
        """
        values = np.asarray(values)
        for index in range(len(values)):
            number = None if first is None else first + index
            self.observe_sample(name, values[index : index + 1], number)

    def observe_sample(self, name: str, values: Array, number: int | None = None) -> None:
        """Take in one sample's values, of any shape; per channel they have `axis`."""
        values = np.asarray(values)
        if not np.issubdtype(values.dtype, np.floating):
            return
        with np.errstate(over="ignore"):  # to infinity, which is refused below
            values = values.astype(np.float32, copy=False)
        if name in self._per_channel and values.ndim > self._axis:
            values = np.moveaxis(values, self._axis, 0)
            values = values.reshape(len(values), math.prod(values.shape[1:]))
        else:
            values = values.reshape(1, values.size)
        known = self._seen.get(name)
        if known is None:
            known = self._seen[name] = _Statistics(len(values), self._histogram, self._few)
        if len(known.low) != len(values):
            raise StepError(
                f"tensor '{name}' has {len(values)} channels in one sample and {len(known.low)} "
                "in others",
                "ranges per channel need a fixed number of them",
                "leave the tensor out of per_channel",
            )
        known.add(name, values, number)

    @property
    def samples(self) -> int:
        """How many samples the best observed tensor has had."""
        return max((known.samples for known in self._seen.values()), default=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about these ranges."""
        if 0 < self.samples < self._few:
            return (
                f"only {self.samples} calibration samples: ranges are widened to what {self._few} "
                "would be expected to show",
            )
        return ()

    def ranges(
        self,
        method: Method | None = None,
        *,
        after: Mapping[str, Nonlinearity] | None = None,
        importance: Mapping[str, Array] | None = None,
    ) -> dict[str, Range]:
        """One range for each tensor, by `method`: MinMax by default.

        after: by tensor, the nonlinearity that alone reads it. importance: by tensor, weights of
        its channels [channels], all >= 0, of a tensor in per_channel. Both are for Norm; the other
        methods that count values heed importance too.
        """
        found = {}
        for name, known in self._seen.items():
            weights = (importance or {}).get(name)
            if weights is not None and np.shape(weights) != known.low.shape:
                raise StepError(
                    f"tensor '{name}' has importances of shape {list(np.shape(weights))}, and "
                    f"{len(known.low)} counted channels",
                    "importances weigh channels that were counted apart",
                    "name the tensor in per_channel, and give one weight for each channel",
                )
            ends = known.ends(method or MinMax(), None, (after or {}).get(name), weights)
            found[name] = Range(*ends)
        return found

    def channel_ranges(
        self, name: str, method: Method | None = None, after: Nonlinearity | None = None
    ) -> tuple[Array, Array]:
        """Low and high ends of each channel [channels], float64; of a tensor in per_channel."""
        if name not in self._seen:
            raise StepError(f"tensor '{name}' was not observed", "", did_you_mean(name, self._seen))
        known = self._seen[name]
        ends = [known.ends(method or MinMax(), row, after, None) for row in range(len(known.low))]
        wide = [Range(*pair) for pair in ends]
        return np.array([one.low for one in wide]), np.array([one.high for one in wide])


class _Statistics:
    """What is kept of one tensor, by channel or (one row) as a whole."""

    def __init__(self, rows: int, histogram: bool, few: int) -> None:
        self._few = few
        self.samples = 0  # that had values
        self.low, self.high = np.full(rows, np.inf), np.full(rows, -np.inf)
        self._sums = [0] * rows, [0] * rows  # of extremes, exact
        self._whole = [0, 0]  # the same of all channels together
        apart = () if rows == 1 else (CHANNEL_BITS, CHANNEL_OCTAVES)
        self._counts = Histogram(rows, *apart) if histogram else None

    def add(self, name: str, values: Array, number: int | None) -> None:
        if not values.size:
            return
        lows, highs = values.min(axis=1), values.max(axis=1)  # NaN where there is one
        low, high = float(lows.min()), float(highs.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise _not_finite(name, values, number)
        self.samples += 1
        self.low, self.high = np.minimum(self.low, lows), np.maximum(self.high, highs)
        for side, extremes in zip(self._sums, (lows, highs), strict=True):
            for row, units in enumerate((extremes.astype(np.float64) * UNIT).tolist()):
                side[row] += int(units)
        self._whole[0] += int(low * UNIT)
        self._whole[1] += int(high * UNIT)
        if self._counts is not None:
            self._counts.add(values, low, high)

    def ends(
        self, method: Method, row: int | None, after: Nonlinearity | None, weights: Array | None
    ) -> tuple[float, float]:
        """Low <= 0 <= high; both 0 where nothing but zeros was seen, or nothing at all."""
        if not self.samples:
            return 0.0, 0.0
        every = slice(None) if row is None else slice(row, row + 1)
        extremes = float(self.low[every].min()), float(self.high[every].max())
        sums = self._whole if row is None else [side[row] for side in self._sums]
        mean = [float(Fraction(total, int(UNIT) * self.samples)) for total in sums]
        if isinstance(method, MinMax):
            low, high = extremes
        elif isinstance(method, MovingAverage):
            low, high = mean
        else:
            low, high = self._searched(method, row, after, weights, extremes)
        low, high = min(low, 0.0), max(high, 0.0)
        if isinstance(method, MovingAverage):  # an average expects no more from more samples
            return low, high
        return (
            low * _widening(low, extremes[0], mean[0], self.samples, self._few),
            high * _widening(high, extremes[1], mean[1], self.samples, self._few),
        )

    def _searched(
        self, method: Percentile | Entropy | Norm, row: int | None, after: Nonlinearity | None,
        weights: Array | None, extremes: tuple[float, float],
    ) -> tuple[float, float]:  # fmt: skip
        if self._counts is None:
            raise ValueError("there is no histogram to search in")
        if extremes == (0.0, 0.0):
            return extremes
        bins = self._counts.bins(row, weights)
        bins = Bins(
            np.clip(bins.lower, *extremes), np.clip(bins.upper, *extremes), bins.counts
        )  # the outermost were wider than what they hold
        if not len(bins.counts):  # every importance is 0
            return extremes
        if isinstance(method, Percentile):
            return ranges_search.percentile(bins, method.percent)
        if isinstance(method, Entropy):
            return ranges_search.entropy(bins, LEVELS)
        return ranges_search.norm(bins, method.p, after, LEVELS, method.symmetric)


def _widening(end: float, extreme: float, mean: float, samples: int, few: int) -> float:
    """By how much an end grows where samples are few: 1 with `few` or more, or where all agree.

    Also 1 where the end clips: then it is not the extremes that decide it. Maxima of light-tailed
    values are Gumbel-distributed: of n of them the largest is expected b ln n above their mean. One
    gives no b; it is then taken as what two would show that differ by a fifth of the extreme.
    """
    if samples >= few or abs(end) < UNCLIPPED * abs(extreme) or end == 0:
        return 1.0
    gap = (extreme - mean) / math.log(samples) if samples > 1 else 0.1 * extreme / math.log(2)
    return 1.0 + gap * math.log(few / samples) / extreme


def _not_finite(name: str, values: Array, number: int | None) -> DatasetError:
    kinds: Iterable[str] = (
        kind
        for kind, found in (("NaN", np.isnan(values)), ("infinite values", np.isinf(values)))
        if found.any()
    )
    where = "" if number is None else f" for calibration sample {number}"
    return DatasetError(
        f"tensor '{name}' has {' and '.join(kinds)}{where}",
        "no range can hold them: the sample is broken, or the network overflows on it",
        "look at that sample and its preprocessing, or leave it out",
    )
