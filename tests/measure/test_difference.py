from __future__ import annotations

import math

import numpy as np
import pytest

from tests.nets import normal
from workbench.measure.difference import Differences


def test_figures_are_those_of_all_batches_together() -> None:
    wanted, found = normal(7, 5), normal(7, 5) + 0.1 * normal(7, 5, seed=1)
    sums = Differences(["y"])
    for part in (slice(0, 4), slice(4, 7)):
        sums.add([wanted[part]], [found[part]])
    (one,) = sums.differences()
    left, right = wanted.astype(float).ravel(), found.astype(float).ravel()
    assert one.largest == pytest.approx(np.abs(left - right).max())
    assert one.scale == pytest.approx(np.abs(left).max())
    assert one.sqnr == pytest.approx(10 * np.log10((left**2).sum() / ((left - right) ** 2).sum()))
    assert one.cosine == pytest.approx(
        left @ right / np.linalg.norm(left) / np.linalg.norm(right), rel=1e-12
    )


def test_equal_not_finite_and_zero_outputs_have_no_false_figures() -> None:
    zeros, some = np.zeros((2, 3), np.float32), normal(2, 3)
    sums = Differences(["equal", "broken", "zero"])
    sums.add([some, some, zeros], [some, some * np.nan, some])
    equal, broken, zero = sums.differences()
    assert (equal.largest, equal.sqnr) == (0, math.inf)
    assert equal.cosine == pytest.approx(1)
    assert (broken.largest, broken.sqnr, broken.cosine) == (math.inf, -math.inf, None)
    assert (zero.sqnr, zero.cosine) == (-math.inf, None)


def test_of_whole_numbers_only_how_many_are_equal_means_something() -> None:
    sums = Differences(["class"])
    sums.add([np.array([1, 2, 3, 4])], [np.array([1, 2, 3, 9])])
    (one,) = sums.differences()
    assert (one.same, one.sqnr, one.cosine) == (0.75, None, None)


def test_the_reference_gets_the_candidates_head() -> None:
    logits = normal(3, 4)
    powers = np.exp(logits.astype(np.float64))
    sums = Differences(["y"], "softmax")
    sums.add([logits], [(powers / powers.sum(1, keepdims=True)).astype(np.float32)])
    (one,) = sums.differences()
    assert one.largest < 1e-6
