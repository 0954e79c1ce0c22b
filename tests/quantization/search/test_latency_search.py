"""The search over placements with a made-up clock, whose best is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tests.quantization.search.latency_nets import chain, made_up
from workbench.intervals import Estimate
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import OperatorPlacement, place_operators
from workbench.quantization.search import latency_search as searching
from workbench.quantization.search.latency_evidence import describe_trials
from workbench.quantization.search.latency_moves import SearchSpace
from workbench.quantization.search.latency_profile import LatencyCosts
from workbench.quantization.search.latency_search import BASE, FP32, LatencySearch, PlacementTrial

NETWORK = Network(chain(8))
NODES = place_operators(NETWORK).nodes
SLOW = [1.0] * 8  # of every convolution in float


def clock(costs: LatencyCosts, noise: float = 0.002) -> Callable[..., dict[str, list[float]]]:
    """A timer that knows the true costs: 9 rounds with some noise."""
    generator = np.random.default_rng(0)

    def timer(wanted: Mapping[str, OperatorPlacement | None]) -> dict[str, list[float]]:
        found = {}
        for name, placement in wanted.items():
            nodes = frozenset[str]() if placement is None else placement.nodes
            true = costs.predict(nodes)
            found[name] = (true * (1 + noise * generator.standard_normal(9))).tolist()
        return found

    return timer


class Graphs:
    """Placements of the network; which are refused, and which are the same, is made up."""

    def __init__(
        self,
        refusal: Callable[[OperatorPlacement], str] = lambda placement: "",
        identity: Callable[[OperatorPlacement], str] = lambda placement: repr(
            sorted(placement.nodes)
        ),
    ) -> None:
        self.refusal, self.identity = refusal, identity

    def place(self, floats: frozenset[str]) -> OperatorPlacement:
        return place_operators(NETWORK, floats)


def search(
    true: LatencyCosts,
    believed: LatencyCosts | None = None,
    *,
    graphs: Graphs | None = None,
    timer: Callable[..., dict[str, list[float]]] | None = None,
    spare: Callable[[], bool] = lambda: True,
    heaviest: float = 1.0,
) -> LatencySearch:
    space = SearchSpace(NETWORK, heaviest=heaviest)
    return LatencySearch(space, believed or true, graphs or Graphs(), timer or clock(true), spare)


def chosen(trials: list[PlacementTrial]) -> PlacementTrial:
    return [one for one in trials if one.accepted][-1]


def test_a_slow_start_is_left_in_float() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [3, 3, 3, 0.4, 0.4, 0.4, 0.4, 0.4], 0.1)
    trials = search(costs).run()
    best = chosen(trials)
    assert best.name == "prefix of 3"
    assert best.speed is not None
    assert best.speed.value == pytest.approx(8 / 5.1, rel=0.01)
    assert trials[0].name == BASE


def test_it_is_found_where_the_prediction_is_wrong() -> None:
    true = made_up(NETWORK, NODES, SLOW, [3, 3, 3, 0.4, 0.4, 0.4, 0.4, 0.4], 0.1)
    wrong = made_up(NETWORK, NODES, SLOW, [0.4] * 8, 0.1)
    assert chosen(search(true, wrong).run()).name == "prefix of 3"


def test_a_slow_middle_is_found_by_cut_or_window() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [0.4, 0.4, 0.4, 4, 4, 0.4, 0.4, 0.4], 0.1)
    best = chosen(search(costs).run())
    assert best.floats & {f"c{at}" for at in range(8)} == {"c3", "c4"}


def test_windows_find_it_without_a_cut() -> None:
    true = made_up(NETWORK, NODES, SLOW, [0.4, 0.4, 0.4, 4, 4, 0.4, 0.4, 0.4], 0.1)
    wrong = made_up(NETWORK, NODES, SLOW, [0.4] * 8, 0.1)
    best = chosen(search(true, wrong).run())
    assert best.floats & {f"c{at}" for at in range(8)} >= {"c3", "c4"}
    assert best.speed is not None
    assert best.speed.value > 1.3


def test_gains_of_two_percent_are_not_taken() -> None:
    ints = [0.4] * 7 + [0.44]
    costs = made_up(NETWORK, NODES, [1.0] * 7 + [0.38], ints, 0.0)
    trials = search(costs).run()
    assert chosen(trials).name == BASE
    assert any("less than 3%" in one.why for one in trials)


def test_noise_is_not_taken_for_a_gain() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [1.0] * 8, 0.0)
    trials = search(costs, timer=clock(costs, noise=0.15)).run()
    assert sum(one.accepted for one in trials) <= 2


def test_heavy_placements_are_not_timed() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [3, 3, 3, 0.4, 0.4, 0.4, 0.4, 0.4], 0.1)
    trials = search(costs, heaviest=0.2).run()
    assert chosen(trials).weights <= 0.2
    assert all(one.speed is None for one in trials if one.weights > 0.2)


def test_what_cannot_be_written_or_run_or_is_the_same_is_said() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [3, 3, 3, 0.4, 0.4, 0.4, 0.4, 0.4], 0.1)
    timer = clock(costs)

    def refusing(wanted: Mapping[str, OperatorPlacement | None]) -> dict[str, list[float]]:
        return {name: one for name, one in timer(wanted).items() if name != "prefix of 3"}

    def writable(placement: OperatorPlacement) -> str:
        return "" if "c1" in placement.nodes or "c0" in placement.nodes else "z1 has no range"

    refused = search(costs, timer=refusing).run()
    assert [one.why for one in refused if one.name == "prefix of 3"] == [
        "ONNX Runtime does not run it"
    ]
    trials = search(costs, graphs=Graphs(refusal=writable)).run()
    assert {one.why for one in trials if one.name == "prefix of 3"} == {"z1 has no range"}
    same = search(costs, graphs=Graphs(identity=lambda placement: "")).run()
    assert {one.why for one in same[1:]} == {f"the same file as '{BASE}'"}


def test_it_ends_when_the_time_is_up() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [3] * 8, 0.1)
    trials = search(costs, spare=lambda: False).run()
    assert [one.name for one in trials if one.speed] == [BASE]
    assert {one.why for one in trials[1:]} == {"no time left"}


@pytest.mark.parametrize(
    ("gain", "expected"),
    [
        (Estimate(1.05, 1.02, 1.08), True),
        (Estimate(1.02, 1.01, 1.03), False),
        (Estimate(1.05, 0.99, 1.10), False),
        (None, False),
    ],
)
def test_accepted_wants_three_percent_beyond_chance(gain: Estimate | None, expected: bool) -> None:
    assert searching.judge_gain(gain)[0] is expected


def test_finalists_begin_with_the_choice() -> None:
    def trial(name: str, speed: float, accepted: bool) -> PlacementTrial:
        one = Estimate(speed, speed, speed)
        return PlacementTrial(
            name, frozenset(), OperatorPlacement(), 0.0, 1.0, one, one, one, accepted
        )

    trials = [trial("a", 1.0, True), trial("b", 1.2, True), trial("c", 1.22, False),
              trial("d", 1.1, False)]  # fmt: skip
    assert [one.name for one in searching.choose_finalists(trials)] == ["b", "c", "d"]


def test_trials_become_evidence() -> None:
    costs = made_up(NETWORK, NODES, SLOW, [0.5] * 8, 0.1)
    first, *_ = search(costs).run()
    (shown,) = describe_trials([first])
    assert shown.accepted is True
    assert shown.speed_against_fp32 is not None
    assert shown.speed_against_fp32.value == pytest.approx(2, rel=0.01)
    assert FP32 not in shown.name
