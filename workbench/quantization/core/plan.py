"""What quantization decides, as values: ranges, integer weights, corrected biases, float nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEVELS = 255  # steps of an 8-bit grid
LEAST = 1e-8  # a range narrower than this is widened: its scale would be no normal float
LEAST_SCALE = 1e-30  # of weights: times an activation's it still is a normal float


@dataclass(frozen=True)
class Scheme:
    """The integers that a device's kernels take.

    signed: activations are int8 rather than uint8. symmetric: their zero point is 0. weight_max:
    127, or 63 where 16-bit sums of u8 x s8 products would saturate (x86 without VNNI).
    """

    signed: bool = False
    symmetric: bool = False
    weight_max: int = 127


# Why each: u8s8 runs on VNNI and is exact there; without VNNI its 16-bit sums saturate, so weights
# get 7 bits; ARM's dot products are signed, and both are exact. Symmetric is signed with zero
# points of 0, all that TensorRT takes.
SCHEMES: dict[str, Scheme] = {
    "u8s8": Scheme(),
    "u8s8-reduced": Scheme(weight_max=63),
    "s8s8": Scheme(signed=True),
    "s8s8-symmetric": Scheme(signed=True, symmetric=True),
}


@dataclass(frozen=True)
class Range:
    """The values of a tensor that its 8-bit grid spans: low <= 0 <= high, finite, not both 0."""

    low: float
    high: float

    def __post_init__(self) -> None:
        low, high = min(float(self.low), 0.0), max(float(self.high), 0.0)
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(f"a range from {low} to {high} is not finite")
        if high - low < LEAST:  # a constant zero: any grid that holds 0 represents it
            high = low + 1.0
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    def grid(self, scheme: Scheme = SCHEMES["u8s8"]) -> tuple[np.float32, int]:
        """Scale and zero point, the latter unsigned: 0 to 255, and 128 where it is symmetric."""
        if scheme.symmetric:
            return np.float32(max(-self.low, self.high) / 127), 128
        scale = np.float32((self.high - self.low) / LEVELS)
        return scale, int(np.clip(np.rint(-self.low / float(scale)), 0, LEVELS))


@dataclass(frozen=True)
class Weight:
    """Weights on their grid: integers as the initializer is shaped, a scale for each channel.

    axis: of the output channels, which `scales` [channels] runs along.
    """

    integers: Array
    scales: Array
    axis: int

    @property
    def floats(self) -> Array:
        """The values that the integers stand for, float32."""
        shape = [1] * self.integers.ndim
        shape[self.axis] = -1
        found: Array = (self.integers * self.scales.reshape(shape)).astype(np.float32)
        return found


@dataclass(frozen=True)
class Plan:
    """All that the writer of a quantized graph has to know.

    ranges: of the tensors that are quantized, and of those that have another's parameters: where
    more is left in float, these may stand for themselves. weights, biases: by node name. A plan may
    hold more than a placement asks for. floats: nodes that were left in float on purpose.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    weights: Mapping[str, Weight] = field(default_factory=dict)
    biases: Mapping[str, Array] = field(default_factory=dict)
    floats: frozenset[str] = frozenset()
    scheme: Scheme = SCHEMES["u8s8"]

    def tied(self, ties: Mapping[str, str]) -> Plan:
        """The plan with a range, too, for what has another tensor's parameters."""
        ranges = dict(self.ranges)
        for name, source in ties.items():  # in graph order: what is tied to a tie comes later
            if source in ranges:
                ranges[name] = ranges[source]
        return replace(self, ranges=ranges)

    def with_range(self, name: str, found: Range) -> Plan:
        return replace(self, ranges={**self.ranges, name: found})


def rounded(weights: Array, axis: int, scheme: Scheme) -> Weight:
    """Weights [..] to the nearest point of a symmetric grid, one scale for each index of `axis`.

    A channel of zeros gets a scale of 1: any represents it.
    """
    moved = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    extremes = np.abs(moved).max(axis=1) if moved.size else np.zeros(len(moved))
    scales = np.where(extremes > 0, extremes / scheme.weight_max, 1.0)
    scales = np.maximum(scales, LEAST_SCALE).astype(np.float32)
    shape = [1] * weights.ndim
    shape[axis] = -1
    integers = np.clip(
        np.rint(weights / scales.reshape(shape)), -scheme.weight_max, scheme.weight_max
    )
    return Weight(integers.astype(np.int8), scales, axis)


def fitted(found: Weight, bias: Array, scale: float) -> Weight:
    """Weights whose scales let a bias [C] fit: on coarser grids where they are tiny beside it.

    scale: of the input. A bias has the scale s_x s_w: beside weights as tiny as those of dead
    channels are it leaves int32, or a kernel's sum with it wraps around. 20 bits have room, and are
    finer than what the output keeps. A channel of zeros, which any scale represents, gets that one.
    """
    size = np.abs(bias.astype(np.float64)) / scale / 2.0**20
    moved = np.moveaxis(found.integers, found.axis, 0).reshape(len(found.scales), -1)
    empty = ~moved.any(axis=1) & (size > 0)
    scales = np.where(empty, size, np.maximum(found.scales, size))
    scales = np.maximum(scales, LEAST_SCALE).astype(np.float32)
    shape = [1] * found.integers.ndim
    shape[found.axis] = -1
    integers = np.rint(found.integers * (found.scales / scales).reshape(shape)).clip(-127, 127)
    return Weight(integers.astype(np.int8), scales, found.axis)
