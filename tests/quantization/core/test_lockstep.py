from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.quantization.core.test_equalization import net, ready
from tests.quantization.random_nets import Net, decibels, random_net
from workbench.quantization.core import simulation
from workbench.quantization.core.lockstep import Lockstep, Techniques, nonlinearity
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import place
from workbench.quantization.core.plan import SCHEMES, Plan, Range
from workbench.quantization.core.qdq import write

NONE = Techniques(False, False, False)


def parts(made: Net) -> tuple[Network, Any, list[dict[str, torch.Tensor]]]:
    network, stats, _, feeds = ready(made)
    batches = [{name: torch.from_numpy(value[i : i + 4]) for name, value in feeds.items()}
               for i in range(0, 16, 4)]  # fmt: skip
    return network, stats, batches


def planned(made: Net, techniques: Techniques, scheme: str = "u8s8") -> Plan:
    network, stats, batches = parts(made)
    return Lockstep(network, place(network), stats, SCHEMES[scheme], techniques).run(batches)


def outputs_of(made: Net, plan: Plan | None) -> Any:
    network, _, batches = parts(made)
    return simulation.outputs(network, batches, place(network) if plan else None, plan)


def test_without_techniques_it_is_plain_min_max() -> None:
    made = random_net(6)
    network, stats, _ = parts(made)
    found = planned(made, NONE)
    plain = simulation.plain(network, place(network), stats, SCHEMES["u8s8"])
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
    found = planned(made, replace(NONE, bias_correction=True))
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
    from workbench.quantization.core.grid import quantized

    wanted = network.apply(first, [x, *(network.constants[one] for one in first.inputs[1:])])[0]
    got = network.apply(first, [
        quantized(x, found.ranges[first.inputs[0]], SCHEMES["u8s8"]),
        torch.from_numpy(found.weights[first.name].floats),
        torch.from_numpy(found.biases[first.name]),
    ])[0]  # fmt: skip
    means = (got - wanted).mean((0, 2, 3)).abs().numpy()
    assert means.max() < 1e-4 * float(wanted.abs().max())


def test_each_technique_gains_on_the_samples() -> None:
    """Not in every net, but over some: what each is there for."""
    totals = {}
    kinds = {
        "none": NONE, "bias_correction": replace(NONE, bias_correction=True),
        # It leaves the means to the biases.
        "reconstruction": replace(NONE, bias_correction=True, reconstruction=True),
        "all": Techniques(),
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
    network, stats, batches = parts(made)
    placement = place(network)
    name = placement.tensors[1]
    found = Lockstep(network, placement, stats, SCHEMES["u8s8"],
                     known={name: Range(-1, 7)}).run(batches)  # fmt: skip
    assert found.ranges[name] == Range(-1, 7)


def test_a_range_ends_where_a_clip_does_so_that_the_clip_is_not_needed() -> None:
    made = random_net(16)
    network, stats, batches = parts(made)
    placement = place(network)
    clip = next(node for node in network.nodes if node.op == "Clip")
    plan = Lockstep(network, placement, stats, SCHEMES["u8s8"],
                    known={clip.output: Range(0, 7)}).run(batches)  # fmt: skip
    assert plan.ranges[clip.output].high == 6
    assert "Clip" not in {node.op_type for node in write(network, placement, plan).graph.node}


def test_the_same_samples_give_the_same_plan() -> None:
    made = random_net(8)
    one, other = planned(made, Techniques()), planned(made, Techniques())
    assert one.ranges == other.ranges
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(weight.integers, other.weights[name].integers)


def test_weights_on_their_grid_stay_below_the_schemes_most() -> None:
    found = planned(random_net(8), Techniques(), "u8s8-reduced")
    assert max(np.abs(one.integers.astype(int)).max() for one in found.weights.values()) == 63


def test_nonlinearities_count_where_they_alone_take_a_tensor() -> None:
    made = net(lambda n, x: n.node("LeakyRelu", x))
    network, _, _ = parts(made)
    conv = network.nodes[0]
    found = nonlinearity(network, conv.output)
    assert found is not None and found.op == "LeakyRelu"
    made = net(lambda n, x: n.node("Add", x, n.node("LeakyRelu", x)))
    network, _, _ = parts(made)
    assert nonlinearity(network, network.nodes[0].output) is None
    made = net(lambda n, x: n.activation(x, "PRelu", 4))  # a slope for each channel
    network, _, _ = parts(made)
    assert nonlinearity(network, network.nodes[0].output) is None
