from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.quantization.clipping import POWER, quantized, searched
from workbench.quantization.plan import SCHEMES, Range


def values(seed: int = 0, count: int = 4000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, count).astype(np.float32))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("ends", [(-1.3, 2.0), (0, 6), (-3, 0), (-1e-4, 2e-4), (-1e6, 3e6)])
def test_the_grid_is_onnx_runtimes(scheme: str, ends: tuple[float, float]) -> None:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    found, how = Range(*ends), SCHEMES[scheme]
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
    made = quantized(torch.from_numpy(x), found, how).numpy()
    wanted = session.run(None, {"x": x})[0]
    # A value half-way between two points may go to either: the division rounds differently.
    assert np.abs(made - wanted).max() < 1.01 * scale
    assert (np.abs(made - wanted) > 0.01 * scale).mean() < 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("after", [None, torch.sigmoid, torch.relu])
def test_searched_is_never_worse_than_min_max_in_its_own_measure(scheme, after) -> None:
    x, how = values(), SCHEMES[scheme]
    weights = torch.rand(len(x), generator=torch.Generator().manual_seed(0))
    ends = float(x.min()), float(x.max())

    def loss(found: Range) -> float:
        made, aim = quantized(x, found, how), x
        if after is not None:
            made, aim = after(made), after(aim)
        return float((weights * (made - aim).abs().pow(POWER)).mean())

    found = searched(x, x, weights, ends, how, after)
    assert loss(found) <= loss(Range(*ends)) * (1 + 1e-6)
    if after is not None and not how.symmetric:
        assert loss(found) < loss(Range(*ends)) * 0.5


def test_what_a_relu_clips_needs_no_points() -> None:
    x = values(1)
    found = searched(x, x, torch.ones(len(x)), (float(x.min()), float(x.max())), SCHEMES["u8s8"],
                     torch.relu)  # fmt: skip
    assert -found.low < 0.15 * -float(x.min())


def test_constants_and_zeros_get_a_range() -> None:
    zeros = torch.zeros(10)
    for value in (0.0, 3.0, -2.0):
        x = zeros + value
        found = searched(x, x, zeros + 1, (value, value), SCHEMES["u8s8"])
        made = quantized(x, found, SCHEMES["u8s8"])
        np.testing.assert_allclose(made.numpy(), value, rtol=1e-2, atol=1e-6)


def test_channels_that_do_not_count_may_be_clipped() -> None:
    x = torch.cat([values(2).clamp(-1, 1), 100 * values(3).clamp(-1, 1)])
    ends = float(x.min()), float(x.max())
    only = torch.cat([torch.ones(4000), torch.zeros(4000)])
    found = searched(x, x, only, ends, SCHEMES["u8s8"])
    assert found.high < 20
    assert searched(x, x, 1 - only, ends, SCHEMES["u8s8"]).high > 50
