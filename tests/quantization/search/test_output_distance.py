from __future__ import annotations

import math

import numpy as np
import pytest

from tests import nets
from workbench.quantization.search.output_distance import output_distance


def test_a_mean_error_of_an_output_is_no_distance() -> None:
    expected = nets.normal(16, 5, seed=1)
    shifted = expected + np.arange(5, dtype=np.float32)
    found = output_distance([expected], [shifted])
    assert found.noise < 1e-12
    assert found.agreement == 100
    assert found.kl == pytest.approx(0, abs=1e-9)
    assert found.sqnr == math.inf


def test_the_distance_is_the_power_of_independent_noise_whatever_the_samples() -> None:
    sizes = []
    for seed in range(40):
        expected = nets.normal(6, 50, seed=2 * seed)
        sizes.append(
            output_distance([expected], [expected + 0.1 * nets.normal(6, 50, seed=2 * seed + 1)])
        )
    assert np.mean([one.noise for one in sizes]) == pytest.approx(0.01, rel=0.1)


def test_outputs_that_are_probabilities_are_not_taken_for_logits() -> None:
    logits, other = nets.normal(16, 5, seed=1), nets.normal(16, 5, seed=2)
    probabilities = [np.exp(one) / np.exp(one).sum(1, keepdims=True) for one in (logits, other)]
    error = 0.01 * (probabilities[1] - probabilities[0])
    # Twice with opposite signs: there is no mean error to be taken away.
    before = np.concatenate([probabilities[0]] * 2)
    after = before + np.concatenate([error, -error])
    expected = (before * np.log(before / after)).sum(1).mean()
    found = output_distance([before], [after])
    assert found.kl == pytest.approx(expected, rel=0.01)


def test_outputs_that_are_no_classes_have_neither_kl_nor_agreement() -> None:
    one = nets.normal(4, 3, 5, 5)
    found = output_distance([one], [one + 0.1 * nets.normal(4, 3, 5, 5, seed=3)])
    assert (found.kl, found.agreement) == (None, None)
    assert 15 < found.sqnr < 25


def test_what_is_not_finite_is_infinitely_far() -> None:
    one = nets.normal(4, 3)
    found = output_distance([one], [np.where(one > 0, np.nan, one)])
    assert (found.noise, found.sqnr) == (math.inf, -math.inf)
