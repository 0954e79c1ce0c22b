from __future__ import annotations

import numpy as np
import torch
from onnx import helper

from tests.nets import normal
from tests.quantization.prepare.graphs import graph_of
from workbench.arrays import channel_axis
from workbench.quantization.core.network import Network
from workbench.quantization.core.observers import (
    MANY,
    ChannelStatistics,
    batch_among_channels,
    channel_importances,
    observe_channels,
    reachable_maxima,
    with_importances,
)

node = helper.make_node


def batches(x, size):
    return [{"x": torch.from_numpy(x[i : i + size])} for i in range(0, len(x), size)]


def test_extremes_and_power_are_those_of_every_channel_whatever_the_batches() -> None:
    network = Network(graph_of([node("Neg", ["x"], ["y"])]))
    x = normal(7, 4, 6, 6)
    x[:, 2] = np.abs(x[:, 2])
    for size in (1, 3, 7):
        found = observe_channels(network, {"x", "y"}, batches(x, size))
        np.testing.assert_allclose(found["x"].low, np.minimum(x.min((0, 2, 3)), 0))
        np.testing.assert_allclose(found["y"].high, np.maximum(-x.min((0, 2, 3)), 0))
        np.testing.assert_allclose(found["x"].power, np.square(x).mean((0, 2, 3)), rtol=1e-6)
    assert found["x"].low[2] == 0


def test_a_batch_in_the_channels_place_is_no_channel() -> None:
    """As in attention, where queries, keys and values are taken apart: [3, N, heads, T, D]."""
    network = Network(graph_of([node("Transpose", ["x"], ["y"], perm=[1, 0, 2, 3])]))
    x = normal(16, 4, 6, 6)
    assert batch_among_channels(network, {"x": torch.from_numpy(x[:10])}) == {"y"}
    assert batch_among_channels(network, {"x": torch.from_numpy(x[:1])}) == frozenset()
    found = observe_channels(network, {"x", "y"}, batches(x, 10))["y"]
    assert (found.low, found.high) == (x.min(), x.max())
    np.testing.assert_allclose(found.power, np.square(x).mean(), rtol=1e-6)
    np.testing.assert_allclose(channel_importances(network, {"y"}, batches(x, 10))["y"], 4 * 36)


def test_where_channels_stand() -> None:
    assert [channel_axis(rank) for rank in (2, 3, 4, 5)] == [1, 2, 1, 1]


def test_importance_is_the_noise_that_reaches_the_outputs() -> None:
    """Of y = x W, noise of variance 1 in channel c adds Σ_o W[c, o]² to the outputs' power."""
    weights = normal(5, 6, seed=1) * np.array([0.1, 1, 3, 0, 2], np.float32)[:, None]
    network = Network(graph_of([node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 5)}, w=weights))
    found = channel_importances(network, {"x"}, batches(normal(60, 5), 10), draws=40)
    np.testing.assert_allclose(found["x"], np.square(weights).sum(1), rtol=0.1, atol=1e-9)


def test_importance_of_images_counts_every_place() -> None:
    network = Network(graph_of([node("Mul", ["x", "s"], ["y"])],
                               s=np.float32([1, 2, 3, 0])[:, None, None]))  # fmt: skip
    found = channel_importances(network, {"x"}, batches(normal(4, 4, 6, 6), 2))
    np.testing.assert_allclose(found["x"], 36 * np.array([1, 4, 9, 0]), rtol=1e-5)


def test_every_output_counts_alike_and_dead_tensors_are_absent() -> None:
    model = graph_of(
        [node("Mul", ["x", "s"], ["big"]), node("Identity", ["x"], ["small"]),
         node("Neg", ["x"], ["dead"])],
        outputs=("big", "small"), s=np.float32(1e6),
    )  # fmt: skip
    found = channel_importances(
        Network(model), {"x", "dead"}, batches(normal(8, 4, 6, 6), 4), draws=30
    )
    assert "dead" not in found
    np.testing.assert_allclose(found["x"], 72, rtol=0.3)  # 36 places, twice


def test_factors_scale_statistics_as_they_scale_channels() -> None:
    x = normal(5, 3)
    scales = np.array([2.0, 0.5, 10])
    network = Network(graph_of([node("Identity", ["x"], ["y"])], {"x": ("n", 3)}))
    one, other = (observe_channels(network, {"x"}, batches(each, 5))["x"]
                  for each in (x, (x / scales).astype(np.float32)))  # fmt: skip
    made = one.scaled(scales)
    for part in ("low", "high", "power"):
        np.testing.assert_allclose(getattr(made, part), getattr(other, part), rtol=1e-5)
    np.testing.assert_allclose(made.importance, scales**2)


def test_where_no_gradient_came_power_weighs() -> None:
    one = ChannelStatistics(-np.ones(2), np.ones(2), np.array([4.0, 1.0]), np.ones(2))
    for weight in ({}, {"x": np.array([np.nan, 1])}, {"x": np.zeros(2)}):
        np.testing.assert_allclose(with_importances({"x": one}, weight)["x"].importance, [0.25, 1])
    given = with_importances({"x": one}, {"x": np.array([3, 5])})["x"].importance
    np.testing.assert_allclose(given, [3, 5])


def test_a_channel_that_a_relu_hardly_lets_through_may_reach_more() -> None:
    network = Network(graph_of([node("Relu", ["x"], ["y"])], {"x": ("n", 3)}))
    x = np.tile(np.array([[-8, -1, 3], [-4, 4, 1]], np.float32), (MANY // 2, 1))
    stats = observe_channels(network, {"x", "y"}, batches(x, 10))
    np.testing.assert_allclose(reachable_maxima(network, stats, "y"), [2, 4, 3])
    np.testing.assert_allclose(reachable_maxima(network, stats, "x"), [0, 4, 3])
    stats = observe_channels(network, {"x", "y"}, batches(x[2:], 10))
    np.testing.assert_allclose(reachable_maxima(network, stats, "y"), [4, 4, 4])
