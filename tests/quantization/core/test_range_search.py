from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import helper

from tests.quantization.prepare.graphs import graph_of
from workbench.quantization.core.fake_quantization import fake_quantize
from workbench.quantization.core.network import Network
from workbench.quantization.core.observers import observe_channels
from workbench.quantization.core.plan import SCHEMES, ActivationRange
from workbench.quantization.core.range_search import FEW, gradient_histograms

node = helper.make_node
CHANNELS, SIDE = 4, 12


def setup(relu: bool, seed: int = 0):
    """a = x (or its Relu behind it), then a pooled product: linear in what is quantized."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(CHANNELS, 5)).astype(np.float32)
    nodes = [node("Neg", ["x"], ["a"])]
    nodes += [node("Relu", ["a"], ["b"])] if relu else [node("Abs", ["x"], ["unused"])]
    nodes += [
        node("GlobalAveragePool", ["b" if relu else "a"], ["p"]), node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]  # fmt: skip
    network = Network(graph_of(nodes, {"x": ("n", CHANNELS, SIDE, SIDE)}, w=weights))
    x = rng.standard_t(4, (40, CHANNELS, SIDE, SIDE)).astype(np.float32)
    x *= rng.uniform(0.3, 2, (40, 1, 1, 1)).astype(np.float32)
    batches = [{"x": torch.from_numpy(x[i : i + 10])} for i in range(0, 40, 10)]
    stats = observe_channels(network, {"a", "b"}, batches)
    after = network.producers["b"] if relu else None
    found = gradient_histograms(network, {"a": after}, stats, batches, draws=30)["a"]
    return found, torch.from_numpy(-x), weights


def true_noise(values, weights, found: ActivationRange, relu: bool) -> float:
    made = fake_quantize(values, found, SCHEMES["u8s8"])
    if relu:
        made, values = made.relu(), values.relu()
    error = (made - values).mean((2, 3)).numpy() @ weights
    error -= error.mean(0)  # bias correction takes what is constant
    return float(np.square(error).sum(1).mean())


def test_noise_of_a_linear_net_is_the_true_one() -> None:
    for relu in (False, True):
        found, values, weights = setup(relu)
        for low, high in ((-2.0, 2.0), (-4.0, 3.0), (-1.0, 6.0)):
            modelled = found.output_noise(
                torch.tensor([low]), torch.tensor([high]), SCHEMES["u8s8"]
            )
            wanted = true_noise(values, weights, ActivationRange(low, high), relu)
            np.testing.assert_allclose(float(modelled[0]), wanted, rtol=0.25)


def test_the_best_range_is_not_worse_than_min_max() -> None:
    for scheme in SCHEMES.values():
        found, values, _ = setup(False)
        best = found.best_range(scheme)
        ends = float(values.min()), float(values.max())
        tried = torch.tensor([[best.low, ends[0]], [best.high, ends[1]]])
        noise = found.output_noise(tried[0], tried[1], scheme)
        assert noise[0] <= noise[1] * 1.0001
        assert ends[0] * 1.01 <= best.low <= 0 <= best.high <= ends[1] * 1.01


def test_what_a_relu_clips_costs_nothing() -> None:
    low, high = torch.tensor([-0.01]), torch.tensor([25.0])
    before, behind = (
        float(setup(relu)[0].output_noise(low, high, SCHEMES["u8s8"])[0]) for relu in (False, True)
    )
    assert behind < before / 100


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_slope_of_any_shape_is_applied_to_values(shape: tuple[int, ...]) -> None:
    nodes = [node("Neg", ["x"], ["a"]), node("PRelu", ["a", "slope"], ["b"]),
             node("GlobalAveragePool", ["b"], ["y"])]  # fmt: skip
    slope = np.full(shape, 0.25, np.float32)
    network = Network(graph_of(nodes, {"x": ("n", 4, 24, 24)}, slope=slope))
    feeds = [{"x": torch.randn(8, 4, 24, 24, generator=torch.Generator().manual_seed(0))}]
    stats = observe_channels(network, {"a", "b"}, feeds)
    found = gradient_histograms(network, {"a": network.producers["b"]}, stats, feeds)["a"]
    best = found.best_range(SCHEMES["u8s8"])
    low, high = (torch.tensor([best.low, 0.0]), torch.tensor([best.high, best.high]))
    kept, clipped = found.output_noise(low, high, SCHEMES["u8s8"])
    assert best.low < -1 and kept < clipped / 10


def test_tensors_that_samples_show_little_of_are_absent() -> None:
    network = Network(graph_of([node("Neg", ["x"], ["a"]), node("Abs", ["a"], ["y"])],
                               {"x": ("n", 3)}))  # fmt: skip
    for count in (FEW - 1, FEW):
        feeds = [{"x": torch.randn(count, 3, generator=torch.Generator().manual_seed(0))}]
        stats = observe_channels(network, {"a"}, feeds)
        found = gradient_histograms(network, {"a": None}, stats, feeds)
        assert ("a" in found) == (count >= FEW)


def test_tokens_in_rows_are_projected_and_a_batch_in_the_channels_place_is_not() -> None:
    """[N, T, C] flattened to [N·T, C], as of BERT; and [T, N, C, 1], where no channel stands."""
    weights = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    nodes = [
        node("Reshape", ["x", "flat"], ["a"]),
        node("MatMul", ["a", "w"], ["m"]),
        node("Reshape", ["m", "tokens"], ["y"]),
        node("Unsqueeze", ["x", "end"], ["u"]),
        node("Transpose", ["u"], ["b"], perm=[1, 0, 2, 3]),
        node("ReduceSum", ["b"], ["z"]),
    ]
    model = graph_of(
        nodes, {"x": ("n", 200, 6)}, outputs=("y", "z"), w=weights, flat=np.int64([-1, 6]),
        tokens=np.int64([-1, 200, 5]), end=np.int64([3]),
    )  # fmt: skip
    network = Network(model)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(26, 200, 6)).astype(np.float32))
    batches = [{"x": x[:10]}, {"x": x[10:20]}, {"x": x[20:]}]
    stats = observe_channels(network, {"a", "b"}, batches)
    assert (len(stats["a"].low), len(stats["b"].low)) == (6, 1)
    found = gradient_histograms(network, {"a": None, "b": None}, stats, batches)
    assert set(found) == {"a"}
    best = found["a"].best_range(SCHEMES["u8s8"])
    assert -6 < best.low < -2 < 2 < best.high < 6
    assert gradient_histograms(network, {"b": None}, stats, batches) == {}
