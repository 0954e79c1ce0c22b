"""8-bit grids, and the plan: everything that quantization decides of a network, as values.

An activation's grid is affine, `value = scale * (integer - zero_point)`; a weight's is symmetric,
with one scale for each output channel. As in Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    >>> scale, zero_point = ActivationRange(-1.0, 254.0).grid(SCHEMES["u8s8"])
    >>> float(scale), zero_point
    (1.0, 1)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEVELS = 255  # steps of an 8-bit grid
NARROWEST = 1e-8  # a range narrower than this is widened: its scale would be no normal float
SMALLEST_SCALE = 1e-30  # of weights: times an activation's it still is a normal float


@dataclass(frozen=True)
class QuantizationScheme:
    """The integers that a device's kernels take.

    Attributes:
        signed: activations are int8 rather than uint8.
        symmetric: the zero point of activations is 0.
        weight_max: the largest weight: 127, or 63 where 16-bit sums of u8 x s8 products would
            saturate (x86 without VNNI).
    """

    signed: bool = False
    symmetric: bool = False
    weight_max: int = 127


# Why each: u8s8 runs on VNNI and is exact there; without VNNI its 16-bit sums saturate, so weights
# get 7 bits; ARM's dot products are signed, and both are exact. Symmetric is signed with zero
# points of 0, all that TensorRT takes.
SCHEMES: dict[str, QuantizationScheme] = {
    "u8s8": QuantizationScheme(),
    "u8s8-reduced": QuantizationScheme(weight_max=63),
    "s8s8": QuantizationScheme(signed=True),
    "s8s8-symmetric": QuantizationScheme(signed=True, symmetric=True),
}


@dataclass(frozen=True)
class ActivationRange:
    """The values of a tensor that its 8-bit grid spans: low <= 0 <= high, finite, not both 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = min(float(self.low), 0.0), max(float(self.high), 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"a range from {low} to {high} is not finite")
        if high - low < NARROWEST:  # a constant zero: any grid that holds 0 represents it
            high = low + 1.0
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def grid(self, scheme: QuantizationScheme = SCHEMES["u8s8"]) -> tuple[np.float32, int]:
        """Scale and zero point, the latter unsigned: 0 to 255, and 128 where it is symmetric."""
        if scheme.symmetric:
            return np.float32(max(-self.low, self.high) / 127), 128
        scale = np.float32((self.high - self.low) / LEVELS)
        return scale, int(np.clip(np.rint(-self.low / float(scale)), 0, LEVELS))


@dataclass(frozen=True)
class QuantizedWeight:
    """Weights on their grid, one scale for each output channel.

    Attributes:
        integers: int8, shaped as the initializer is.
        scales: float32 [channels].
        axis: of the output channels, along which `scales` run.
    """

    integers: Array
    scales: Array
    axis: int

    @property
    def floats(self) -> Array:
        """The values that the integers stand for, float32."""
        values: Array = (self.integers * _along_axis(self.scales, self)).astype(np.float32)
        return values


@dataclass(frozen=True)
class QuantizationPlan:
    """All that the writer of a quantized graph has to know; it may hold more than is asked for.

    Attributes:
        ranges: by tensor, of those that are quantized, and of those that have another's parameters:
            where more is left in float, these may stand for themselves.
        weights: by node.
        biases: corrected ones by node, float32 [channels].
        scheme: the integers of activations and weights.
    """

    ranges: Mapping[str, ActivationRange] = field(default_factory=dict)
    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    biases: Mapping[str, Array] = field(default_factory=dict)
    scheme: QuantizationScheme = SCHEMES["u8s8"]

    def with_tied_ranges(self, ties: Mapping[str, str]) -> QuantizationPlan:
        """The plan with a range, too, for each tensor that has another's parameters."""
        ranges = dict(self.ranges)
        for name, source in ties.items():  # in graph order: what is tied to a tie comes later
            if source in ranges:
                ranges[name] = ranges[source]
        return replace(self, ranges=ranges)


def quantize_weights(weights: Array, axis: int, scheme: QuantizationScheme) -> QuantizedWeight:
    """Weights to the nearest point of a symmetric grid, one scale for each index of `axis`.

    A channel of zeros gets a scale of 1: any represents it.
    """
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    extremes = np.abs(rows).max(axis=1) if rows.size else np.zeros(len(rows))
    scales = np.where(extremes > 0, extremes / scheme.weight_max, 1.0)
    scales = np.maximum(scales, SMALLEST_SCALE).astype(np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    integers = np.clip(
        np.rint(weights / scales.reshape(shape)), -scheme.weight_max, scheme.weight_max
    )
    return QuantizedWeight(integers.astype(np.int8), scales, axis)


def widen_for_bias(weight: QuantizedWeight, bias: Array, input_scale: float) -> QuantizedWeight:
    """Weights whose scales let a bias [C] fit: on coarser grids where they are tiny beside it.

    A bias has the scale s_x s_w: beside weights as tiny as those of dead channels are it leaves
    int32, or a kernel's sum with it wraps around. 20 bits have room, and are finer than what the
    output keeps. A channel of zeros, which any scale represents, gets that one.
    """
    least = np.abs(bias.astype(np.float64)) / input_scale / 2.0**20
    rows = np.moveaxis(weight.integers, weight.axis, 0).reshape(len(weight.scales), -1)
    empty = ~rows.any(axis=1) & (least > 0)
    scales = np.where(empty, least, np.maximum(weight.scales, least))
    scales = np.maximum(scales, SMALLEST_SCALE).astype(np.float32)
    ratios = _along_axis(weight.scales / scales, weight)
    integers = np.rint(weight.integers * ratios).clip(-127, 127)
    return QuantizedWeight(integers.astype(np.int8), scales, weight.axis)


def _along_axis(values: Array, weight: QuantizedWeight) -> Array:
    """One value for each output channel, so that it broadcasts against the weights."""
    shape = [1] * weight.integers.ndim
    shape[weight.axis] = -1
    return values.reshape(shape)
