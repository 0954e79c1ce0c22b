from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tests import nets
from workbench.quantization.core import engine, fake_quantization
from workbench.quantization.core.engine import CalibratedNetwork
from workbench.quantization.core.placement import OperatorPlacement
from workbench.quantization.core.plan import QuantizationPlan
from workbench.quantization.search import sensitivity
from workbench.quantization.search.output_distance import decibels
from workbench.quantization.search.sensitivity import LayerTrials

Array = NDArray[Any]

COUNT = 40
PLAIN = ("equalization", "importance", "compensation", "reconstruction", "projection")
LAYERS = ("first", "wide", "third", "last")


def network(classes: int = 10) -> onnx.ModelProto:
    """Three convolutions and a Gemm. What `wide` makes has one channel of large values that hardly
    counts afterwards: 8 bits for all of them lose the others.
    """
    weights = {
        "w0": nets.normal(8, 3, 3, 3, seed=1) / 5, "b0": nets.normal(8, seed=2) / 5,
        "w1": nets.normal(8, 8, 3, 3, seed=3) / 8, "b1": nets.normal(8, seed=4) / 5,
        "w2": nets.normal(8, 8, 1, 1, seed=5) / 3, "b2": nets.normal(8, seed=6) / 5,
        "w3": nets.normal(classes, 8, seed=7), "b3": nets.normal(classes, seed=8),
    }  # fmt: skip
    weights["w1"][0] *= 60
    weights["w2"][:, 0] /= 600
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "w0", "b0"], ["c0"], "first", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], "relu0"),
        node("Conv", ["r0", "w1", "b1"], ["c1"], "wide", pads=[1, 1, 1, 1]),
        node("LeakyRelu", ["c1"], ["r1"], "leaky", alpha=0.1),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "third"),
        node("Relu", ["c2"], ["r2"], "relu2"),
        node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["flat"], "flatten"),
        node("Gemm", ["flat", "w3", "b3"], ["logits"], "last", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [value("image", 1, ["n", 3, 12, 12])], [value("logits", 1, ["n", classes])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in
         weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int = COUNT, seed: int = 0) -> Array:
    return nets.normal(count, 3, 12, 12, seed=seed)


def batches(size: int) -> Iterator[dict[str, Array]]:
    data = images()
    for start in range(0, COUNT, size):
        yield {"image": data[start : start + size]}


def prepared(**more: Any) -> tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan]:
    given: Any = {"without": PLAIN, "whole": True} | more
    options = engine.QuantizationOptions(**given)
    ready = engine.calibrate(network(), batches, options)
    placement = ready.place()
    return ready, placement, ready.plan(placement)


@pytest.fixture(scope="module")
def planned() -> tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan]:
    return prepared()


def test_the_layer_whose_tensors_lose_most_costs_most(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, placement, plan = planned
    found = sensitivity.layer_sensitivities(ready, placement, plan, ready.samples)
    assert tuple(one.layer for one in found) == LAYERS
    by_name = {one.layer: one for one in found}
    worst = max(found, key=lambda one: one.alone.noise)
    assert worst.layer == "wide"
    assert worst.share > 0.8
    assert worst.modelled == max(one.modelled for one in found)
    assert sum(one.share for one in found) == pytest.approx(1)
    assert worst.alone.sqnr < by_name["last"].alone.sqnr - 10
    assert worst.alone.kl is not None
    assert worst.alone.kl > by_name["last"].alone.kl  # type: ignore[operator]
    # In float, what it makes is still quantized for `third`: the tensor before the activation is
    # gained, which is not all.
    assert worst.gained == max(one.gained for one in found) > 0.5
    assert (by_name["wide"].op, by_name["wide"].parameters) == ("Conv", 8 * 8 * 9)


def test_what_layers_cost_alone_adds_up_to_what_they_cost_together(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, placement, plan = planned
    found = sensitivity.layer_sensitivities(ready, placement, plan, ready.samples)
    whole = LayerTrials(ready, plan, ready.samples).quantize(placement, plan)
    total = decibels(sum(one.alone.noise for one in found))
    assert total == pytest.approx(whole.sqnr, abs=1.5)


def test_weights_that_mend_what_came_before_are_rounded_anew_for_a_layer_alone() -> None:
    ready, placement, plan = prepared(without=("equalization",))
    assert "compensation" in ready.preset.techniques
    found = sensitivity.layer_sensitivities(ready, placement, plan, ready.samples)
    total = decibels(sum(one.alone.noise for one in found))
    whole = LayerTrials(ready, plan, ready.samples).quantize(placement, plan)
    # What each costs is that of nearest rounding, so that it adds up to a bit more.
    assert whole.sqnr - 4 < total < whole.sqnr + 1


def test_every_quantized_tensor_belongs_to_one_layer(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, placement, _ = planned
    found = sensitivity.tensors_by_layer(ready.network, placement)
    owned = [name for names in found.values() for name in names]
    assert sorted(owned) == sorted(placement.tensors)
    assert found["first"][0] == "image"
    assert set(found["wide"]) == {"c1", "r1"}
    assert found["last"] == ()


def test_a_tensor_that_a_float_layer_makes_belongs_to_the_one_that_takes_it(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, _, _ = planned
    found = sensitivity.tensors_by_layer(ready.network, ready.place(("first",)))
    assert list(found) == ["wide", "third", "last"]
    assert found["wide"][0] == "r0"


def test_mean_errors_are_those_of_the_rounded_weights(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, _, plan = planned
    found = sensitivity.mean_weight_errors(ready.network, plan, ready.samples)
    few = LayerTrials(ready, plan, ready.samples)
    constants = ready.network.constants
    moved = np.array(plan.weights["last"].floats) - constants["w3"].numpy()
    pooled = np.concatenate(
        [ready.network.run(feeds, keep=["flat"])["flat"].numpy() for feeds in ready.samples]
    )
    assert found["last"] == pytest.approx((pooled @ moved.T).mean(0), abs=1e-6)
    # With its bias mended by that, the last layer alone leaves no mean error at all.
    changed = OperatorPlacement(frozenset(("last",)), ())
    biases = {"last": (constants["b3"].numpy() - found["last"]).astype(np.float32)}
    made = fake_quantization.simulate(
        ready.network, ready.samples, changed, QuantizationPlan(weights=plan.weights, biases=biases)
    )
    assert (made[0] - few.expected[0]).mean(0) == pytest.approx(np.zeros(10), abs=1e-5)


def test_a_plan_of_all_layers_serves_fewer_and_writes_a_file_that_runs(
    planned: tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan],
) -> None:
    ready, placement, plan = planned
    fewer = ready.place(("third",))
    limited = sensitivity.restrict_plan(ready, placement, plan, fewer)
    assert set(limited.weights) == {"first", "wide", "last"}
    model = ready.write(fewer, limited)
    data = images(8, seed=5)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"image": data})
    (expected,) = nets_outputs(network(), data)
    assert 10 * np.log10((expected**2).mean() / ((found - expected) ** 2).mean()) > 10
    kept = {one.name: one for one in model.graph.initializer}
    assert numpy_helper.to_array(kept["w2"]).dtype == np.float32  # not on a grid


def nets_outputs(model: onnx.ModelProto, data: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[Array] = session.run(None, {"image": data})
    return found
