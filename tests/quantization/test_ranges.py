"""Ranges from streams: exact whatever the order, against brute force, and on broken tensors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.errors import DatasetError, StepError
from workbench.quantization.histogram import Histogram
from workbench.quantization.plan import Range
from workbench.quantization.ranges import (
    MSE,
    Entropy,
    Estimator,
    MinMax,
    MovingAverage,
    Norm,
    Percentile,
)
from workbench.quantization.ranges_after import leaky_relu

METHODS = (MinMax(), MovingAverage(), Percentile(99.9), Entropy(), MSE, Norm(2.4), Norm(3))
FINEST = 2.0**-9  # of its values, the widest bin of a whole tensor


def samples(count: int = 20, seed: int = 0) -> np.ndarray:
    """[count, 6, 5, 5]: channels of scales from 1/32 to 1, heavy tails, each sample of its own."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((count, 6, 5, 5)) ** 3
    values *= 2.0 ** -np.arange(6)[:, None, None] * generator.uniform(0.1, 4, (count, 1, 1, 1))
    return values.astype(np.float32)


def everything(batches: list[np.ndarray]) -> list[object]:
    """All ranges of all methods, of the tensor, its channels and its weighted channels."""
    estimator = Estimator(per_channel={"channels"})
    for batch in batches:
        estimator.observe("whole", batch)
        estimator.observe("channels", batch)
    importance = {"channels": np.linspace(0, 1.7, 6)}
    after = {"whole": leaky_relu(0.1)}
    found: list[object] = []
    for method in METHODS:
        found += [estimator.ranges(method), estimator.ranges(method, after=after)]
        found.append(estimator.ranges(method, importance=importance))
        found.append([ends.tolist() for ends in estimator.channel_ranges("channels", method)])
    return found


@pytest.mark.parametrize("size", [1, 3, 7, 20])
@pytest.mark.parametrize("order", [None, 1, 2])
def test_ranges_are_the_same_to_the_bit_whatever_batches_and_order(size, order):
    values = samples()
    expected = everything([values])
    if order is not None:
        values = values[np.random.default_rng(order).permutation(len(values))]
    batches = [values[start : start + size] for start in range(0, len(values), size)]
    assert everything(batches) == expected


@pytest.mark.parametrize("largest", [0, 7, 19])
def test_a_growing_histogram_is_the_one_that_had_the_largest_value_first(largest):
    values = samples()
    values[largest] *= 1e9  # 30 octaves: the bins of the others move down to that of 0
    first = np.concatenate([values[largest : largest + 1], np.delete(values, largest, 0)])
    assert everything([values]) == everything([first])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False),
    ),
    st.floats(50, 100),
)
def test_extremes_are_exact_and_percentiles_within_a_bin(values, percent):
    estimator = Estimator(few=0)
    estimator.observe("t", values)
    if not values.size:
        assert estimator.ranges(Percentile(percent)) in ({}, {"t": Range(0, 0)})
        return
    assert estimator.ranges()["t"] == Range(values.min(), values.max())
    average = Range(*(np.mean([float(end(row)) for row in values]) for end in (np.min, np.max)))
    found = estimator.ranges(MovingAverage())["t"]
    scale = float(np.abs(values).max())
    assert found.low == pytest.approx(average.low, rel=1e-9, abs=1e-9 * scale)
    assert found.high == pytest.approx(average.high, rel=1e-9, abs=1e-9 * scale)
    ordered = np.sort(values, axis=None).astype(np.float64)
    cut = int(len(ordered) * (100 - percent) / 200)
    low, high = (
        min(ordered[min(cut, len(ordered) - 1)], 0),
        max(ordered[max(-1 - cut, -len(ordered))], 0),
    )
    found = estimator.ranges(Percentile(percent))["t"]
    slack = FINEST * (1 + 1e-9)
    lost = scale * 2.0**-30  # what is told from 0
    if high - low > 1e-7:  # else it is widened
        assert low - abs(low) * slack - lost <= found.low <= low
        assert high <= found.high <= high + abs(high) * slack + lost


def test_a_range_for_each_channel_is_that_of_its_values():
    values = samples()
    estimator = Estimator(per_channel={"t"})
    estimator.observe("t", values)
    low, high = estimator.channel_ranges("t")
    assert low.tolist() == values.min((0, 2, 3)).tolist()
    assert high.tolist() == values.max((0, 2, 3)).tolist()
    for channel in range(6):
        alone = Estimator()
        alone.observe("t", values[:, channel : channel + 1])
        low, high = estimator.channel_ranges("t", MSE)
        expected = alone.ranges(MSE)["t"]
        assert low[channel] == pytest.approx(expected.low, rel=0.05)
        assert high[channel] == pytest.approx(expected.high, rel=0.05)


def test_importance_draws_the_range_to_the_channels_that_matter():
    values = samples()
    estimator = Estimator(per_channel={"t"})
    estimator.observe("t", values)
    small = estimator.ranges(MSE, importance={"t": np.array([0, 0, 0, 0, 0, 1.0])})["t"]
    large = estimator.ranges(MSE, importance={"t": np.array([1.0, 0, 0, 0, 0, 0])})["t"]
    assert small.high <= values[:, 5].max() * 1.01 < large.high / 4
    assert estimator.ranges(MSE, importance={"t": np.ones(6)}) == estimator.ranges(MSE)
    nothing = estimator.ranges(MSE, importance={"t": np.zeros(6)})["t"]
    assert nothing == estimator.ranges(MinMax())["t"]
    with pytest.raises(StepError, match="importances of shape"):
        estimator.ranges(MSE, importance={"t": np.ones(5)})


@pytest.mark.parametrize("method", METHODS)
def test_tensors_without_information_get_a_range_that_can_be_quantized(method):
    estimator = Estimator(per_channel={"channels"})
    for _ in range(20):
        estimator.observe("dead", np.zeros((1, 3, 4, 4), np.float32))
        estimator.observe("negative zero", np.full((1, 3), -0.0, np.float32))
        estimator.observe("constant", np.full((1, 3, 4, 4), 5.0, np.float32))
        estimator.observe("below", np.full((1, 3, 4, 4), -5.0, np.float32))
        estimator.observe("nothing", np.zeros((1, 0, 4, 4), np.float32))
        estimator.observe("scalar", np.float32([2.5]))
        estimator.observe("whole numbers", np.ones((1, 3), np.int64))
        live = np.zeros((1, 3, 2, 2), np.float32)
        live[:, 1] = 7
        estimator.observe("channels", live)
        estimator.observe("subnormal", np.full((1, 3), 1e-42, np.float32))
    found = estimator.ranges(method)
    assert "whole numbers" not in found
    for name in ("dead", "negative zero", "nothing", "subnormal"):
        assert found[name] == Range(0, 0)
        assert found[name].high > 0
    assert found["constant"].low == 0
    assert found["constant"].high == pytest.approx(5, rel=0.01)
    assert found["below"].high == 0
    assert found["below"].low == pytest.approx(-5, rel=0.01)
    assert found["scalar"].high == pytest.approx(2.5, rel=0.01)
    assert estimator.channel_ranges("channels", method)[1] == pytest.approx([1, 7, 1], rel=0.01)


def test_an_outlier_of_a_million_is_kept_by_min_max_alone():
    values = samples(40)
    bulk = float(np.abs(values).max())
    values[3, 2, 1, 1] = 1e6
    estimator = Estimator()
    estimator.observe("t", values)
    assert estimator.ranges()["t"].high == 1e6
    for method in (Percentile(99.9), Entropy(), MSE, Norm(2.4), Norm(3)):
        found = estimator.ranges(method)["t"]
        assert bulk / 50 < found.high < 1.01 * bulk, method
        assert -1.01 * bulk < found.low < 0, method


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")]
)
def test_what_is_not_finite_is_refused_with_tensor_and_sample(value, word):
    values = samples(8)
    values[5, 0, 0, 0] = value
    estimator = Estimator()
    with pytest.raises(DatasetError, match=f"'conv1' has {word}.* sample 105"):
        estimator.observe("conv1", values, first=100)


def test_float64_beyond_float32_is_refused_and_float16_is_exact():
    estimator = Estimator(few=0)
    with pytest.raises(DatasetError, match="'t' has infinite"):
        estimator.observe("t", np.array([[1e300]]))
    estimator.observe("half", np.float16([[0.1, -3]]))
    assert estimator.ranges()["half"] == Range(-3, float(np.float16(0.1)))


def test_a_changing_number_of_channels_is_an_error():
    estimator = Estimator(per_channel={"t"})
    estimator.observe("t", np.zeros((1, 3, 2), np.float32))
    with pytest.raises(StepError, match="4 channels in one sample and 3 in others"):
        estimator.observe("t", np.zeros((1, 4, 2), np.float32))
    with pytest.raises(StepError, match="'u' was not observed"):
        estimator.channel_ranges("u")


def test_few_samples_are_said_and_widen_ranges_unless_they_agree():
    values = samples(4)
    narrow, wide = Estimator(few=0), Estimator()
    for estimator in (narrow, wide):
        estimator.observe("t", values)
        estimator.observe("saturated", np.full((4, 3), 6.0, np.float32))
    assert not narrow.notes
    assert "only 4 calibration samples" in wide.notes[0]
    before, found = narrow.ranges(), wide.ranges()
    assert found["t"].low < before["t"].low
    assert found["t"].high > before["t"].high
    assert found["saturated"] == before["saturated"]
    many = Estimator()
    many.observe("t", samples(16))
    assert not many.notes
    assert many.ranges()["t"].high == samples(16).max()


def test_widened_ranges_of_few_samples_are_on_average_what_more_show():
    generator = np.random.default_rng(0)
    missed: dict[int, list[float]] = {0: [], 16: []}
    for _ in range(60):
        values = generator.standard_normal((16, 500)).astype(np.float32)
        for few, found in missed.items():
            estimator = Estimator(few=few)
            estimator.observe("t", values[:3])
            found.append(float(values.max()) - estimator.ranges()["t"].high)
    assert abs(np.mean(missed[16])) < 0.3 * np.mean(missed[0])


def test_a_clipped_end_and_an_average_are_not_widened():
    values = samples(4)
    narrow, wide = Estimator(few=0), Estimator()
    for estimator in (narrow, wide):
        estimator.observe("t", values)
    for method in (Percentile(90), MovingAverage()):
        assert narrow.ranges(method) == wide.ranges(method)


def test_memory_does_not_grow_with_samples():
    def peak(count: int) -> int:
        generator = np.random.default_rng(0)
        tracemalloc.start()
        estimator = Estimator(per_channel={"b"})
        for _ in range(count):
            batch = generator.standard_normal((2, 8, 20, 20), np.float32)
            estimator.observe("a", batch)
            estimator.observe("b", batch)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        estimator.ranges(MSE)
        return found

    peak(2)
    assert peak(200) < 1.02 * peak(10)


def test_all_values_are_counted_once_where_tensors_are_longer_than_a_chunk():
    generator = np.random.default_rng(0)
    values = generator.standard_normal((3, 150_001)).astype(np.float32)
    together, apart = Histogram(1), Histogram(3)
    together.add(values.reshape(1, -1), float(values.min()), float(values.max()))
    apart.add(values, float(values.min()), float(values.max()))
    bins = together.bins()
    counted, _ = np.histogram(values, np.append(bins.lower, bins.upper[-1]))
    assert np.abs(counted - bins.counts).max() <= 1 + 0.02 * bins.counts.max()
    assert bins.counts.sum() == values.size
    assert [apart.bins(row).counts.sum() for row in range(3)] == [150_001] * 3
    assert apart.bins().counts.tolist() == bins.counts.tolist()
    # Each value lies in its bin.
    place = np.searchsorted(bins.lower, np.sort(values, axis=None), side="right") - 1
    assert (np.sort(values, axis=None) <= bins.upper[place]).all()
