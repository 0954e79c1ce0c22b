"""How far outputs are from the float ones: noise, divergence of the classes, agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import channel_axis

Array = NDArray[Any]

SILENCE = 1e-12  # noise below it is none: 120 dB


@dataclass(frozen=True)
class OutputDistance:
    """How far outputs are from the float ones.

    Attributes:
        noise: its power over the signal's.
        kl: mean Kullback-Leibler divergence of the classes' probabilities in nats; None where the
            first output is no classes.
        agreement: percent of equal classes, None where there are none.
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
    return float("inf") if noise < SILENCE else float(-10 * np.log10(noise))


def output_distance(expected: Sequence[Array], outputs: Sequence[Array]) -> OutputDistance:
    """The distance of outputs [N, …] from the float ones, their mean error taken away.

    Sequential bias correction leaves no output with a mean error, but what it does in later layers
    is unknown where one layer is quantized alone, or left alone: so the mean is taken away here,
    and what stays is what only precision mends. Times n / (n - 1): it is of the same samples.
    """
    noises: list[float] = []
    logits = None
    for number, (reference, output) in enumerate(zip(expected, outputs, strict=True)):
        if reference.dtype.kind != "f":
            continue
        error = output.astype(np.float64) - reference
        if not np.isfinite(error).all():
            return OutputDistance(float("inf"))
        channels = channel_axis(error.ndim) if error.ndim > 1 else None
        axes = tuple(axis for axis in range(error.ndim) if axis != channels)
        count = int(np.prod([error.shape[axis] for axis in axes])) if axes else 1
        if count > 1:
            error = error - error.mean(axis=axes, keepdims=True)
        power = max(float(np.square(reference, dtype=np.float64).mean()), 1e-30)
        noises.append(float(np.square(error).mean()) * count / max(count - 1, 1) / power)
        if number == 0 and reference.ndim == 2 and reference.shape[1] > 1:
            logits = (reference.astype(np.float64), reference + error)
    noise = float(np.mean(noises)) if noises else 0.0
    if logits is None:
        return OutputDistance(noise)
    before, after = logits
    p, q = _log_probabilities(before), _log_probabilities(after)
    kl = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    same = before.argmax(axis=1) == after.argmax(axis=1)
    return OutputDistance(noise, max(kl, 0.0), 100 * float(same.mean()))


def _log_probabilities(values: Array) -> Array:
    """Of logits, or of probabilities as they are, [N, classes]."""
    if values.min() > -1e-3 and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        values = np.log(np.clip(values, 1e-12, None))
    shifted = values - values.max(axis=1, keepdims=True)
    logs: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
