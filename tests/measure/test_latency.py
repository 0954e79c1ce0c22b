"""Latency: figures derived from raw samples, and speed-ups that mean something."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.measure.latency import PRESETS, Latency, ProcessSamples, speedup


def process(median_ms: float, load_ms=20.0, first_ms=4.0, peak=1000) -> ProcessSamples:
    """Five samples around a median; their 90th percentile is 1.4 times it."""
    samples = tuple(round(1e6 * median_ms * factor) for factor in (0.8, 0.9, 1.0, 1.2, 1.5333333))
    return ProcessSamples(round(1e6 * load_ms), round(1e6 * first_ms), samples, peak)


def latency(*medians_ms: float) -> Latency:
    return Latency(tuple(process(value) for value in medians_ms))


def test_a_processs_figures_are_in_milliseconds():
    one = ProcessSamples(1, 1, tuple(range(1_000_000, 12_000_000, 1_000_000)), 1)
    assert (one.median_ms, one.p90_ms) == (6.0, 10.0)


def test_the_median_is_over_processes_and_not_over_all_samples():
    many = ProcessSamples(1, 1, (9_000_000,) * 1000, 1)
    few = [ProcessSamples(1, 1, (value * 1_000_000,) * 3, 1) for value in (1, 2, 3, 4, 5)]
    found = Latency((*few, many)).median
    assert (found.value, found.low, found.high) == (3.5, 1.0, 9.0)


def test_p90_is_the_median_of_the_processes_p90():
    found = latency(1, 2, 3, 4, 5, 6).p90
    assert found.value == pytest.approx(3.5 * 1.4, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((1.4, 8.4), rel=1e-6)


def test_load_and_first_inference_are_medians_and_memory_is_the_most():
    rows = [(10, 1, 5), (30, 3, 9), (20, 8, 7)]
    one = Latency(tuple(process(1.0, load, first, peak) for load, first, peak in rows))
    assert (one.load_ms, one.first_ms, one.peak_bytes) == (20.0, 3.0, 9)


def test_a_spread_beyond_a_tenth_is_unstable():
    quiet, loud = latency(100, 102, 104, 106, 108), latency(100, 106, 110, 118, 130)
    assert quiet.spread == pytest.approx(4 / 104)
    assert loud.spread == pytest.approx(12 / 110)
    assert (quiet.unstable, loud.unstable) == (False, True)


def test_raw_samples_round_trip_through_json():
    one = latency(1.5, 2.5)
    assert Latency.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_presets_have_enough_processes_for_their_interval_and_grow():
    quick, standard, strict = (PRESETS[name] for name in ("quick", "standard", "strict"))
    assert min(one.processes for one in PRESETS.values() if one.name != "none") >= 6
    for less, more in ((quick, standard), (standard, strict)):
        assert (less.warmup, less.runs, less.seconds) < (more.warmup, more.runs, more.seconds)
    assert strict.processes * strict.seconds >= 60


def test_a_speedup_is_the_baseline_over_the_candidate():
    found = speedup(latency(8, 8, 8, 8, 8, 8), latency(2, 2, 2, 2, 4, 1))
    assert (found.value, found.low, found.high) == pytest.approx((4.0, 2.0, 8.0))
    assert found.excludes(1)


def test_rounds_are_paired_so_that_common_drift_cancels():
    drift = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)
    baseline, candidate = latency(*drift), latency(*(0.8 * one for one in drift))
    assert not baseline.median.excludes(candidate.median.value)
    found = speedup(baseline, candidate)
    assert (found.low, found.high) == pytest.approx((1.25, 1.25), rel=1e-5)


def test_rounds_of_other_lengths_cannot_be_paired():
    with pytest.raises(ValueError):
        speedup(latency(1, 2), latency(1, 2, 3))


def test_the_same_artifact_twice_shows_no_difference():
    generator = np.random.default_rng(11)
    drift = generator.lognormal(0, 0.2, (300, 6))
    pairs = drift[:, None, :] * generator.lognormal(0, 0.05, (300, 2, 6))
    same = [not speedup(latency(*one), latency(*other)).excludes(1) for one, other in pairs]
    assert np.mean(same) >= 0.90


def test_a_real_difference_is_seen_through_noise():
    noise = np.random.default_rng(12).lognormal(0, 0.03, (100, 2, 6))
    real = [speedup(latency(*(1.3 * a)), latency(*b)).excludes(1) for a, b in noise]
    assert np.mean(real) >= 0.95
