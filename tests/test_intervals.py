"""Estimates: intervals that cover, and hand-computed differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import intervals
from workbench.intervals import (
    Estimate,
    bootstrap_median,
    paired_difference,
    paired_metric_difference,
)
from workbench.measure.latency import PRESETS


def proportions(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = [True] * both + [True] * lost + [False] * gained + [False] * neither
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return np.array(before), np.array(after)


def test_an_estimate_excludes_what_lies_outside_its_interval():
    one = Estimate(2.0, 1.0, 3.0)
    assert [one.excludes(value) for value in (0.99, 1.0, 2.0, 3.0, 3.01)] == [
        True, False, False, False, True,
    ]  # fmt: skip
    assert Estimate(**one.to_json()) == one


def test_one_process_bounds_nothing():
    assert bootstrap_median([4.0]) == Estimate(4.0, -math.inf, math.inf)


@pytest.mark.parametrize("values", [[3, 1, 4, 1.5, 9, 2.6], [3, 1, 4, 1.5, 9]])
def test_five_or_six_processes_give_their_whole_range(values):
    found = bootstrap_median(values)
    assert (found.low, found.high) == (1, 9)
    assert found.value == pytest.approx(2.8 if len(values) == 6 else 3)


def test_more_processes_give_a_narrower_interval():
    few, many = (
        bootstrap_median(np.random.default_rng(1).normal(100, 1, count)) for count in (12, 200)
    )
    assert 0 < many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 100 < many.high


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=15))
def test_the_interval_contains_the_median_and_does_not_depend_on_the_order(values):
    found = bootstrap_median(values)
    assert found.low <= found.value == np.median(values) <= found.high
    assert bootstrap_median(values) == found
    if len(values) > 1:
        assert min(values) <= found.low <= found.high <= max(values)


@pytest.mark.parametrize(("count", "least"), [(6, 0.93), (12, 0.93)])
def test_the_interval_covers_the_true_median_of_a_skewed_distribution(count, least):
    processes = np.random.default_rng(7).lognormal(0.0, 0.3, (400, count))
    covered = [not bootstrap_median(values).excludes(1.0) for values in processes]
    assert least <= np.mean(covered)


@pytest.mark.parametrize(
    ("counts", "value", "low", "high"),
    [
        # Bonett and Price: p = (gained + 1) / (n + 2), q = (lost + 1) / (n + 2),
        # p - q +- 1.96 sqrt((p + q - (p - q)^2) / (n + 2)), worked out by hand.
        ((90, 2, 6, 0), 100 * 4 / 98, -2.148167, 10.148167),
        ((40, 10, 0, 48), 100 * -10 / 98, -16.500465, -3.499535),
        ((98, 0, 0, 0), 0.0, -2.771808, 2.771808),
    ],
)
def test_a_paired_difference_is_that_of_bonett_and_price(counts, value, low, high):
    found = paired_difference(*proportions(*counts))
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


def test_the_interval_does_not_collapse_where_nothing_changed_and_shrinks_with_samples():
    widths = [
        (found := paired_difference(same := np.ones(count, bool), same)).high - found.low
        for count in (10, 100, 1000)
    ]
    assert widths[0] > 5 * widths[1] > 25 * widths[2] > 0


def test_the_difference_is_after_less_before():
    before, after = proportions(50, 0, 30, 20)
    assert paired_difference(before, after).value == 30
    back = paired_difference(after, before)
    assert back.value == -30
    assert back.excludes(0)


def test_a_users_metric_is_compared_on_the_same_resamples():
    labels = np.random.default_rng(0).normal(size=300)
    before, after = labels + 1.0, labels + 0.5

    def metric(predictions, wanted):
        return -float(np.abs(predictions - wanted).mean())

    found = paired_metric_difference(metric, before, after, labels)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    noisy = labels + np.random.default_rng(1).normal(1.0, 1.0, 300)
    wide = paired_metric_difference(metric, before, noisy, labels)
    assert wide.low < wide.value < wide.high
    assert wide == paired_metric_difference(metric, before, noisy, labels)


def test_the_levels_that_are_kept_are_those_that_scipy_gives(monkeypatch):
    kept = dict(intervals.EXPANDED)
    monkeypatch.setattr(intervals, "EXPANDED", {})
    assert kept == {count: pytest.approx(intervals.expanded(count), rel=1e-12) for count in kept}
    assert {one.processes for one in PRESETS.values()} - {0} <= set(kept)
