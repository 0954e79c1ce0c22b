"""The searches against brute force over the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.quantization import ranges_after
from workbench.quantization.plan import SCHEMES, Range
from workbench.quantization.ranges import MSE, Entropy, Estimator, MinMax, Norm
from workbench.quantization.ranges_search import quantized

VALUES = {
    "normal": lambda g: g.standard_normal(20_000),
    "laplace": lambda g: g.laplace(size=20_000) * 3,
    "student": lambda g: g.standard_t(3, 20_000),
    "skewed": lambda g: g.gamma(1.0, 1.0, 20_000) - 0.2,
    "relu": lambda g: np.maximum(g.standard_normal(20_000), 0),
    "negative": lambda g: -g.gamma(2.0, 1e-3, 20_000),
}


def estimated(values, method, after=None):
    estimator = Estimator(few=0)
    estimator.observe("t", values.astype(np.float32).reshape(1, -1))
    return estimator.ranges(method, after={"t": after} if after else None)["t"]


def error(values, one: Range, p, g=lambda x: x, symmetric=False):
    ends = np.array([one.low]), np.array([one.high])
    return (np.abs(g(quantized(values, *ends, 255, symmetric)[0]) - g(values)) ** p).mean()


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("p", [2.0, 2.4, 3.0])
def test_the_found_range_is_as_good_as_the_best_of_a_dense_grid(kind, p):
    values = VALUES[kind](np.random.default_rng(0)).astype(np.float32).astype(np.float64)
    low, high = min(values.min(), 0), max(values.max(), 0)
    found = estimated(values, Norm(p))
    grid = np.linspace(0.1, 1, 40)
    best = min(
        error(values, Range(low * a, high * b), p)
        for a in (grid if low < 0 else [0])
        for b in (grid if high > 0 else [0])
    )
    assert error(values, found, p) <= 1.03 * best
    assert error(values, found, p) <= error(values, Range(low, high), p)


@pytest.mark.parametrize(
    ("g", "low", "high"),
    [
        (ranges_after.relu, (0, 0), (8, 14)),
        (ranges_after.clip(0, 6), (0, 0), (5.9, 6.2)),
        (ranges_after.sigmoid, (-9, -3), (3, 9)),
        (ranges_after.tanh, (-5, -1.5), (1.5, 5)),
        (ranges_after.hard_sigmoid(), (-3.1, -2.5), (2.5, 3.1)),
        (ranges_after.hard_swish, (-3.1, -1), (8, 14)),
        (ranges_after.silu, (-9, -2), (8, 14)),
        (ranges_after.gelu, (-3.5, -1), (8, 14)),
        (ranges_after.leaky_relu(0.01), (-11, -1e-3), (7, 14)),
    ],
)
def test_what_the_nonlinearity_squashes_is_not_represented(g, low, high):
    values = np.random.default_rng(0).standard_normal(40_000) * 3
    found = estimated(values, MSE, g)
    assert low[0] <= found.low <= low[1]
    assert high[0] <= found.high <= high[1]
    assert error(values, found, 2, g) <= error(values, estimated(values, MSE), 2, g)
    assert error(values, found, 2, g) <= error(values, estimated(values, MinMax()), 2, g)


def test_nonlinearities_are_torchs():
    import torch
    from torch.nn import functional as f

    values = np.linspace(-12, 12, 4001)
    one = torch.from_numpy(values)
    for ours, theirs in (
        (ranges_after.relu, f.relu), (ranges_after.clip(0, 6), f.relu6),
        (ranges_after.leaky_relu(0.1), lambda x: f.leaky_relu(x, 0.1)),
        (ranges_after.hard_sigmoid(), f.hardsigmoid), (ranges_after.hard_swish, f.hardswish),
        (ranges_after.sigmoid, torch.sigmoid), (ranges_after.silu, f.silu),
        (ranges_after.tanh, torch.tanh),
        (ranges_after.gelu, lambda x: f.gelu(x, approximate="tanh")),
    ):  # fmt: skip
        assert np.allclose(ours(values), theirs(one).numpy(), atol=1e-8)


def test_larger_p_clips_less():
    values = np.random.default_rng(0).laplace(size=50_000)
    highs = [estimated(values, Norm(p)).high for p in (1.0, 2.0, 3.0, 5.0)]
    assert highs == sorted(highs)
    assert highs[0] < 0.8 * highs[-1]


def test_a_symmetric_search_minimises_the_error_of_the_symmetric_grid():
    values = np.random.default_rng(0).laplace(size=50_000) + 0.5
    found = estimated(values, Norm(2, symmetric=True))
    low, high = values.min(), values.max()
    best = min(error(values, Range(low * a, high * a), 2, symmetric=True)
               for a in np.linspace(0.1, 1, 60))  # fmt: skip
    assert error(values, found, 2, symmetric=True) <= 1.03 * best


@pytest.mark.parametrize("low", [-1.0, -0.013, 0.0])
def test_quantized_is_the_grid_of_a_range(low):
    values = np.random.default_rng(0).standard_normal(1000)
    one = Range(low, 1.7)
    scale, zero = one.grid(SCHEMES["u8s8"])
    expected = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
    found = quantized(values, np.array([low]), np.array([1.7]), 255, False)[0]
    assert np.allclose(found, expected, atol=1e-6) or (
        np.mean(np.abs(found - expected) > 1e-6) < 0.01  # float32 scales round elsewhere
    )


def test_entropy_clips_long_tails_and_not_flat_ones():
    generator = np.random.default_rng(0)
    flat = estimated(generator.uniform(-1, 1, 100_000), Entropy())
    assert flat.high > 0.95
    assert flat.low < -0.95
    tailed = generator.standard_t(3, 100_000)
    found = estimated(tailed, Entropy())
    assert 3 < found.high < 0.7 * np.abs(tailed).max()
    # A dead half changes nothing: zeros are exact on every grid.
    positive = np.abs(tailed)
    beside = np.concatenate([positive, np.zeros(900_000)])
    assert estimated(beside, Entropy()) == estimated(positive, Entropy())


def test_entropy_survives_gaps_and_lone_values():
    lone = np.concatenate([np.full(1000, 0.1), np.full(3, 50.0)])
    assert 0 < estimated(lone, Entropy()).high <= 50
    assert estimated(np.array([0.5]), Entropy()).high == pytest.approx(0.5, rel=0.01)
    two = estimated(np.concatenate([np.full(50, -2.0), np.full(50, 3.0)]), Entropy())
    assert two.low == pytest.approx(-2, rel=0.01)
    assert two.high == pytest.approx(3, rel=0.01)


def test_entropy_gives_clipped_values_a_place_where_nothing_else_is():
    # Between 1 and 8 is nothing: a threshold there puts the three at 8 in an empty bin.
    values = np.concatenate([np.linspace(0.01, 1, 5000), np.full(3, 8.0)])
    with np.errstate(divide="raise", invalid="raise"):
        found = estimated(values, Entropy())
    assert 0.9 < found.high < 8
