"""Weights to their grid, by what they multiply: compensation, and rounding column after column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Node

Array = NDArray[Any]

RIDGES = (0.1, 0.5, 2.0, 10.0)  # multiples of the mean diagonal that are tried
DAMPING = 0.01  # of the mean diagonal, added to it: as in GPTQ
PRECISION = 1e-5  # of sums of products in float32


@dataclass(frozen=True)
class Moments:
    """Of a node's columns on the float and the quantized path, over some of the samples.

    Sums, from which means follow: count; x_f [g, K], x_q [g, K]; x_q x_qᵀ and (x_f - x_q) x_qᵀ
    [g, K, K].
    """

    count: int
    floats: Array
    quants: Array
    second: Array
    cross: Array

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count, self.floats + other.floats, self.quants + other.quants,
            self.second + other.second, self.cross + other.cross,
        )  # fmt: skip

    @property
    def centred(self) -> tuple[Array, Array]:
        """E[x_q x_qᵀ] and E[(x_f - x_q) x_qᵀ] about the means: what biases hold is left out.

        The sums are float32's: PRECISION of each raw power is added to the diagonal, so that what
        cancels where values hardly vary leaves no negative variance.
        """
        f, q = self.floats / self.count, self.quants / self.count
        raw = self.second / self.count
        second = raw - q[:, :, None] * q[:, None, :]
        second += PRECISION * np.einsum("gii->gi", raw)[:, :, None] * np.eye(raw.shape[-1])
        cross = self.cross / self.count - (f - q)[:, :, None] * q[:, None, :]
        return second, cross


def compensated(weights: Array, halves: tuple[Moments, Moments]) -> Array:
    """Weights [g, O, K] that take the inputs' own quantization error into account.

    The least squares solution of W' x_q ≈ W x_f is W + W C (H + λI)⁻¹, H = E[x_q x_qᵀ],
    C = E[(x_f - x_q) x_qᵀ]. λ, a multiple of H's mean diagonal, is chosen for each row by
    cross-validation between two halves of the samples: with too small a one the weights memorise
    the calibration samples. A row that nothing helps stays.
    """
    first, other = (one.centred for one in halves)
    scores = [
        _residual(weights, _solved(weights, *first, ridge), *other)
        + _residual(weights, _solved(weights, *other, ridge), *first)
        for ridge in RIDGES
    ]
    best = np.argmin([np.zeros_like(scores[0]), *scores], axis=0)  # [g, O], 0: no change
    whole = (halves[0] + halves[1]).centred
    found = weights
    for number, ridge in enumerate(RIDGES, start=1):
        if (best == number).any():
            made = _solved(weights, *whole, ridge)
            found = np.where((best == number)[:, :, None], made, found)
    return found


def _solved(weights: Array, second: Array, cross: Array, ridge: float) -> Array:
    size = second.shape[-1]
    mean = np.trace(second, axis1=1, axis2=2) / size
    damped = second + np.maximum(ridge * mean, 1e-12)[:, None, None] * np.eye(size)
    # W C (H + λI)⁻¹ is the transpose of (H + λI)⁻¹ Cᵀ Wᵀ: H is symmetric.
    change = np.linalg.solve(damped, cross.swapaxes(1, 2) @ weights.swapaxes(1, 2))
    found: Array = weights + change.swapaxes(1, 2)
    return found


def _residual(weights: Array, changed: Array, second: Array, cross: Array) -> Array:
    """E|W' x_q - W x_f|² less what it is for W itself, for each row [g, O].

    With D = W' - W it is E|D x_q - W (x_f - x_q)|² - E|W (x_f - x_q)|².
    """
    change = changed - weights
    found: Array = ((change @ second - 2 * weights @ cross) * change).sum(-1)
    return found


def reconstructed(weights: Array, scales: Array, second: Array, weight_max: int = 127) -> Array:
    """Integers [g, O, K] for weights [g, O, K] on the grids of scales [g, O].

    GPTQ (Frantar et al. 2023, arXiv:2210.17323): column after column, those of the most power
    first, each column's error spread over the columns that are still to come. second:
    E[x xᵀ] [g, K, K].
    """
    groups, _, size = weights.shape
    diagonal = np.diagonal(second, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    rows = np.arange(groups)[:, None]
    permuted = second[rows[:, :, None], order[:, :, None], order[:, None, :]]
    upper = _factored(permuted, np.maximum(diagonal.mean(1), 1e-12))
    left = np.take_along_axis(weights.astype(np.float64), order[:, None, :], axis=2)
    made = np.empty_like(left)
    block = 64
    for start in range(0, size, block):
        end = min(start + block, size)
        errors = np.empty((*left.shape[:2], end - start))
        for column in range(start, end):
            integers = np.clip(np.rint(left[:, :, column] / scales), -weight_max, weight_max)
            made[:, :, column] = integers
            error = (left[:, :, column] - integers * scales) / upper[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : end] -= (
                error[:, :, None] * upper[:, None, column, column + 1 : end]
            )
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    found = np.empty_like(made)
    np.put_along_axis(found, np.broadcast_to(order[:, None, :], made.shape), made, axis=2)
    return found.astype(np.int8)


def _factored(second: Array, mean: Array) -> Array:
    """The upper factor U of H⁻¹ = Uᵀ U: row by row, what Gaussian elimination of H would leave.

    H [g, K, K] is damped, more than GPTQ does where rounding left it indefinite. mean [g]: of the
    diagonal, above 0.
    """
    identity = np.eye(second.shape[-1])
    for damping in (DAMPING, 10 * DAMPING, 100 * DAMPING):
        inverse = np.linalg.inv(second + (damping * mean)[:, None, None] * identity)
        try:
            return np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2).swapaxes(1, 2)
        except np.linalg.LinAlgError:
            continue
    return np.broadcast_to(identity, second.shape)  # rounding to the nearest


def grouped(node: Node, weights: Array) -> Array:
    """Weights of a Conv [O, I/g, …], Gemm or MatMul as [g, O/g, K]."""
    if node.op == "Conv":
        group = int(node.attributes.get("group", 1))
        return weights.reshape(group, weights.shape[0] // group, -1)
    return (weights if node.attributes.get("transB") else weights.T)[None]


def ungrouped(node: Node, grouped: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `grouped`, in the initializer's shape."""
    if node.op == "Conv":
        return grouped.reshape(shape)
    found: Array = np.ascontiguousarray(
        grouped[0] if node.attributes.get("transB") else grouped[0].T
    )
    return found


def patches(
    node: Node, x: torch.Tensor, kernel: tuple[int, ...], count: int, generator: torch.Generator
) -> torch.Tensor:
    """What the weights multiply at `count` random places of an input: [g, count, K].

    A Conv's columns of im2col, or rows of what a Gemm or MatMul takes. The same generator state
    gives the same places, so that two paths are compared place by place.
    """
    import torch

    from workbench.quantization.core.operators_nn import padded, pads

    def draw(most: int) -> torch.Tensor:
        return torch.randint(0, most, (count,), generator=generator)

    if node.op != "Conv":
        rows = x.reshape(-1, x.shape[-1])
        return rows[draw(len(rows))][None]
    around = pads(node, x, kernel)
    wide = padded(x, around)
    rank = len(kernel)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    group = int(node.attributes.get("group", 1))
    sizes = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, s, d in zip(wide.shape[2:], kernel, strides, dilations, strict=True)
    ]
    index: list[Any] = [draw(len(x)).reshape(-1, *[1] * rank), slice(None)]
    for axis in range(rank):
        offsets = torch.arange(kernel[axis]) * dilations[axis]
        starts = draw(sizes[axis]) * strides[axis]
        shape = [count] + [kernel[axis] if other == axis else 1 for other in range(rank)]
        index.append((starts[:, None] + offsets).reshape(shape))
    taken = wide[tuple(index)]  # the slice between two index arrays puts its axis last
    taken = taken.movedim(-1, 1)
    return taken.reshape(count, group, -1).transpose(0, 1)
