from __future__ import annotations

import numpy as np
import pytest

from workbench.quantization.core.plan import (
    SCHEMES,
    ActivationRange,
    QuantizedWeight,
    quantize_weights,
    widen_for_bias,
)


def test_ranges_hold_zero_and_are_finite() -> None:
    assert ActivationRange(1, 3) == ActivationRange(0, 3)
    assert ActivationRange(-2, -1) == ActivationRange(-2, 0)
    assert ActivationRange(0, 0).high == 1
    for low, high in ((0, np.inf), (-np.inf, 0), (np.nan, 1), (0, np.nan)):
        with pytest.raises(ValueError, match="finite"):
            ActivationRange(low, high)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ends", [(0, 6), (-1, 3), (-1e6, 2e6), (-3, 0), (-1e-6, 2e-6), (0, 0)])
def test_grids_hold_zero_and_both_ends(scheme: str, ends: tuple[float, float]) -> None:
    found = ActivationRange(*ends)
    scale, zero = found.grid(SCHEMES[scheme])
    assert scale.dtype == np.float32 and scale > 0
    least = 1 if SCHEMES[scheme].symmetric else 0
    assert least <= zero <= 255
    assert (255 - zero) * scale >= found.high - 0.51 * scale
    assert (least - zero) * scale <= found.low + 0.51 * scale
    if SCHEMES[scheme].symmetric:
        assert zero == 128


def test_a_range_from_zero_has_its_zero_point_there() -> None:
    assert ActivationRange(0, 255).grid() == (np.float32(1), 0)
    assert ActivationRange(-255, 0).grid() == (np.float32(1), 255)
    assert ActivationRange(-1, 254).grid() == (np.float32(1), 1)


@pytest.mark.parametrize(("axis", "shape"), [(0, (5, 3, 2, 2)), (1, (4, 5)), (0, (5, 4))])
@pytest.mark.parametrize("scheme", ["u8s8", "u8s8-reduced"])
def test_weights_go_to_the_nearest_point(axis: int, shape: tuple[int, ...], scheme: str) -> None:
    weights = np.random.default_rng(0).normal(size=shape) * 10 ** np.linspace(
        -3, 3, 5
    ).reshape([5 if one == axis else 1 for one in range(len(shape))])  # fmt: skip
    found = quantize_weights(weights, axis, SCHEMES[scheme])
    most = SCHEMES[scheme].weight_max
    assert found.integers.dtype == np.int8 and found.scales.shape == (5,)
    over = tuple(one for one in range(len(shape)) if one != axis)
    np.testing.assert_array_equal(np.abs(found.integers.astype(int)).max(over), most)
    wide = found.scales.reshape([5 if one == axis else 1 for one in range(len(shape))])
    assert (np.abs(found.floats - weights) <= 0.5001 * wide).all()


def test_zeros_and_all_but_zeros_are_represented() -> None:
    weights = np.zeros((3, 4), np.float32)
    weights[1] = 1e-38
    weights[2] = 1
    found = quantize_weights(weights, 0, SCHEMES["u8s8"])
    assert (found.scales > 1e-31).all()
    np.testing.assert_allclose(found.floats, weights, atol=1e-30)


def test_biases_fit_into_int32_beside_tiny_weights() -> None:
    weights = quantize_weights(
        np.array([[1e-6, -1e-6], [0, 0], [1, 0.5], [0, 0]]), 0, SCHEMES["u8s8"]
    )
    bias = np.array([-1e4, 0.7, 0.1, 0])
    found = widen_for_bias(weights, bias, 0.02)
    integers = bias / (found.scales * np.float64(0.02))
    assert np.abs(integers).max() < 2**20 * 1.01
    assert abs(np.rint(integers[1]) * found.scales[1] * 0.02 - 0.7) < 1e-5
    np.testing.assert_array_equal(found.integers[2:], weights.integers[2:])
    np.testing.assert_array_equal(found.scales[2:], weights.scales[2:])
    np.testing.assert_allclose(found.floats, weights.floats, atol=found.scales[0])
    again = widen_for_bias(found, bias, 0.02)
    np.testing.assert_array_equal(again.integers, found.integers)
    np.testing.assert_allclose(again.scales, found.scales, rtol=1e-6)


def test_weights_stand_for_integers_times_scales() -> None:
    found = QuantizedWeight(np.array([[1, 2], [3, -4]], np.int8), np.float32([0.5, 2]), 1)
    np.testing.assert_array_equal(found.floats, [[0.5, 4], [1.5, -8]])
    assert found.floats.dtype == np.float32
