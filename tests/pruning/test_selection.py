"""How many channels go, and which, by counts that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import StepError
from workbench.pruning.cost import LayerCost, ModuleCost
from workbench.pruning.selection import LEAST, PruningTarget, select_channels


def chain(*sizes: int) -> ModuleCost:
    """Layers one after another, from 3 channels to the sizes and then to 10, one use each."""
    every = (3, *sizes, 10)
    layers = [
        LayerCost(
            1, 1, every[at + 1], every[at], False, 0,
            ((at, 1),) if at < len(sizes) else (), ((at - 1, 1),) if at else (),
        )
        for at in range(len(sizes) + 1)
    ]  # fmt: skip
    return ModuleCost(tuple(layers), 0, 0)


def scores(*sizes: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    return [generator.random(size) + 0.1 for size in sizes]


def test_the_cost_is_of_what_is_left():
    cost = chain(16, 32)
    assert cost.macs([0, 0]) == 3 * 16 + 16 * 32 + 32 * 10
    assert cost.macs([8, 16]) == 3 * 8 + 8 * 16 + 16 * 10


def test_the_least_important_channels_go():
    made = select_channels(
        [np.arange(16.0)[::-1]], chain(16), PruningTarget("macs", 0.5), scope="local", round_to=8
    )
    assert made.removed == (tuple(range(8, 16)),)
    assert made.cost == 0.5


def test_local_narrows_all_alike():
    made = select_channels(
        scores(64, 64, 64), chain(64, 64, 64), PruningTarget("macs", 0.3), scope="local", round_to=8
    )
    kept = [64 - len(one) for one in made.removed]
    assert max(kept) - min(kept) <= 8
    assert made.cost <= 0.3


def test_global_takes_from_the_width_that_matters_least():
    important, idle = np.full(64, 10.0), np.full(64, 0.01)
    made = select_channels(
        [important, idle], chain(64, 64), PruningTarget("macs", 0.6), scope="global", round_to=8
    )
    assert len(made.removed[0]) < len(made.removed[1])


def test_a_target_of_all_takes_nothing():
    made = select_channels(
        scores(16), chain(16), PruningTarget("macs", 1.0), scope="local", round_to=8
    )
    assert made.removed == ((),)
    assert made.cost == 1


def test_a_target_out_of_reach_says_what_can_be_reached():
    with pytest.raises(StepError, match=r"macs cannot be brought to 0.1") as caught:
        select_channels(
            scores(16), chain(16), PruningTarget("macs", 0.1), scope="local", round_to=8
        )
    assert "the least is 0.500" in caught.value.why


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 80), min_size=1, max_size=5), st.floats(0.2, 1.0),
    st.sampled_from(["local", "global"]), st.sampled_from([1, 4, 8]), st.integers(0, 9),
)  # fmt: skip
def test_what_is_chosen_meets_the_target_in_multiples(sizes, target, scope, round_to, seed):
    cost = chain(*sizes)
    try:
        made = select_channels(
            scores(*sizes, seed=seed),
            cost,
            PruningTarget("macs", target),
            scope=scope,
            round_to=round_to,
        )
    except StepError:
        return
    counts = [len(one) for one in made.removed]
    assert made.cost <= target + 1e-9
    assert made.cost == pytest.approx(cost.macs(counts) / cost.macs([0] * len(sizes)))
    for size, count, removed in zip(sizes, counts, made.removed, strict=True):
        assert count == 0 or (size - count) % round_to == 0
        assert size - count >= min(size, max(1, size * LEAST))
        assert list(removed) == sorted(set(removed))
