"""Values on grids, and networks simulated with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.quantization.search.test_sensitivity import LAYERS, images, prepared
from workbench.quantization.core import fake_quantization
from workbench.quantization.core.fake_quantization import fake_quantize
from workbench.quantization.core.plan import SCHEMES, ActivationRange
from workbench.quantization.prepare.graph_runs import run_graph


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ends", [(-1.3, 2.0), (0, 6), (-3, 0), (-1e-4, 2e-4), (-1e6, 3e6)])
def test_the_grid_is_onnx_runtimes(scheme: str, ends: tuple[float, float]) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    found, how = ActivationRange(*ends), SCHEMES[scheme]
    scale, zero = found.grid(how)
    point = np.array(zero - 128, np.int8) if how.signed else np.array(zero, np.uint8)
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
         helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [numpy_helper.from_array(np.asarray(scale), "s"), numpy_helper.from_array(point, "z")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.linspace(ends[0] * 0.99, ends[1] * 0.99, 1003, dtype=np.float32)
    made = fake_quantize(torch.from_numpy(x), found, how).numpy()
    wanted = session.run(None, {"x": x})[0]
    # A value half-way between two points may go to either: the division rounds differently.
    assert np.abs(made - wanted).max() < 1.01 * scale
    assert (np.abs(made - wanted) > 0.01 * scale).mean() < 0.01


def test_what_leaves_the_range_is_clipped_and_zero_is_exact() -> None:
    x = torch.tensor([-9.0, 0.0, 9.0])
    for how in SCHEMES.values():
        low, zero, high = fake_quantize(x, ActivationRange(-2, 3), how).tolist()
        assert zero == 0
        assert high == pytest.approx(3, abs=0.02)
        assert low == pytest.approx(-3 if how.symmetric else -2, abs=0.02)


@pytest.mark.parametrize("scheme", ["u8s8", "u8s8-reduced", "s8s8"])
@pytest.mark.parametrize("floats", [(), ("first",), ("first", "wide"), ("third",)])
def test_it_gives_what_the_file_gives(floats: tuple[str, ...], scheme: str) -> None:
    ready, _, _ = prepared(scheme=scheme)
    placement = ready.place(floats)
    plan = fake_quantization.min_max_plan(ready.network, placement, ready.stats, SCHEMES[scheme])
    (simulated,) = fake_quantization.simulate(ready.network, ready.samples, placement, plan)
    feeds = [{"image": images()}]
    (written,) = run_graph(ready.write(placement, plan), feeds, ["logits"])[0]
    (floating,) = fake_quantization.simulate(ready.network, ready.samples)
    lost = fake_quantization.output_sqnr([floating], [written])
    assert lost < 50  # so that the next line says something
    # Ties are rounded apart by the two now and then: far below what quantization loses.
    assert fake_quantization.output_sqnr([written], [simulated]) > lost + 10


def test_without_a_plan_it_is_the_float_network() -> None:
    ready, _, _ = prepared()
    (found,) = fake_quantization.simulate(ready.network, ready.samples)
    (expected,) = run_graph(ready.network.model, [{"image": images()}], ["logits"])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape == (40, 10)


def test_sqnr_is_in_decibels_over_all_float_outputs() -> None:
    one, two = np.ones((4, 3), np.float32), np.full((4, 2), 100, np.float32)
    assert fake_quantization.output_sqnr([one], [one * 1.1]) == pytest.approx(20, abs=1e-4)
    assert fake_quantization.output_sqnr([one, two], [one, two * 1.1]) == pytest.approx(
        23.01, abs=0.01
    )
    assert fake_quantization.output_sqnr([one], [one * np.nan]) == float("-inf")
    labels = np.arange(4)
    assert fake_quantization.output_sqnr([one, labels], [one * 1.1, labels + 1]) == pytest.approx(
        20, abs=1e-4
    )


def test_a_plain_plan_is_min_max_and_rounds_to_the_nearest() -> None:
    ready, placement, _ = prepared()
    plan = fake_quantization.min_max_plan(ready.network, placement, ready.stats, SCHEMES["u8s8"])
    assert set(plan.weights) == set(LAYERS)
    assert not plan.biases
    data = images()
    assert plan.ranges["image"].low == pytest.approx(float(data.min()))
    assert plan.ranges["image"].high == pytest.approx(float(data.max()))
    weight = plan.weights["wide"]
    original = ready.network.constants["w1"].numpy()
    assert np.abs(weight.floats - original).max() <= weight.scales.max() / 2 * 1.001
