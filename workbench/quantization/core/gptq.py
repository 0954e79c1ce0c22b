"""Weights to their grid by what they multiply: error compensation, and rounding by GPTQ.

Both work on second moments of a layer's columns, the vectors [K] that its rows of weights multiply:
patches of an image for a convolution, rows of the input for a matrix product. g is the number of
groups of a convolution, 1 otherwise; O the number of output channels of a group.

    integers = round_gptq(weights, scales, moments.centred[0])  # int8 [g, O, K]
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import NetworkNode

Array = NDArray[Any]

RIDGES = (0.1, 0.5, 2.0, 10.0)  # multiples of the mean diagonal that are tried
DAMPING = 0.01  # of the mean diagonal, added to it: as in GPTQ
PRECISION = 1e-5  # of sums of products in float32


@dataclass(frozen=True)
class ColumnMoments:
    """Sums over a layer's columns on the float path (x_f) and on the quantized one (x_q).

    Attributes:
        count: of columns.
        floats, quants: Σ x_f and Σ x_q, [g, K].
        second: Σ x_q x_qᵀ [g, K, K].
        cross: Σ (x_f - x_q) x_qᵀ [g, K, K].
    """

    count: int
    floats: Array
    quants: Array
    second: Array
    cross: Array

    def __add__(self, more: ColumnMoments) -> ColumnMoments:
        return ColumnMoments(
            self.count + more.count, self.floats + more.floats, self.quants + more.quants,
            self.second + more.second, self.cross + more.cross,
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


def compensate_weights(weights: Array, halves: tuple[ColumnMoments, ColumnMoments]) -> Array:
    """Weights [g, O, K] that take the inputs' own quantization error into account.

    The least squares solution of W' x_q ≈ W x_f is W + W C (H + λI)⁻¹, H = E[x_q x_qᵀ],
    C = E[(x_f - x_q) x_qᵀ]. λ, a multiple of H's mean diagonal, is chosen for each row by
    cross-validation between two halves of the samples: with too small a one the weights memorise
    the calibration samples. A row that nothing helps stays.
    """
    first, second = (half.centred for half in halves)
    scores = [
        _residual(weights, _solve_ridge(weights, *first, ridge), *second)
        + _residual(weights, _solve_ridge(weights, *second, ridge), *first)
        for ridge in RIDGES
    ]
    best = np.argmin([np.zeros_like(scores[0]), *scores], axis=0)  # [g, O], 0: no change
    whole = (halves[0] + halves[1]).centred
    compensated = weights
    for number, ridge in enumerate(RIDGES, start=1):
        if (best == number).any():
            solution = _solve_ridge(weights, *whole, ridge)
            compensated = np.where((best == number)[:, :, None], solution, compensated)
    return compensated


def _solve_ridge(weights: Array, second: Array, cross: Array, ridge: float) -> Array:
    size = second.shape[-1]
    mean = np.trace(second, axis1=1, axis2=2) / size
    damped = second + np.maximum(ridge * mean, 1e-12)[:, None, None] * np.eye(size)
    # W C (H + λI)⁻¹ is the transpose of (H + λI)⁻¹ Cᵀ Wᵀ: H is symmetric.
    change = np.linalg.solve(damped, cross.swapaxes(1, 2) @ weights.swapaxes(1, 2))
    solution: Array = weights + change.swapaxes(1, 2)
    return solution


def _residual(weights: Array, changed: Array, second: Array, cross: Array) -> Array:
    """E|W' x_q - W x_f|² less what it is for W itself, for each row [g, O].

    With D = W' - W it is E|D x_q - W (x_f - x_q)|² - E|W (x_f - x_q)|².
    """
    change = changed - weights
    residual: Array = ((change @ second - 2 * weights @ cross) * change).sum(-1)
    return residual


def round_gptq(weights: Array, scales: Array, second: Array, weight_max: int = 127) -> Array:
    """Integers [g, O, K] for weights [g, O, K] on the grids of scales [g, O].

    GPTQ (Frantar et al. 2023, arXiv:2210.17323): column after column, those of the most power
    first, each column's error spread over the columns that are still to come.

    Args:
        second: E[x xᵀ] [g, K, K].
    """
    groups, _, size = weights.shape
    diagonal = np.diagonal(second, axis1=1, axis2=2)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    rows = np.arange(groups)[:, None]
    permuted = second[rows[:, :, None], order[:, :, None], order[:, None, :]]
    upper = _inverse_factor(permuted, np.maximum(diagonal.mean(1), 1e-12))
    left = np.take_along_axis(weights.astype(np.float64), order[:, None, :], axis=2)
    rounded = np.empty_like(left)
    block = 64
    for start in range(0, size, block):
        end = min(start + block, size)
        errors = np.empty((*left.shape[:2], end - start))
        for column in range(start, end):
            integers = np.clip(np.rint(left[:, :, column] / scales), -weight_max, weight_max)
            rounded[:, :, column] = integers
            error = (left[:, :, column] - integers * scales) / upper[:, column, column][:, None]
            errors[:, :, column - start] = error
            left[:, :, column + 1 : end] -= (
                error[:, :, None] * upper[:, None, column, column + 1 : end]
            )
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    result = np.empty_like(rounded)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], rounded.shape), rounded, axis=2)
    return result.astype(np.int8)


def _inverse_factor(second: Array, mean: Array) -> Array:
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


def to_groups(node: NetworkNode, weights: Array) -> Array:
    """Weights of a Conv [O, I/g, …], Gemm or MatMul as [g, O/g, K]."""
    if node.op == "Conv":
        group = int(node.attributes.get("group", 1))
        return weights.reshape(group, weights.shape[0] // group, -1)
    return (weights if node.attributes.get("transB") else weights.T)[None]


def from_groups(node: NetworkNode, groups: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_groups`, in the initializer's shape."""
    if node.op == "Conv":
        return groups.reshape(shape)
    return np.ascontiguousarray(groups[0] if node.attributes.get("transB") else groups[0].T)


def sample_columns(
    node: NetworkNode,
    x: torch.Tensor,
    kernel: tuple[int, ...],
    count: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """What the weights multiply at `count` random places of an input: [g, at most count, K].

    A Conv's columns of im2col, or rows of what a Gemm or MatMul takes; each once, where there are
    no more than `count`. The same generator state gives the same places, so that two paths are
    compared place by place.
    """
    import torch

    from workbench.quantization.core.torch_layers import pad, pads

    def draw(limit: int) -> torch.Tensor:
        if limit <= count:
            return torch.arange(limit)
        return torch.randint(0, limit, (count,), generator=generator)

    if node.op != "Conv":
        rows = x.reshape(-1, x.shape[-1])
        return rows[draw(len(rows))][None]
    padded = pad(x, pads(node, x, kernel))
    rank = len(kernel)
    strides = node.attributes.get("strides", [1] * rank)
    dilations = node.attributes.get("dilations", [1] * rank)
    group = int(node.attributes.get("group", 1))
    sizes = [
        (size - (k - 1) * d - 1) // s + 1
        for size, k, s, d in zip(padded.shape[2:], kernel, strides, dilations, strict=True)
    ]
    # NumPy's: PyTorch's own imports its symbolic shapes, for two seconds.
    drawn = np.unravel_index(draw(len(x) * prod(sizes)).numpy(), (len(x), *sizes))
    image, *places = map(torch.from_numpy, drawn)
    columns = len(image)
    index: list[Any] = [image.reshape(-1, *[1] * rank), slice(None)]
    for axis in range(rank):
        offsets = torch.arange(kernel[axis]) * dilations[axis]
        starts = places[axis] * strides[axis]
        shape = [columns, *[1] * rank]
        shape[1 + axis] = kernel[axis]
        index.append((starts[:, None] + offsets).reshape(shape))
    patches = padded[tuple(index)]  # the slice between two index arrays puts its axis last
    return patches.movedim(-1, 1).reshape(columns, group, -1).transpose(0, 1)
