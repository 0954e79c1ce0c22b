"""Whether two sets of outputs agree, and by how much they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class Parity:
    """Differences of a candidate's outputs from a reference's, over all outputs together.

    Attributes:
        max_abs: the largest absolute difference.
        sqnr: 10 log10(Σ reference² / Σ difference²) in dB, infinite where the two are equal.
        close: whether every element is within the tolerances.
    """

    max_abs: float
    sqnr: float
    close: bool


def compare(reference: Arrays, candidate: Arrays, rtol: float = 1e-3, atol: float = 1e-5) -> Parity:
    """Parity of two lists of outputs. Raises StepError where their shapes differ.

    An element is close where |difference| <= atol * scale + rtol * |reference|. The scale is 1, or
    how large its output is where that is more: a sum that comes to nearly 0 is rounded as its terms
    are.
    """
    shapes = [a.shape for a in reference], [a.shape for a in candidate]
    if shapes[0] != shapes[1]:
        raise StepError("the outputs have other shapes", f"{shapes[1]} instead of {shapes[0]}")
    signal = noise = largest = 0.0
    close = True
    for reference_output, candidate_output in zip(reference, candidate, strict=True):
        expected, actual = reference_output.astype(np.float64), candidate_output.astype(np.float64)
        difference = np.abs(actual - expected)
        if not np.isfinite(difference).all():
            return Parity(math.inf, -math.inf, False)
        signal += float((expected**2).sum())
        noise += float((difference**2).sum())
        largest = max(largest, float(difference.max(initial=0.0)))
        magnitude = np.abs(expected)
        allowed = atol * _scale(magnitude) + rtol * magnitude
        close = close and bool((difference <= allowed).all())
    return Parity(largest, sqnr(signal, noise), close)


def _scale(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest magnitude of an output, at least 1; with places, at most 100 times a channel's.

    So that a probability beside coordinates of thousands of pixels, in a channel of its own (the
    second axis, or the last), is not held to what those need. Of [N, classes] a channel may be
    small in all samples.
    """
    scale: NDArray[np.float64] = magnitude.max(initial=1.0, keepdims=True)
    for channel_axis in (1, magnitude.ndim - 1) if magnitude.ndim > 2 and magnitude.size else ():
        others = tuple(axis for axis in range(magnitude.ndim) if axis != channel_axis)
        channels = magnitude.max(axis=others, keepdims=True)
        scale = np.maximum(1.0, np.minimum(scale, 100 * channels))
    return scale


def apply_head(outputs: Arrays, head: str) -> list[NDArray[Any]]:
    """Outputs as a file with that head at its first one, [N, classes], gives them canonically.

    "softmax" gives probabilities, "argmax" ones and zeros; "" changes nothing.
    """
    if not head:
        return list(outputs)
    first = outputs[0].astype(np.float64)
    if head == "argmax":
        values = np.arange(first.shape[1]) == first.argmax(1)[:, None]
    else:
        powers = np.exp(first - first.max(1, keepdims=True))
        values = powers / powers.sum(1, keepdims=True)
    return [values.astype(np.float32), *outputs[1:]]


def sqnr(signal: float, noise: float) -> float:
    """Signal-to-quantization-noise ratio of two powers, in dB."""
    if noise == 0:
        return math.inf
    return -math.inf if signal == 0 else 10 * math.log10(signal / noise)


def check(what: str, reference: Arrays, candidate: Arrays, rtol: float, atol: float) -> Parity:
    """`compare`, raising StepError where an element is not within the tolerances."""
    parity = compare(reference, candidate, rtol, atol)
    if not parity.close:
        raise StepError(
            f"{what}: the outputs differ from the original's",
            f"largest difference {parity.max_abs:.3g}, SQNR {parity.sqnr:.1f} dB; "
            f"allowed rtol {rtol:g}, atol {atol:g}",
            "try another opset, and check that the model has no randomness in eval mode",
        )
    return parity


def check_sqnr(what: str, reference: Arrays, candidate: Arrays, least: float) -> Parity:
    """`compare`, raising StepError where the SQNR is below `least` dB."""
    parity = compare(reference, candidate)
    if not parity.sqnr >= least:
        raise StepError(
            f"{what}: the outputs differ from those of the file it was made from",
            f"SQNR {parity.sqnr:.1f} dB, at least {least:g} expected",
            "the converter does not keep this model's meaning; report it with the run's manifest",
        )
    return parity
