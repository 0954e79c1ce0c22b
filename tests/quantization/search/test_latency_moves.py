"""Moves over small graphs; the minimum cut against every placement there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.quantization.search.latency_nets import chain, made_up
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import place_operators
from workbench.quantization.search.latency_moves import FloatMove, SearchSpace, rank_moves
from workbench.quantization.search.latency_profile import LatencyCosts


def residual(group: int) -> onnx.ModelProto:
    """c0, a depthwise c1, and their sum into c2."""
    shapes = {"w0": (8, 3, 1, 1), "w1": (8, 8 // group, 3, 3), "w2": (4, 8, 1, 1)}
    weights = [numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["y0"], "c0"),
        helper.make_node("Conv", ["y0", "w1"], ["y1"], "c1", pads=[1] * 4, group=group),
        helper.make_node("Add", ["y0", "y1"], ["sum"], "add"),
        helper.make_node("Conv", ["sum", "w2"], ["y2"], "c2"),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "residual", [value("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [value("y2", TensorProto.FLOAT, [1, 4, 8, 8])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_units_are_weights_with_what_follows() -> None:
    found = SearchSpace(Network(chain(2))).units
    assert [one.nodes for one in found] == [("c0", "a0"), ("c1", "a1", "gap", "flatten"), ("fc",)]
    assert [one.weights for one in found] == [8 * 3 * 9, 8 * 8 * 9, 80]


def test_a_sum_belongs_to_the_last_that_it_takes() -> None:
    found = SearchSpace(Network(residual(8))).units
    assert [one.nodes for one in found] == [("c0",), ("c1", "add"), ("c2",)]


def test_prefixes_leave_the_last_unit() -> None:
    found = SearchSpace(Network(chain(2))).prefix_moves()
    assert [one.floats for one in found] == [
        {"c0", "a0"},
        {"c0", "a0", "c1", "a1", "gap", "flatten"},
    ]


def test_share_counts_the_weights_in_float() -> None:
    network = Network(chain(2))
    share = SearchSpace(network).weight_share
    assert share(place_operators(network)) == 0
    assert share(place_operators(network, {"c0"})) == pytest.approx(216 / (216 + 576 + 80))


@pytest.mark.parametrize(("group", "expected"), [(8, True), (1, False), (4, False)])
def test_classes_name_narrow_depthwise_convolutions(group: int, expected: bool) -> None:
    network = Network(residual(group))
    found = {
        one.name: one.floats for one in SearchSpace(network).class_moves(place_operators(network))
    }
    assert found["every Add"] == {"add"}
    depthwise = found.get("every depthwise convolution below 64 channels")
    assert (depthwise == {"c1", "add"}) is expected
    assert (found.get("every grouped convolution") == {"c1", "add"}) is (group == 4)


def test_classes_take_units_whole_and_know_gates_by_their_size() -> None:
    network = Network(residual(4))
    space = SearchSpace(network, sizes={"y0": 512, "y1": 512, "y2": 4})
    found = {one.name: one.floats for one in space.class_moves(place_operators(network))}
    assert found["every grouped convolution"] == {"c1", "add"}
    assert found["every convolution of one pixel"] == {"c2"}


def test_windows_turn_both_ways() -> None:
    network = Network(chain(3))
    space = SearchSpace(network)
    first = frozenset(space.units[0].nodes)
    made = {one.name: one.floats for one in space.window_moves(first, 1)}
    assert made["c0 back in INT8"] == frozenset()
    assert made["c1 in float"] == first | {"c1", "a1"}
    forced = SearchSpace(network, forced=first)
    assert "c0 back in INT8" not in {one.name for one in forced.window_moves(frozenset(), 1)}
    assert len(space.window_moves(frozenset(), 4)) == 1
    assert space.window_moves(frozenset(), 5) == []


def test_the_cut_is_the_cheapest_placement_of_all() -> None:
    network = Network(chain(5))
    space = SearchSpace(network, heaviest=1.0)
    found = space.units
    base = place_operators(network).nodes
    for seed in range(20):
        generator = np.random.default_rng(seed)
        floats, ints = generator.uniform(0, 1, (2, 5)).tolist()
        costs = made_up(network, base, floats, ints, 0.15)

        def price(names: set[str], costs: LatencyCosts = costs) -> float:
            return costs.predict(frozenset(base - names))

        every = [
            {name for at in chosen for name in found[at].nodes}
            for count in range(len(found) + 1) for chosen in combinations(range(len(found)), count)
        ]  # fmt: skip
        cheapest = min(price(one) for one in every)
        chosen = space.cut_move(costs).floats
        assert price(set(chosen)) == pytest.approx(cheapest, abs=1e-6)


def test_the_cut_keeps_what_is_forced() -> None:
    network = Network(chain(3))
    costs = made_up(network, place_operators(network).nodes, [9, 9, 9], [1, 1, 1], 0.1)
    assert SearchSpace(network, heaviest=1.0).cut_move(costs).floats == frozenset()
    forced = SearchSpace(network, frozenset({"c1"}), heaviest=1.0)
    assert {"c1", "a1"} <= forced.cut_move(costs).floats


def test_the_cut_keeps_the_limit_on_weights() -> None:
    network = Network(chain(4))
    found = SearchSpace(network).units
    costs = made_up(network, place_operators(network).nodes, [1, 1, 1, 1], [2, 3, 4, 5], 0.1)
    total = sum(one.weights for one in found)

    def share(names: frozenset[str]) -> float:
        return sum(one.weights for one in found if one.name in names) / total

    assert share(SearchSpace(network, heaviest=1.0).cut_move(costs).floats) > 0.6
    limited = SearchSpace(network, heaviest=0.4).cut_move(costs).floats
    assert 0.2 < share(limited) <= 0.4
    assert "c3" in limited  # where INT8 loses most


def test_ranked_takes_the_best_and_some_apart() -> None:
    options = [FloatMove(str(at), frozenset()) for at in range(10)]
    times = {str(at): float(abs(at - 6)) for at in range(10)}
    found = [one.name for one in rank_moves(options, times, 3, 3)]
    assert sorted(found[:3]) == ["5", "6", "7"]
    assert found[3:] == ["0", "4", "9"]
