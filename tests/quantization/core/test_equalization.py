from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.quantization.random_nets import Net, decibels, random_net, run_all
from workbench.quantization.core import channel_classes, observers
from workbench.quantization.core.equalization import apply_factors
from workbench.quantization.core.equalization_noise import (
    TensorNoise,
    WeightNoise,
    input_columns,
    least_noise_factors,
    weight_rows,
)
from workbench.quantization.core.network import Network, NetworkNode
from workbench.quantization.core.placement import place_operators
from workbench.quantization.prepare.passes import prepare_model


def ready(
    net: Net,
) -> tuple[Network, dict[str, observers.ChannelStatistics], channel_classes.ScalableChannels, Any]:
    """A prepared net with statistics and the classes of its channels."""
    model = net.model()
    feeds = net.samples(16, 0)
    few = {name: value[: 1 if net.fixed else 4] for name, value in feeds.items()}
    network = Network(prepare_model(model, few).model)
    batches = [{name: torch.from_numpy(value[i : i + 1]) for name, value in feeds.items()}
               for i in range(16)]  # fmt: skip
    names = {*network.producers, *network.inputs}
    stats = observers.with_importances(
        observers.observe_channels(network, names, batches),
        observers.channel_importances(network, names, batches[:4]),
    )
    return network, stats, channel_classes.find_scalable_channels(network, batches[0], stats), feeds


def any_factors(scaling: channel_classes.ScalableChannels, seed: int = 0) -> Any:
    """Factors at random, from the least of each class."""
    found = np.exp(np.random.default_rng(seed).normal(size=scaling.count))
    found[0] = 1
    return np.maximum(found, scaling.least)


def net(*steps: Any, size: int = 4) -> Net:
    """x [4, 8, 8] through steps; each is given the net, a tensor, and gives one of 4 channels."""
    made = Net(0)
    x = made.input("x", size, 8, 8)
    x = made.conv(x, size, 4)
    for step in steps:
        x = step(made, x)
    made.outputs.append(made.conv(x, 4, 3, 1))
    return made


def residual(n: Net, x: str) -> str:
    return str(n.node("Add", x, n.conv(n.node("Relu", n.conv(x, 4, 6)), 6, 4)))


def shuffle(n: Net, x: str) -> str:
    y = n.node("Reshape", x, n.constant([0, 2, 2, 8, 8], np.int64))
    y = n.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    return str(n.node("Reshape", y, n.constant([0, 4, 8, 8], np.int64)))


def concat(n: Net, x: str) -> str:
    return n.conv(n.node("Concat", x, n.conv(x, 4, 4), axis=1), 8, 4, 1)


def split(n: Net, x: str) -> str:
    left, right = n.node("Split", x, n.constant([1, 3], np.int64), count=2, axis=1)
    return n.conv(n.node("Concat", right, left, axis=1), 4, 4, 1)


def gate(n: Net, x: str) -> str:
    y = n.node("Sigmoid", n.conv(n.node("GlobalAveragePool", x), 4, 4, 1))
    return str(n.node("Mul", x, y))


def itself(n: Net, x: str) -> str:
    return str(n.node("Mul", x, n.node("Sigmoid", x)))


def shifted(n: Net, x: str) -> str:
    y = n.node("Add", n.node("Relu", x), n.normal(4, 1, 1))
    return str(n.node("Mul", n.node("Relu", y), n.constant(np.full((1, 4, 1, 1), 0.3))))


STEPS = {
    "relu": lambda n, x: n.node("Relu", x), "leaky": lambda n, x: n.node("LeakyRelu", x),
    "prelu": lambda n, x: n.activation(x, "PRelu", 4),
    "relu6": lambda n, x: n.activation(x, "Clip"),
    "depthwise": lambda n, x: n.conv(x, 4, 4, group=4),
    "multiplied": lambda n, x: n.conv(n.conv(x, 4, 8, group=4), 8, 4, 1),
    "grouped": lambda n, x: n.conv(x, 4, 4, group=2), "residual": residual, "shuffle": shuffle,
    "concat": concat, "split": split, "gate": gate, "itself": itself, "shifted": shifted,
    "max": lambda n, x: n.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]),
    "average": lambda n, x: n.node("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
    "hard": lambda n, x: n.activation(x, "HardSwish"),
    "sub": lambda n, x: n.node("Sub", x, n.conv(x, 4, 4)),
    "divided": lambda n, x: n.node("Div", x, n.constant(np.exp(n.rng.normal(size=(4, 1, 1))))),
}  # fmt: skip


@pytest.mark.parametrize("kind", STEPS)
def test_any_factors_keep_the_function(kind: str) -> None:
    step = STEPS[kind]
    conv = lambda n, x: n.conv(x, 4, 4)
    made = net(step, conv, lambda n, x: n.node("Relu", x), conv, step)
    network, _, scaling, feeds = ready(made)
    assert scaling.count > 1
    changed = apply_factors(network, scaling, any_factors(scaling))
    assert decibels(run_all(network.model, feeds), run_all(changed, feeds)) > 100
    before = {one.name: one for one in network.model.graph.initializer}
    assert any(one.raw_data != before[one.name].raw_data for one in changed.graph.initializer)


@pytest.mark.parametrize("seed", range(40))
def test_random_nets_keep_their_function(seed: int) -> None:
    made = random_net(seed)
    network, _, scaling, feeds = ready(made)
    changed = apply_factors(network, scaling, any_factors(scaling, seed))
    onnx.checker.check_model(changed)
    wanted = run_all(network.model, feeds, made.fixed)
    assert decibels(wanted, run_all(changed, feeds, made.fixed)) > 90


def test_found_factors_lessen_uneven_channels() -> None:
    made = Net(1)
    x = made.input("x", 3, 8, 8)
    uneven = np.exp(np.linspace(-3, 3, 8))
    weights = made.rng.normal(size=(8, 3, 3, 3)) * uneven[:, None, None, None]
    y = made.node("Relu", made.conv(x, 3, 8, weights=made.constant(weights), bias=False))
    weights = made.rng.normal(size=(4, 8, 1, 1)) / uneven[:, None, None]
    made.outputs.append(made.conv(y, 8, 4, 1, weights=made.constant(weights)))
    network, stats, scaling, feeds = ready(made)
    placement = place_operators(network)
    found = least_noise_factors(network, scaling, stats, placement)
    assert found[0] == 1 and (found >= scaling.least * 0.999).all()
    name = next(node.output for node in network.nodes if node.op == "Relu")
    after = stats[name].scaled(found[scaling.tensors[name]])
    before = stats[name].high.max() / stats[name].high.min()
    assert after.high.max() / after.high.min() < before / 20
    changed = apply_factors(network, scaling, found)
    assert decibels(run_all(network.model, feeds), run_all(changed, feeds)) > 100


def test_rows_and_channels_of_zeros_give_finite_factors() -> None:
    made = Net(2)
    x = made.input("x", 3, 8, 8)
    weights = made.rng.normal(size=(6, 3, 3, 3))
    weights[:2] = 0
    y = made.node("Relu", made.conv(x, 3, 6, weights=made.constant(weights), bias=False))
    weights = made.rng.normal(size=(4, 6, 3, 3))
    weights[1] = 0
    y = made.node("Relu", made.conv(y, 6, 4, weights=made.constant(weights)))
    made.outputs.append(made.conv(y, 4, 2, 1))
    network, stats, scaling, _ = ready(made)
    placement = place_operators(network)
    found = least_noise_factors(network, scaling, stats, placement)
    assert np.isfinite(found).all() and (found > 0).all()


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_the_growth_of_noise_is_its_derivative(low: float) -> None:
    rng = np.random.default_rng(3)
    classes = np.array([1, 2, 0, 2, 3, 1])
    terms = [
        TensorNoise(classes, low * rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 6), rng.random(6)),
        WeightNoise(rng.random((2, 4, 3)), classes.reshape(2, 3), rng.random((2, 3)),
                    rng.random((2, 4)), 9, 127),
    ]  # fmt: skip
    logarithms = rng.normal(size=4)
    for term in terms:
        _, growth = term.noise(np.exp(logarithms))
        for index in range(4):
            step = 1e-5 * np.eye(4)[index]
            (more, _), (less, _) = (term.noise(np.exp(logarithms + d)) for d in (step, -step))
            assert growth[index] == pytest.approx((more - less) / 2e-5, rel=1e-5)


def test_a_grouped_row_sees_its_groups_channels() -> None:
    np.testing.assert_array_equal(input_columns(np.arange(4), 6, 2), [[0, 1]] * 3 + [[2, 3]] * 3)
    np.testing.assert_array_equal(input_columns(np.arange(3), 2, 1), [[0, 1, 2]] * 2)


def test_rows_of_a_gemm_are_its_outputs() -> None:
    weights = np.arange(6.0).reshape(2, 3)
    proto = onnx.NodeProto()
    for transposed, shape in ((1, (2, 3, 1)), (0, (3, 2, 1))):
        node = NetworkNode("g", "Gemm", ("x", "w"), ("y",), {"transB": transposed}, (), proto)
        assert weight_rows(node, weights).shape == shape
