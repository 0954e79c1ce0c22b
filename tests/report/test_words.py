"""Figures as text."""

from __future__ import annotations

import math

import pytest

from workbench.intervals import Estimate
from workbench.report import words

UNKNOWN = Estimate(1.5, -math.inf, math.inf)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (512, "512 B"),
        (2_400, "2 kB"),
        (999_000, "999 kB"),
        (1_000_000, "1.00 MB"),
        (9_234_567, "9.23 MB"),
        (1_500_000_000, "1500.00 MB"),
    ],
)
def test_sizes_are_decimal(count, text):
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.01234, "0.0123"),
        (0.1234, "0.123"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.0, "1234"),
    ],
)
def test_times_have_three_significant_digits(value, text):
    assert words.milliseconds(value) == text


def test_an_interval_has_the_digits_of_its_value():
    assert words.milliseconds_interval(Estimate(12.34, 11.987, 13.01)) == "12.3 [12.0, 13.0]"
    assert words.milliseconds_interval(None) == "–"


def test_one_process_has_a_value_but_no_interval():
    assert words.milliseconds_interval(UNKNOWN) == "1.50 [unknown]"
    assert words.points(UNKNOWN) == "+1.50 [unknown]"


@pytest.mark.parametrize(
    ("ratio", "text", "slower"),
    [
        (Estimate(2.0, 1.9, 2.1), "2.00× [1.90, 2.10]", False),
        (Estimate(0.8, 0.7, 0.9), "0.80× [0.70, 0.90]", True),
        (Estimate(1.02, 0.97, 1.04), "no difference [0.97, 1.04]", False),
        (Estimate(0.98, 0.97, 1.0), "no difference [0.97, 1.00]", False),
        # Nothing is known of it: neither that there is a difference, nor that there is none.
        (UNKNOWN, "1.50× [unknown]", False),
        (None, "–", False),
    ],
)
def test_a_speed_up_says_whether_it_is_one(ratio, text, slower):
    assert words.faster(ratio) == text
    assert words.slower(ratio) is slower


def test_ratios_and_percent():
    assert words.times(3.8333) == "3.83×"
    assert words.percent(98.765) == "98.77 %"
    assert words.percent(99.5, 1) == "99.5 %"
    assert words.times(None) == words.percent(None) == "–"


def test_accuracy_is_percent_for_top1_alone():
    assert words.accuracy(97.6, "top-1") == "97.60 %"
    assert words.accuracy(0.74251, "map50") == "0.7425"
    assert words.accuracy(None, "map50") == "–"


def test_a_delta_has_its_sign():
    assert words.points(Estimate(-0.4, -1.18, 0.38)) == "-0.40 [-1.18, +0.38]"
    assert words.points(None) == "–"


def test_a_delta_of_a_small_metric_keeps_its_digits():
    delta = Estimate(-0.0042, -0.0061, -0.0023)
    assert words.points(delta, "map50") == "-0.0042 [-0.0061, -0.0023]"
    assert words.points(Estimate(12.0, 11.0, 13.0), "psnr") == "+12.0 [+11.0, +13.0]"
    assert words.points(Estimate(0.0, 0.0, 0.0), "map50") == "+0.00 [+0.00, +0.00]"


def test_equal_outputs_have_no_decibels():
    assert words.decibels(27.54) == "27.5 dB"
    assert words.decibels(math.inf) == "equal"
    assert words.decibels(-math.inf) == "−∞"
    assert words.decibels(None) == "–"


def test_a_placement_names_what_the_cpu_was_left_with():
    assert words.placement({}, {}) == ""
    assert words.placement({"CPUExecutionProvider": 1}, {}) == "CPUExecutionProvider: 1 node"
    nodes = {"CUDAExecutionProvider": 41, "CPUExecutionProvider": 3}
    assert words.placement(nodes, {"Softmax": 2, "TopK": 1}) == (
        "CUDAExecutionProvider: 41 nodes, CPUExecutionProvider: 3 nodes (Softmax ×2, TopK)"
    )
    many = {f"Op{place}": 1 for place in range(11)}
    assert words.placement({"LiteRT": 11}, many).endswith("Op7 and 3 other operators)")
