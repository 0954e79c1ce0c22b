"""Estimates with intervals. Pure functions over numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether the interval leaves a value out: whether the difference from it is real."""
        return not self.low <= value <= self.high

    def to_json(self) -> dict[str, float]:
        """The value and the ends of its interval."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap_median(values: Sequence[float], seed: int = 0) -> Estimate:
    """The median over processes with its bootstrap interval.

    A percentile bootstrap over few values is too narrow: its levels are widened as Hesterberg
    does ("What Teachers Should Know About the Bootstrap", 2015, section 4.2, the expanded
    percentile interval), so that for n of 5 or 6 it comes to the whole range, which covers the
    median of any distribution with probability 1 - 2^(1-n).
    """
    data = np.asarray(values, float)
    middle, count = float(np.median(data)), len(data)
    if count < 2:
        return Estimate(middle, -math.inf, math.inf)
    tail = expanded(count)
    chosen = np.random.default_rng(seed).integers(0, count, (RESAMPLES, count))
    medians = np.median(data[chosen], axis=1)
    low, high = np.quantile(medians, [tail, 1 - tail], method="inverted_cdf")
    return Estimate(middle, float(min(low, middle)), float(max(high, middle)))


# What `expanded` gives for the presets' numbers of processes: scipy takes longer to import than
# the rest of a short command takes to run.
EXPANDED = {6: 0.0024318031746115563, 12: 0.010756614916552474}


def expanded(count: int) -> float:
    """The level of the expanded percentile interval over so many values, at each end."""
    if count in EXPANDED:
        return EXPANDED[count]
    from scipy.special import ndtr, stdtrit

    quantile = stdtrit(count - 1, (1 - CONFIDENCE) / 2)
    return float(ndtr(math.sqrt(count / (count - 1)) * quantile))


def paired_difference(before: NDArray[Any], after: NDArray[Any]) -> Estimate:
    """after - before of a proportion over the same samples, in points (0 to 100).

    Both are boolean [N]. The interval is the adjusted Wald interval for matched pairs of Bonett
    and Price (2012, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions
    Based on Paired Data"): unlike a bootstrap it does not collapse where no sample changed.
    """
    count = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    z = 1.959963984540054
    width = z * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return Estimate(
        100 * (gained - lost) / count, 100 * (up - down - width), 100 * (up - down + width)
    )


def paired_metric_difference(
    metric: Callable[[NDArray[Any], NDArray[Any]], float],
    before: NDArray[Any],
    after: NDArray[Any],
    labels: NDArray[Any],
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """after - before of a user's metric, with a percentile bootstrap over the same samples."""
    count = len(labels)
    generator = np.random.default_rng(seed)
    differences = []
    for _ in range(resamples):
        rows = generator.integers(0, count, count)
        differences.append(
            float(metric(after[rows], labels[rows])) - float(metric(before[rows], labels[rows]))
        )
    low, high = np.quantile(differences, [0.025, 0.975])
    value = float(metric(after, labels)) - float(metric(before, labels))
    return Estimate(value, float(low), float(high))
