"""Timing side by side and the clock for it; no time itself is tested."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.quantization.search.latency_nets import chain
from workbench.device import profile
from workbench.quantization.search import latency_timing as timing
from workbench.quantization.search.latency_profile import read_kernels

DEVICE = profile.load("cpu")
FEEDS = {"x": np.zeros((1, 3, 16, 16), np.float32)}


def test_each_graph_has_a_figure_a_round() -> None:
    models = {name: chain(count).SerializeToString() for name, count in (("a", 1), ("b", 4))}
    found = timing.time_side_by_side(models, FEEDS, DEVICE, rounds=3)
    assert {name: len(one) for name, one in found.items()} == {"a": 3, "b": 3}
    assert all(value > 0 for one in found.values() for value in one)


def test_a_graph_that_is_refused_is_left_out() -> None:
    models = {"good": chain(1).SerializeToString(), "bad": b"no graph"}
    assert list(timing.time_side_by_side(models, FEEDS, DEVICE, rounds=1)) == ["good"]


def test_one_thread_is_timed_by_its_own_clock() -> None:
    assert timing.device_clock(replace(DEVICE, threads=1)) is time.thread_time_ns
    assert timing.device_clock(replace(DEVICE, threads=2)) is time.perf_counter_ns
    assert timing.device_clock(replace(DEVICE, provider="cuda")) is time.perf_counter_ns


def test_a_profile_has_every_kernel(tmp_path: Path) -> None:
    events = timing.profile_events(chain(2).SerializeToString(), FEEDS, DEVICE, tmp_path)
    found = read_kernels(events)
    assert sum("Conv" in one.op for one in found) == 2
    assert all(one.microseconds > 0 for one in found if "Conv" in one.op)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_cores_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    one = min(before)
    with timing.pin_to_cores(replace(DEVICE, cores=(one,))):
        assert os.sched_getaffinity(0) == {one}
    assert os.sched_getaffinity(0) == before
