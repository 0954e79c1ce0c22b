from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch

from tests.quantization.core.test_equalization import net, ready
from tests.quantization.random_nets import Net, decibels, random_net
from workbench.quantization.core import fake_quantization
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import place_operators
from workbench.quantization.core.plan import SCHEMES, ActivationRange, QuantizationPlan
from workbench.quantization.core.presets import TECHNIQUES
from workbench.quantization.core.qdq_writer import write_qdq
from workbench.quantization.core.sequential import SequentialQuantizer, lone_nonlinearity


def parts(made: Net) -> tuple[Network, Any, list[dict[str, torch.Tensor]]]:
    network, stats, _, feeds = ready(made)
    batches = [{name: torch.from_numpy(value[i : i + 4]) for name, value in feeds.items()}
               for i in range(0, 16, 4)]  # fmt: skip
    return network, stats, batches


def planned(made: Net, techniques: Collection[str], scheme: str = "u8s8") -> QuantizationPlan:
    network, _, batches = parts(made)
    placement = place_operators(network)
    return SequentialQuantizer(network, placement, SCHEMES[scheme], techniques).run(batches)


def outputs_of(made: Net, plan: QuantizationPlan | None) -> Any:
    network, _, batches = parts(made)
    return fake_quantization.simulate(
        network, batches, place_operators(network) if plan else None, plan
    )


def test_without_techniques_it_is_plain_min_max() -> None:
    made = random_net(6)
    network, stats, _ = parts(made)
    found = planned(made, ())
    plain = fake_quantization.min_max_plan(
        network, place_operators(network), stats, SCHEMES["u8s8"]
    )
    assert found.weights.keys() == plain.weights.keys() and not found.biases
    for name, one in found.weights.items():
        np.testing.assert_array_equal(one.integers, plain.weights[name].integers)
    assert found.ranges.keys() == plain.ranges.keys()
    one, other = found.ranges["x"], plain.ranges["x"]
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


@pytest.mark.parametrize("seed", [6, 8, 18, 21])
def test_corrected_biases_give_the_float_means(seed: int) -> None:
    made = random_net(seed)
    network, _, batches = parts(made)
    found = planned(made, {"bias_correction"})
    first = next(node for node in network.nodes if node.op == "Conv")
    assert found.biases.keys() == {
        node.name for node in network.nodes
        if node.op in ("Conv", "Gemm") and node.name in found.weights
    }  # fmt: skip
    x = torch.cat(
        [
            network.run(feeds, keep=[first.inputs[0]])[first.inputs[0]]
            if first.inputs[0] not in feeds
            else feeds[first.inputs[0]]
            for feeds in batches
        ]
    )
    from workbench.quantization.core.fake_quantization import fake_quantize

    wanted = network.apply(first, [x, *(network.constants[one] for one in first.inputs[1:])])[0]
    got = network.apply(first, [
        fake_quantize(x, found.ranges[first.inputs[0]], SCHEMES["u8s8"]),
        torch.from_numpy(found.weights[first.name].floats),
        torch.from_numpy(found.biases[first.name]),
    ])[0]  # fmt: skip
    means = (got - wanted).mean((0, 2, 3)).abs().numpy()
    assert means.max() < 1e-4 * float(wanted.abs().max())


def test_each_technique_gains_on_the_samples() -> None:
    """Not in every net, but over some: what each is there for."""
    totals = {}
    kinds = {
        "none": set(), "bias_correction": {"bias_correction"},
        # It leaves the means to the biases.
        "reconstruction": {"bias_correction", "reconstruction"},
        "all": set(TECHNIQUES),
    }  # fmt: skip
    for name, techniques in kinds.items():
        scores = []
        for seed in (6, 8, 18, 21, 28):
            made = random_net(seed)
            plan = planned(made, techniques, "u8s8-reduced")
            scores.append(decibels(outputs_of(made, None), outputs_of(made, plan)))
        totals[name] = np.mean(scores)
    print(totals)
    assert totals["bias_correction"] > totals["none"] + 0.3
    assert totals["reconstruction"] > totals["bias_correction"] + 0.3
    assert totals["all"] > totals["none"] + 3


def test_known_ranges_are_kept() -> None:
    made = net(lambda n, x: n.node("Relu", x))
    network, _, batches = parts(made)
    placement = place_operators(network)
    name = placement.tensors[1]
    found = SequentialQuantizer(
        network, placement, SCHEMES["u8s8"], ranges={name: ActivationRange(-1, 7)}
    ).run(batches)
    assert found.ranges[name] == ActivationRange(-1, 7)


def test_a_range_ends_where_a_clip_does_so_that_the_clip_is_not_needed() -> None:
    made = random_net(16)
    network, _, batches = parts(made)
    placement = place_operators(network)
    clip = next(node for node in network.nodes if node.op == "Clip")
    plan = SequentialQuantizer(
        network, placement, SCHEMES["u8s8"], ranges={clip.output: ActivationRange(0, 7)}
    ).run(batches)
    assert plan.ranges[clip.output].high == 6
    assert "Clip" not in {node.op_type for node in write_qdq(network, placement, plan).graph.node}


def test_the_same_samples_give_the_same_plan() -> None:
    made = random_net(8)
    one, other = planned(made, TECHNIQUES), planned(made, TECHNIQUES)
    assert one.ranges == other.ranges
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(weight.integers, other.weights[name].integers)


def test_weights_on_their_grid_stay_below_the_schemes_most() -> None:
    found = planned(random_net(8), TECHNIQUES, "u8s8-reduced")
    assert max(np.abs(one.integers.astype(int)).max() for one in found.weights.values()) == 63


def test_nonlinearities_count_where_they_alone_take_a_tensor() -> None:
    made = net(lambda n, x: n.node("LeakyRelu", x))
    network, _, _ = parts(made)
    conv = network.nodes[0]
    found = lone_nonlinearity(network, conv.output)
    assert found is not None and found.op == "LeakyRelu"
    made = net(lambda n, x: n.node("Add", x, n.node("LeakyRelu", x)))
    network, _, _ = parts(made)
    assert lone_nonlinearity(network, network.nodes[0].output) is None
    made = net(lambda n, x: n.activation(x, "PRelu", 4))  # a slope for each channel
    network, _, _ = parts(made)
    assert lone_nonlinearity(network, network.nodes[0].output) is None
