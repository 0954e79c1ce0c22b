"""How far outputs are from the float ones: noise, divergence of the classes, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.moments import channel_axis

Array = NDArray[Any]

LEAST = 1e-12  # noise below it is none: 120 dB


@dataclass(frozen=True)
class Distance:
    """How far outputs are from the float ones. noise: its power over the signal's. kl: mean
    Kullback-Leibler divergence of the classes' probabilities in nats; agreement: percent of equal
    classes; both None where the first output is no classes.
    """

    noise: float
    kl: float | None = None
    agreement: float | None = None

    @property
    def sqnr(self) -> float:
        """In dB."""
        return decibels(self.noise)


def decibels(noise: float) -> float:
    """Noise over signal as dB of SQNR; infinite for none."""
    if not np.isfinite(noise):
        return float("-inf")
    return float("inf") if noise < LEAST else float(-10 * np.log10(noise))


def distance(expected: Sequence[Array], found: Sequence[Array]) -> Distance:
    """The distance of outputs [N, …] from the float ones, their mean error taken away.

    Sequential bias correction leaves no output with a mean error, but what it does in later layers
    is unknown where one layer is quantized alone, or left alone: so the mean is taken away here,
    and what stays is what only precision mends. Times n / (n - 1): it is of the same samples.
    """
    powers, first = [], None
    for place, (one, other) in enumerate(zip(expected, found, strict=True)):
        if one.dtype.kind != "f":
            continue
        error = other.astype(np.float64) - one
        if not np.isfinite(error).all():
            return Distance(float("inf"))
        kept = channel_axis(error.ndim) if error.ndim > 1 else None
        axes = tuple(i for i in range(error.ndim) if i != kept)
        count = int(np.prod([error.shape[axis] for axis in axes])) if axes else 1
        if count > 1:
            error = error - error.mean(axis=axes, keepdims=True)
        signal = max(float(np.square(one, dtype=np.float64).mean()), 1e-30)
        powers.append(float(np.square(error).mean()) * count / max(count - 1, 1) / signal)
        if place == 0 and one.ndim == 2 and one.shape[1] > 1:
            first = (one.astype(np.float64), one + error)
    noise = float(np.mean(powers)) if powers else 0.0
    if first is None:
        return Distance(noise)
    before, after = first
    p, q = _log_probabilities(before), _log_probabilities(after)
    kl = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    same = before.argmax(axis=1) == after.argmax(axis=1)
    return Distance(noise, max(kl, 0.0), 100 * float(same.mean()))


def _log_probabilities(values: Array) -> Array:
    """Of logits, or of probabilities as they are, [N, classes]."""
    if values.min() > -1e-3 and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        values = np.log(np.clip(values, 1e-12, None))
    shifted = values - values.max(axis=1, keepdims=True)
    found: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
