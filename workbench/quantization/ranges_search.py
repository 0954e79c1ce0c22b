"""The range whose grid does least harm: L_p and MSE by search, entropy (KL), percentiles.

All take the bins of a histogram and give (low, high), low <= 0 <= high; none sees the samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.histogram import Bins
from workbench.quantization.plan import LEVELS

Array = NDArray[Any]
Nonlinearity = Callable[[Array], Array]

RATIO, STEPS = 0.8, 28  # the first grid of ends: 1 to 0.0024 of the extreme
REFINEMENTS = 3  # each four times as fine: 0.35 % in the end
FINENESS = 1 << 13  # bins that are left of the range for the search
THRESHOLDS, FINE = 128, 2048  # Migacz's numbers
RESTARTS = 4  # each may go down to an eighth
LEAST = 1e-4  # the share that smoothing moves into empty bins


def percentile(bins: Bins, percent: float) -> tuple[float, float]:
    """The least range of whole bins that leaves (100 - percent) / 2 % of values beyond each end.

    As NumPy's inverted_cdf, to within a bin: never inside it, at most a bin outside.
    """
    total = np.cumsum(bins.counts)
    cut = total[-1] * (100 - percent) / 200
    # The first bin up to which more than the cut has been counted, from below and from above.
    first = int(np.searchsorted(total, cut, side="right"))
    above = np.cumsum(bins.counts[::-1])
    last = len(total) - 1 - int(np.searchsorted(above, cut, side="right"))
    first, last = min(first, len(total) - 1), max(last, 0)
    return min(float(bins.lower[first]), 0.0), max(float(bins.upper[last]), 0.0)


def without_far(bins: Bins, levels: int = LEVELS) -> Bins:
    """The bins without values so far out that a range with them would round the rest to 0.

    Far is beyond 2 x levels times the magnitude that 99.9 % of all values other than 0 stay below:
    with such a value at the end of the grid those 99.9 % are less than half a step. An error that
    counts it wants it in the range at the price of everything else.
    """
    centres = bins.centres
    size = np.abs(centres)
    order = np.argsort(size, kind="stable")
    counted = np.cumsum(np.where(size > 0, bins.counts, 0.0)[order])
    if not len(counted) or counted[-1] <= 0:
        return bins
    usual = size[order][int(np.searchsorted(counted, 0.999 * counted[-1]))]
    kept = size <= 2 * levels * usual
    return bins if kept.all() else bins.chosen(kept)


def points(bins: Bins) -> tuple[Array, Array]:
    """Values and counts [n] for the search: bins finer than 2^-13 of the range are put together."""
    width = max(-bins.lower[0], bins.upper[-1]) / FINENESS
    cell = np.floor(bins.centres / width).astype(np.int64)
    first = np.flatnonzero(np.diff(cell, prepend=cell[0] - 1))
    counts = np.add.reduceat(bins.counts, first)
    return np.add.reduceat(bins.counts * bins.centres, first) / counts, counts


def quantized(values: Array, low: Array, high: Array, levels: int, symmetric: bool) -> Array:
    """Values [n] on the grids of k ranges [k]: [k, n], as QuantizeLinear and back give them."""
    low, high = low[:, None], high[:, None]
    if symmetric:
        scale = np.maximum(-low, high) / (levels // 2)
        zero = np.full_like(scale, (levels + 1) // 2)
    else:
        scale = (high - low) / levels
        zero = np.rint(-low / np.where(scale > 0, scale, 1.0))
    found = values / np.where(scale > 0, scale, 1.0)
    np.rint(found, out=found)
    np.clip(found, -zero, levels - zero, out=found)
    found *= scale  # all 0 where a range is empty
    return found


def norm(
    bins: Bins,
    p: float,
    after: Nonlinearity | None = None,
    levels: int = LEVELS,
    symmetric: bool = False,
) -> tuple[float, float]:
    """The ends that minimise the sum of |g(Q(y)) - g(y)|^p, g the nonlinearity that follows.

    p = 2 is MSE (Banner, Nahshan and Soudry, NeurIPS 2019, there in closed form); larger p clip
    less (L_p as in Nahshan et al., "Loss Aware Post-Training Quantization", 2021). With g, errors
    that it squashes count for nothing: in the tails of a sigmoid, and below 0 of a ReLU, where the
    end then is 0 and the zero point too, so that quantization does the ReLU's work. Search: both
    ends together on a geometric grid, then one after the other, then finer around the best; of
    equal ranges the narrowest.
    """
    near = without_far(bins, levels)
    values, counts = points(near)
    g = after or (lambda array: array)
    wanted = g(values)
    low, high = min(float(near.lower[0]), 0.0), max(float(near.upper[-1]), 0.0)
    flat = wanted == g(np.zeros(1))
    low, high = (0.0 if flat[values < 0].all() else low), (0.0 if flat[values > 0].all() else high)

    def best(lows: Array, highs: Array) -> tuple[float, float]:
        error = np.abs(g(quantized(values, lows, highs, levels, symmetric)) - wanted)
        error = error * error if p == 2 else error**3 if p == 3 else error**p
        found = int(np.argmin((error * counts).sum(axis=1)))
        return float(lows[found]), float(highs[found])

    grid = np.append(RATIO ** np.arange(STEPS), 0.0)[::-1]
    same = np.ones_like(grid)
    ends = best(low * grid, high * grid)
    if not symmetric:
        ends = best(ends[0] * same, high * grid)
        ends = best(low * grid, ends[1] * same)
    for fine in range(REFINEMENTS):
        around = RATIO ** (np.arange(4, -5, -1) / 4 ** (fine + 1))
        lows, highs = np.maximum(ends[0] * around, low), np.minimum(ends[1] * around, high)
        if symmetric:
            ends = best(lows, highs)
            continue
        same = np.ones_like(around)
        ends = best(ends[0] * same, highs)
        ends = best(lows, ends[1] * same)
    return ends


def entropy(bins: Bins, levels: int = LEVELS) -> tuple[float, float]:
    """The clipping whose quantized distribution loses least information: Migacz, TensorRT 2017.

    For each threshold T the range is what is there within [-T, T]; P is the distribution with all
    beyond T counted at its ends, Q the one within, averaged over the bins of each level that are
    not empty; T minimises KL(P || Q). His numbers: 2,048 bins, 128 thresholds; while the lowest of
    them is the best, the search starts again from there, with finer bins. Two cares about zeros:
    values that are 0 are left out, since every grid holds them exactly and a ReLU's would outweigh
    the rest; and where clipping puts counts in a bin that is otherwise empty, Q gets a
    ten-thousandth there, or the divergence would be infinite.
    """
    near = without_far(bins, levels)
    near = near.chosen(near.centres != 0)
    if not len(near.counts):
        return 0.0, 0.0
    low, high = min(float(near.lower[0]), 0.0), max(float(near.upper[-1]), 0.0)
    for _ in range(RESTARTS):
        largest = max(-low, high)
        fine = _evenly(near, low, high)
        middle = low + (high - low) / FINE * (np.arange(FINE) + 0.5)
        best, chosen, lowest = np.inf, (low, high), False
        for threshold in largest * np.arange(THRESHOLDS, 0, -1) / THRESHOLDS:
            inside = np.flatnonzero(np.abs(middle) <= threshold)
            if len(inside) < levels:
                break
            divergence = _divergence(fine, int(inside[0]), int(inside[-1]) + 1, levels)
            lowest = divergence < best
            if lowest:
                best, chosen = divergence, (max(low, -threshold), min(high, threshold))
        low, high = chosen
        if not lowest:
            break
    return low, high


def _evenly(bins: Bins, low: float, high: float) -> Array:
    """The counts in FINE equal bins from low to high; each bin's values lie evenly in it.

    What lies beyond is counted in the first and the last.
    """
    edges = np.stack([bins.lower, bins.upper], axis=1).reshape(-1)
    total = np.cumsum(bins.counts)
    counted = np.stack([total - bins.counts, total], axis=1).reshape(-1)
    up_to = np.interp(np.linspace(low, high, FINE + 1), edges, counted)
    up_to[0], up_to[-1] = 0.0, total[-1]
    return np.diff(up_to)


def _divergence(fine: Array, first: int, last: int, levels: int) -> float:
    """KL(P || Q) in nats for the grid over bins first to last, excluding the latter."""
    kept = fine[first:last]
    if kept.sum() <= 0:
        return float("inf")
    p = kept.copy()
    p[0] += fine[:first].sum()
    p[-1] += fine[last:].sum()
    level = np.arange(len(kept)) * levels // len(kept)
    filled = kept > 0
    sums = np.bincount(level, kept, levels)
    members = np.bincount(level, filled, levels)
    q = np.where(filled, (sums / np.maximum(members, 1))[level], 0.0)
    p, q = p / p.sum(), q / q.sum()
    bare = (p > 0) & (q == 0)
    q = np.where(bare, LEAST, q * (1 - LEAST * bare.sum()))
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
