"""The MACs that meet a latency: found by few measurements, or what is reachable is said."""

from __future__ import annotations

import pytest

from tests import nets as common
from tests.pruning import nets
from workbench.errors import StepError
from workbench.intervals import Estimate
from workbench.pruning import timing
from workbench.pruning.timing import LatencyTrial, search_macs
from workbench.steps import Export


def curve(of):
    tries = []

    def measured(macs: float) -> LatencyTrial:
        tries.append(macs)
        value = of(macs)
        return LatencyTrial(macs, Estimate(value, value - 0.01, value + 0.01))

    return measured, tries


@pytest.mark.parametrize(
    "of",
    [
        lambda macs: macs,
        lambda macs: 0.3 + 0.7 * macs,  # what is not pruned takes time too
        lambda macs: macs**2,
        lambda macs: 0.2 + 0.8 * round(macs * 8) / 8,  # widths come in blocks
    ],
)
@pytest.mark.parametrize("target", [0.5, 0.7, 0.9])
def test_the_target_holds_and_little_more_is_taken(of, target):
    measured, tries = curve(of)
    found = search_macs(target, 0.02, measured, lambda _: None)
    assert found.latency.value <= target
    best = max(one / 1000 for one in range(1001) if of(one / 1000) <= target)
    assert found.macs > best - 0.09 or found.latency.value > target - timing.NEAR
    assert len(tries) <= timing.TRIES


def test_out_of_reach_says_what_is_reachable():
    measured, _ = curve(lambda macs: 0.6 + 0.4 * macs)
    with pytest.raises(StepError, match=r"cannot be brought to 0\.5") as caught:
        search_macs(0.5, 0.1, measured, lambda _: None)
    assert "0.100 of them, it is 0.64" in caught.value.why


def test_a_device_that_never_comes_there_ends_the_search():
    measured, tries = curve(lambda _: 2.0)
    with pytest.raises(StepError, match="latency"):
        search_macs(0.5, 0.001, measured, lambda _: None)
    assert len(tries) <= timing.TRIES


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:::torch")
def test_the_stopwatch_times_both_and_leaves_nothing(tmp_path):
    dataset = common.dataset_of(x=nets.image(8, size=64).numpy())
    model = common.model_of(nets.seeded(lambda: _net(64)), dataset)
    context = common.context(tmp_path / "step", dataset)
    watch = timing.Stopwatch(model, context, tmp_path / "timed", Export().run)
    small = common.model_of(nets.seeded(lambda: _net(8)), dataset)
    found = watch.latency_ratio(small)
    assert 0 < found.low <= found.value <= found.high
    assert found.value < 0.7, "an eighth of the products takes as long"
    watch.close()
    assert not (tmp_path / "timed").exists()


def _net(width: int):
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10),
    )  # fmt: skip
