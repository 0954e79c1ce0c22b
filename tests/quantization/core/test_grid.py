from __future__ import annotations

import numpy as np
import pytest
import torch

from workbench.quantization.core.grid import quantized
from workbench.quantization.core.plan import SCHEMES, Range


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


def test_what_leaves_the_range_is_clipped_and_zero_is_exact() -> None:
    x = torch.tensor([-9.0, 0.0, 9.0])
    for how in SCHEMES.values():
        low, zero, high = quantized(x, Range(-2, 3), how).tolist()
        assert zero == 0
        assert high == pytest.approx(3, abs=0.02)
        assert low == pytest.approx(-3 if how.symmetric else -2, abs=0.02)
