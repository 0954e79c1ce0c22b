from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.quantization.core.test_equalization import net
from tests.quantization.prepare.graphs import kinds
from tests.quantization.random_nets import Net, decibels, in_batches, random_net, run_all
from workbench.quantization.core import engine, fake_quantization
from workbench.quantization.core.plan import SCHEMES, ActivationRange, QuantizationPlan


def made(given: Net, **options: Any) -> engine.QuantizationResult:
    feeds = given.samples(32, 0)
    return engine.quantize(
        given.model(), in_batches(feeds, given.fixed), engine.QuantizationOptions("fast", **options)
    )


def with_range(plan: QuantizationPlan, name: str, changed: ActivationRange) -> QuantizationPlan:
    return replace(plan, ranges={**plan.ranges, name: changed})


def simulated(found: engine.QuantizationResult, feeds: dict[str, Any]) -> list[Any]:
    samples = [{name: torch.from_numpy(value) for name, value in feeds.items()}]
    ready = found.calibrated
    return fake_quantization.simulate(ready.network, samples, found.placement, found.plan)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_loads_and_agrees(scheme: str) -> None:
    given = random_net(1)
    found = made(given, scheme=scheme)
    onnx.checker.check_model(found.model, full_check=True)
    held = given.samples(32, 1)
    wanted = run_all(given.model(), held)
    assert decibels(wanted, run_all(found.model, held)) > 22
    weights = {one.name: numpy_helper.to_array(one) for one in found.model.graph.initializer}
    how = SCHEMES[scheme]
    for one in found.model.graph.node:
        if one.op_type == "QuantizeLinear":
            zero = weights[one.input[2]]
            assert zero.dtype == (np.int8 if how.signed else np.uint8)
            assert not how.symmetric or zero == 0
        if one.op_type == "Conv":
            integers = weights[one.input[1].replace("_dq8", "_q8")]
            assert integers.dtype == np.int8
            assert np.abs(integers.astype(int)).max() <= how.weight_max


def test_signed_and_unsigned_files_are_the_same_but_for_rounding() -> None:
    given = random_net(1)
    held = given.samples(16, 1)
    one, other = (run_all(made(given, scheme=name).model, held, optimized=False)
                  for name in ("u8s8", "s8s8"))  # fmt: skip
    assert decibels(one, other) > 80


@pytest.mark.parametrize(
    ("seed", "runtime"), itertools.product((2, 6, 8, 9, 13, 21), ("ort", "tflite"))
)
def test_the_file_computes_what_the_simulation_says(seed: int, runtime: Any) -> None:
    given = random_net(seed)
    found = made(given, runtime=runtime)
    held = given.samples(16, 1)
    wanted = run_all(given.model(), held)
    written = run_all(found.model, held, optimized=False)
    noise = decibels(wanted, written)
    # What lies half-way between two points may go to either: below the noise of quantization.
    assert decibels(simulated(found, held), written) > noise + 3


def test_a_relu_is_dropped_where_the_zero_point_is_0_alone() -> None:
    given = net(lambda n, x: n.node("Relu", x))
    for scheme, dropped in (("u8s8", True), ("s8s8", True), ("s8s8-symmetric", False)):
        assert ("Relu" not in kinds(made(given, scheme=scheme).model)) == dropped
    found = made(given)
    name = next(one for one in found.placement.fused.values())
    plan = with_range(found.plan, name, ActivationRange(-1, 3))
    model = found.calibrated.write(found.placement, plan)
    assert "Relu" in kinds(model)


def test_a_clip_is_dropped_where_the_range_ends_below_6_alone() -> None:
    given = net(lambda n, x: n.activation(x, "Clip"))
    found = made(given)
    name = next(iter(found.placement.fused.values()))
    for high, dropped in ((5.0, True), (6.0, True), (7.0, False)):
        plan = with_range(found.plan, name, ActivationRange(0, high))
        model = found.calibrated.write(found.placement, plan)
        assert ("Clip" not in kinds(model)) == dropped
        onnx.checker.check_model(model, full_check=True)
        assert run_all(model, given.samples(2, 0))


def test_tied_tensors_have_their_roots_parameters() -> None:
    given = net(lambda n, x: n.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    found = made(given)
    assert found.placement.ties
    pairs = {one.input[0]: tuple(one.input[1:]) for one in found.model.graph.node
             if one.op_type == "QuantizeLinear"}  # fmt: skip
    for name in found.placement.ties:
        assert pairs[name] == pairs[found.placement.root(name)]


def test_nodes_left_float_keep_their_weights() -> None:
    given = net(lambda n, x: n.node("Relu", x), lambda n, x: n.conv(x, 4, 4))
    first = next(one.name for one in given.nodes if one.op_type == "Conv")
    found = made(given, floats=frozenset({first}))
    node = next(one for one in found.model.graph.node if one.name == first)
    weights = {one.name: numpy_helper.to_array(one) for one in found.model.graph.initializer}
    assert weights[node.input[1]].dtype == np.float32
    assert node.input[0] == "x"
    everything = frozenset(one.name for one in found.calibrated.network.nodes)
    left = made(given, floats=everything)
    assert "QuantizeLinear" not in kinds(left.model)
    held = given.samples(8, 1)
    assert decibels(run_all(given.model(), held), run_all(left.model, held)) > 100


def test_biases_are_int32_with_the_scale_of_input_times_weights() -> None:
    found = made(net())
    weights = {one.name: numpy_helper.to_array(one) for one in found.model.graph.initializer}
    convs = [one for one in found.model.graph.node if one.op_type == "Conv"]
    assert len(convs) == 2
    for one in convs:
        x, w, b = (name.removesuffix("_dq8") for name in one.input)
        assert weights[f"{b}_q8"].dtype == np.int32
        wanted = weights[f"{x}_scale"] * weights[f"{w}_scale"]
        np.testing.assert_allclose(weights[f"{b}_scale"], wanted, rtol=1e-6)


def test_dead_channels_with_great_biases_stay_dead_in_fused_kernels() -> None:
    """A bias beyond int32 made the kernel's sum wrap around: the channel came out at its top."""
    given = Net(0)
    x = given.input("x", 3, 8, 8)
    weights = (
        given.rng.normal(size=(4, 3, 3, 3)) * np.array([1e-3, 1e-6, 1, 0])[:, None, None, None]
    )
    y = given.node("Conv", x, given.constant(weights), given.constant([-1e4, -1e4, 0.5, 0.7]),
                   kernel_shape=[3, 3])  # fmt: skip
    given.outputs.append(given.conv(given.node("Relu", y), 4, 2, 1))
    for runtime in ("ort", "tflite"):
        found = made(given, runtime=runtime)
        held = given.samples(16, 1)
        wanted = run_all(given.model(), held)
        assert decibels(wanted, run_all(found.model, held)) > 30
