from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper

from tests.quantization.prepare.graphs import graph_of
from workbench.quantization.core.gptq import (
    ColumnMoments,
    compensate_weights,
    from_groups,
    round_gptq,
    sample_columns,
    to_groups,
)
from workbench.quantization.core.network import Network, NetworkNode

Array = Any


def moments(x_f: Array, x_q: Array) -> ColumnMoments:
    """Of columns [n, K]."""
    f, q = x_f[None], x_q[None]
    return ColumnMoments(len(x_f), f.sum(1), q.sum(1), q.swapaxes(1, 2) @ q,
                   (f - q).swapaxes(1, 2) @ q)  # fmt: skip


def correlated(rng: Any, count: int, size: int) -> Array:
    return rng.normal(size=(count, 3)) @ rng.normal(size=(3, size)) + 0.2 * rng.normal(
        size=(count, size)
    )


def error(difference: Array, second: Array) -> Array:
    return np.einsum("gok,gkl,gol->go", difference, second, difference)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("size", [5, 64, 150])
def test_gptq_is_nearer_than_rounding_to_the_nearest(groups: int, size: int) -> None:
    rng = np.random.default_rng(size)
    x = np.stack([correlated(rng, 500, size) for _ in range(groups)])
    second = x.swapaxes(1, 2) @ x / 500
    weights = rng.normal(size=(groups, 6, size))
    scales = np.abs(weights).max(2) / 7
    found = round_gptq(weights, scales, second, 7)
    assert found.dtype == np.int8 and np.abs(found).max() <= 7
    nearest = np.clip(np.rint(weights / scales[:, :, None]), -7, 7)
    before, after = (error(one * scales[:, :, None] - weights, second) for one in (nearest, found))
    assert after.sum() < before.sum() * 0.7
    assert (np.abs(found - nearest) <= 4).all()


def test_gptq_of_uncorrelated_inputs_is_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1, 4, 9))
    scales = np.abs(weights).max(2) / 127
    found = round_gptq(weights, scales, np.eye(9)[None])
    np.testing.assert_array_equal(found, np.rint(weights / scales[:, :, None]))


@pytest.mark.parametrize("kind", ["zero", "constant", "indefinite", "outlier", "tiny"])
def test_gptq_withstands_degenerate_moments(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = correlated(rng, 200, 8)
    second = (x.T @ x / 200)[None]
    second = {
        "zero": np.zeros((1, 8, 8)), "constant": np.ones((1, 8, 8)),
        "indefinite": second - 2 * np.eye(8), "tiny": second * 1e-30,
        "outlier": second * np.outer(*[np.array([1e6] + [1] * 7)] * 2),
    }[kind]  # fmt: skip
    weights = rng.normal(size=(1, 3, 8))
    scales = np.abs(weights).max(2) / 127
    found = round_gptq(weights, scales, second)
    assert np.abs(found * scales[:, :, None] - weights).max() < 8 * scales.max()


def test_moments_about_the_means() -> None:
    rng = np.random.default_rng(2)
    x_f = rng.normal(size=(400, 4)) + 3
    x_q = x_f + 0.1 * rng.normal(size=(400, 4)) + 1
    both = moments(x_f[:150], x_q[:150]) + moments(x_f[150:], x_q[150:])
    second, cross = both.centred
    f, q = x_f - x_f.mean(0), x_q - x_q.mean(0)
    np.testing.assert_allclose(second[0], q.T @ q / 400, atol=1e-3)
    np.testing.assert_allclose(cross[0], (f - q).T @ q / 400, atol=1e-9)


def test_values_that_hardly_vary_keep_a_variance_above_zero() -> None:
    rng = np.random.default_rng(3)
    x = (25 + 1e-3 * rng.normal(size=(5000, 8))).astype(np.float32)
    t = torch.from_numpy(x)
    total = x.sum(0, dtype=np.float64)[None]
    second = (t.T @ t).double().numpy()[None]
    found = ColumnMoments(len(x), total, total, second, np.zeros((1, 8, 8)))
    assert np.linalg.eigvalsh(found.centred[0])[0][0] > 0


def test_compensation_lessens_the_error_of_a_quantized_input() -> None:
    rng = np.random.default_rng(4)
    x_f = correlated(rng, 4000, 12)
    x_q = np.rint(x_f / 0.8) * 0.8
    weights = rng.normal(size=(1, 5, 12))
    made = compensate_weights(weights, (moments(x_f[:2000:2], x_q[:2000:2]),
                                 moments(x_f[1:2000:2], x_q[1:2000:2])))  # fmt: skip
    held_f, held_q = (one[2000:] - one[2000:].mean(0) for one in (x_f, x_q))
    before, after = (
        np.square(held_q @ one[0].T - held_f @ weights[0].T).mean(0) for one in (weights, made)
    )
    assert (after <= before * 1.001).all()
    assert after.sum() < before.sum() * 0.9


def test_compensation_does_not_memorize_noise() -> None:
    """With 24 samples of 20 columns least squares fits anything; what it fits is not there."""
    rng = np.random.default_rng(5)
    x_f = rng.normal(size=(2024, 20))
    x_q = x_f + 0.05 * rng.normal(size=x_f.shape)
    weights = rng.normal(size=(1, 30, 20))
    made = compensate_weights(
        weights, (moments(x_f[:12], x_q[:12]), moments(x_f[12:24], x_q[12:24]))
    )
    held_f, held_q = x_f[24:], x_q[24:]
    before, after = (
        np.square(held_q @ one[0].T - held_f @ weights[0].T).mean(0) for one in (weights, made)
    )
    fitted = np.linalg.lstsq(
        x_q[:24] - x_q[:24].mean(0), (x_f[:24] - x_f[:24].mean(0)) @ weights[0].T
    )
    memorized = np.square(held_q @ fitted[0] - held_f @ weights[0].T).mean(0)
    assert after.sum() < before.sum() * 1.2
    assert after.sum() < memorized.sum() * 0.7
    assert (made == weights).all(2).any()  # rows that nothing helps stay


def node_of(op: str, shape: tuple[int, ...], weights: Array, **attributes: Any) -> NetworkNode:
    made = helper.make_node(op, ["x", "w"], ["y"], "n", **attributes)
    return Network(graph_of([made], {"x": shape}, w=weights)).nodes[0]


@pytest.mark.parametrize(
    ("op", "x", "w", "attributes"),
    [
        ("Conv", (3, 4, 7, 6), (6, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ("Conv", (3, 4, 7, 6), (6, 2, 3, 2), {"group": 2, "strides": [2, 1], "pads": [0, 1, 2, 0]}),
        ("Conv", (3, 4, 9, 9), (4, 1, 3, 3), {"group": 4, "dilations": [2, 3]}),
        ("Conv", (3, 4, 9), (5, 4, 4), {"strides": [2]}),
        ("Conv", (3, 4, 7, 7), (6, 4, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Gemm", (5, 8), (8, 3), {}),
        ("Gemm", (5, 8), (3, 8), {"transB": 1}),
        ("MatMul", (2, 5, 8), (8, 3), {}),
    ],
)
@pytest.mark.parametrize("count", [8, 1000])  # some of the places; each of them
def test_patches_times_weights_are_values_of_the_output(
    op: str, x: Any, w: Any, attributes: Any, count: int
) -> None:
    rng = np.random.default_rng(6)
    weights = rng.normal(size=w).astype(np.float32)
    given = torch.from_numpy(rng.normal(size=x).astype(np.float32))
    node = node_of(op, x, weights, **attributes)
    network = Network(graph_of([node.proto], {"x": x}, w=weights))
    outputs = network.run({"x": given})["y"]

    def sample() -> Array:
        generator = torch.Generator().manual_seed(0)
        return sample_columns(node, given, tuple(w[2:]), count, generator).numpy()

    taken = sample()
    rows = to_groups(node, weights)
    np.testing.assert_array_equal(from_groups(node, rows, w), weights)
    made = np.einsum("gnk,gok->ngo", taken, rows).reshape(taken.shape[1], -1)
    axis = 1 if op == "Conv" else outputs.ndim - 1
    wanted = outputs.movedim(axis, -1).reshape(-1, made.shape[1]).numpy()
    if len(wanted) <= count:
        np.testing.assert_allclose(made, wanted, atol=1e-4)
        return
    assert len(made) == count
    distance = np.abs(made[:, None] - wanted[None]).max(2).min(1)
    assert distance.max() < 1e-4
    np.testing.assert_array_equal(taken, sample())
