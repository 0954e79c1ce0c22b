"""Parity: differences measured over all outputs, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from workbench import parity
from workbench.errors import StepError
from workbench.parity import Parity, compare

ONE = np.array([[1.0, -2.0], [2.0, 0.0]], np.float32)


def test_equal_outputs_are_infinitely_close():
    assert compare([ONE, ONE], [ONE, ONE]) == Parity(0.0, math.inf, True)


def test_differences_are_taken_over_all_outputs_together():
    other = ONE + np.array([[0.0, 0.1], [0.0, 0.0]], np.float32)
    parity = compare([ONE, 10 * ONE], [other, 10 * ONE], rtol=0, atol=0.2)
    assert parity.max_abs == pytest.approx(0.1)
    assert parity.sqnr == pytest.approx(10 * math.log10((9 + 900) / 0.01), rel=1e-6)
    assert parity.close


@pytest.mark.parametrize(
    ("difference", "rtol", "atol", "close"),
    [(0.5, 0.25, 0, True), (0.51, 0.25, 0, False), (0.5, 0, 0.5, True), (0.75, 0.25, 0.25, True),
     (0.76, 0.25, 0.25, False)],
)  # fmt: skip
def test_an_element_may_differ_by_atol_and_its_own_share(difference, rtol, atol, close):
    reference = np.array([2.0, 100.0])
    for sign in (1, -1):
        candidate = reference + np.array([sign * difference, 0])
        assert compare([reference], [candidate], rtol, atol / 100).close is close


@pytest.mark.parametrize(
    ("scales", "differences", "close"),
    [
        ((0.1, 0.01), (0, 9e-6), True),  # no tighter than atol
        ((0.1, 0.01), (0, 1.1e-5), False),
        ((20, 4), (0, 1.9e-4), True),  # logits: the largest of all counts
        ((20, 4), (0, 2.1e-4), False),
        ((640, 0.5), (0, 4e-4), True),  # a probability beside pixels: a hundred times its own
        ((640, 0.5), (0, 6e-4), False),
        ((640, 0.5), (5e-3, 0), True),
        ((640, 0.5), (7e-3, 0), False),
    ],
)
def test_the_absolute_tolerance_is_that_of_the_outputs_scale(scales, differences, close):
    reference = np.array([[[0.0, scale] for scale in scales], [[scale, 0] for scale in scales]])
    candidate = reference.copy()
    candidate[0, :, 0] += differences
    assert compare([reference], [candidate], 0, 1e-5).close is close
    # The same with the channels last.
    last = [array.transpose(0, 2, 1) for array in (reference, candidate)]
    assert compare(last[:1], last[1:], 0, 1e-5).close is close


def test_a_logit_near_zero_is_rounded_as_the_largest_is():
    logits = np.array([[12.0, 1e-4, -3.0]])
    for error, close in ((1.1e-4, True), (1.3e-4, False)):
        candidate = logits.copy()
        candidate[0, 1] += error
        assert compare([logits], [candidate], 0, 1e-5).close is close


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_never_close(bad):
    candidate = ONE.copy()
    candidate[0, 0] = bad
    assert compare([ONE], [candidate], 1e9, 1e9) == Parity(math.inf, -math.inf, False)


def test_small_unsigned_integers_are_compared_without_wrapping():
    parity = compare([np.array([0], np.uint8)], [np.array([255], np.uint8)])
    assert parity.max_abs == 255


def test_boolean_and_empty_outputs_are_compared():
    masks = np.array([True, False]), np.array([True, True])
    assert compare([masks[0]], [masks[1]]) == Parity(1.0, 0.0, False)
    assert compare([np.zeros((0, 3))], [np.zeros((0, 3))]) == Parity(0.0, math.inf, True)


@pytest.mark.parametrize("candidate", [[ONE.T[:1]], [ONE, ONE], []])
def test_other_shapes_or_another_number_of_outputs_are_an_error(candidate):
    with pytest.raises(StepError, match="the outputs have other shapes") as caught:
        compare([ONE], candidate)
    assert "instead of [(2, 2)]" in caught.value.why


@pytest.mark.parametrize(
    ("signal", "noise", "decibels"),
    [(100, 1, 20), (1, 1, 0), (1, 10, -10), (5, 0, math.inf), (0, 0, math.inf), (0, 1, -math.inf)],
)
def test_sqnr_is_in_decibels(signal, noise, decibels):
    assert parity.sqnr(signal, noise) == pytest.approx(decibels)


def test_a_check_returns_what_passes_and_explains_what_does_not():
    assert parity.check("export", [ONE], [ONE + 0.125], 0, 0.25).max_abs == 0.125
    with pytest.raises(StepError) as caught:
        parity.check("export", [ONE], [ONE + 0.125], 1e-3, 1e-5)
    assert caught.value.what == "export: the outputs differ from the original's"
    assert "largest difference 0.125, SQNR 21.6 dB; allowed rtol 0.001, atol 1e-05" in (
        caught.value.why
    )


def test_a_check_of_sqnr_refuses_less_than_asked_for_and_nan():
    noisy = [ONE * 1.1]
    assert parity.check_sqnr("to_ort", [ONE], noisy, 19.9).sqnr == pytest.approx(20, abs=1e-3)
    for candidate, least in ((noisy, 20.1), ([ONE * np.nan], -100)):
        with pytest.raises(StepError, match="to_ort: the outputs differ") as caught:
            parity.check_sqnr("to_ort", [ONE], candidate, least)
        assert f"at least {least:g} expected" in caught.value.why


def test_a_head_is_applied_to_the_first_output_alone():
    logits = np.array([[1000.0, 1000.0, 0.0], [0.0, np.log(3), -np.inf]], np.float32)
    other = np.full((2, 2), 7.0)
    outputs = parity.apply_head([logits, other], "softmax")
    np.testing.assert_allclose(outputs[0], [[0.5, 0.5, 0], [0.25, 0.75, 0]], rtol=1e-6)
    assert outputs[1] is other
    outputs = parity.apply_head([logits, other], "argmax")
    assert outputs[0].tolist() == [[1, 0, 0], [0, 1, 0]]
    assert outputs[0].dtype == np.float32
    assert parity.apply_head([logits, other], "")[0] is logits
