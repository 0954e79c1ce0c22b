"""A QDQ graph taken apart: small graphs written by hand, and one that onnxruntime quantized."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.errors import StepError
from workbench.quantization.core.qdq_reader import ActivationGrid, is_quantized, strip_qdq

Array = NDArray[Any]


def pair(name: str, scale: float, zero: Any) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """A tensor's pair; who is to take it quantized takes `<name>_d`."""
    numbers = [f"{name}_scale", f"{name}_zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [name, *numbers], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", *numbers], [f"{name}_d"]),
    ]
    return nodes, {numbers[0]: np.array(scale, np.float32), numbers[1]: np.asarray(zero)}


def graph(
    nodes: Sequence[onnx.NodeProto], weights: dict[str, Array], outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    """A model of `x` [batch, 4]."""
    infos = [
        helper.make_tensor_value_info(one, TensorProto.FLOAT, ["batch", None]) for one in outputs
    ]
    made = helper.make_graph(
        list(nodes), "test", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        infos, [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto, array: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {session.get_inputs()[0].name: array}))


def linear(
    scale: float, zero: Any, outputs: Sequence[str] = ("y",), more: Sequence[onnx.NodeProto] = ()
) -> onnx.ModelProto:
    """x, quantized, times INT8 weights plus bias, is t, whose pair has `scale` and `zero`."""
    given, numbers = pair("x", 0.02, np.uint8(128))
    made, others = pair("t", scale, zero)
    steps = np.array([0.01, 0.02, 0.03], np.float32)
    weights = {
        **numbers, **others, "steps": steps,
        "w": np.arange(-6, 6, dtype=np.int8).reshape(3, 4) * 10,
        "b": np.array([100, -200, 300], np.int32), "bias_steps": steps * np.float32(0.02),
        "none": np.zeros(3, np.int8), "nil": np.zeros(3, np.int32),
    }  # fmt: skip
    nodes = [
        *given,
        helper.make_node("DequantizeLinear", ["w", "steps", "none"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bias_steps", "nil"], ["bd"], axis=0),
        helper.make_node("Gemm", ["x_d", "wd", "bd"], ["t"], "product", transB=1),
        *made,
        helper.make_node("Identity", ["t_d"], ["y"]),
        *more,
    ]
    return graph(nodes, weights, outputs)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(
    ("zero", "signed"), [(np.uint8(100), -28), (np.int8(-28), -28), (np.uint8(255), 127)]
)
def test_grids_and_weights_are_the_files_own(zero: Any, signed: int) -> None:
    model = linear(0.05, zero)
    before = model.SerializeToString()
    found = strip_qdq(model)
    assert found.grids["x"] == ActivationGrid(float(np.float32(0.02)), 0)
    assert found.grids["t"] == ActivationGrid(float(np.float32(0.05)), signed)
    assert found.restored == 0
    assert kinds(found.model) == ["Gemm", "Identity"]
    weight = found.weights["product"]
    assert (weight.integers == np.arange(-6, 6).reshape(3, 4) * 10).all()
    assert weight.axis == 0
    np.testing.assert_array_equal(weight.scales, np.array([0.01, 0.02, 0.03], np.float32))
    assert model.SerializeToString() == before


def test_the_float_graph_has_weights_and_bias_on_their_grid() -> None:
    model = linear(0.05, np.uint8(128))
    some = np.clip(nets.normal(32, 4), -2, 2)
    (wanted,), (found,) = run(model, some), run(strip_qdq(model).model, some)
    assert nets.decibels(wanted, found) > 30
    on_grid = np.round(some / np.float32(0.02)) * np.float32(0.02)
    (exact,) = run(strip_qdq(model).model, on_grid)
    # Nothing is left to differ but the rounding of t itself.
    assert np.abs(np.clip(exact, -0.05 * 128, 0.05 * 127) - run(model, on_grid)[0]).max() < 0.0251


@pytest.mark.parametrize(
    ("scale", "kind"), [(0.01, "Relu"), (6 / 255, "Clip"), (5.99 / 255, "Clip"), (0.05, "Relu")]
)
def test_a_relu_that_the_zero_point_stands_for_comes_back(scale: float, kind: str) -> None:
    found = strip_qdq(linear(scale, np.uint8(0)))
    assert kinds(found.model) == ["Gemm", kind, "Identity"]
    assert found.restored == 1
    relu = found.model.graph.node[1]
    assert relu.output[0] in found.grids
    some = nets.normal(16, 4)
    (wanted,), (clipped,) = run(linear(scale, np.uint8(0)), some), run(found.model, some)
    assert (clipped >= 0).all()
    inside = clipped < 255 * scale
    assert np.abs(wanted - clipped)[inside].max() < 3 * 0.05
    assert (clipped == 0).any()


def test_who_takes_the_tensor_unquantized_takes_it_unclipped() -> None:
    more = [helper.make_node("Neg", ["t"], ["z"])]
    model = linear(0.05, np.uint8(0), ("y", "z", "t"), more)
    found = strip_qdq(model)
    some = nets.normal(16, 4)
    for wanted, made in zip(run(model, some), run(found.model, some), strict=True):
        assert nets.decibels(wanted, made) > 25
    assert (run(found.model, some)[2] < 0).any()
    assert set(found.grids) >= {"x", "t_clipped"}


def test_no_relu_behind_what_is_never_negative() -> None:
    given, numbers = pair("x", 0.02, np.uint8(128))
    nodes, weights = [*given], dict(numbers)
    for op, taken, name in (("Sigmoid", ["x_d"], "s"), ("Mul", ["s_d", "s_d"], "m")):
        made, others = pair(name, 1 / 255, np.uint8(0))
        nodes += [helper.make_node(op, taken, [name]), *made]
        weights |= others
    found = strip_qdq(graph([*nodes, helper.make_node("Identity", ["m_d"], ["y"])], weights))
    assert found.restored == 0
    assert kinds(found.model) == ["Sigmoid", "Mul", "Identity"]


def test_the_networks_output_keeps_its_name_behind_a_pair() -> None:
    model = linear(0.05, np.uint8(128), ("t_d",))
    found = strip_qdq(model)
    assert [one.name for one in found.model.graph.output] == ["t_d"]
    some = nets.normal(8, 4)
    assert nets.decibels(run(model, some)[0], run(found.model, some)[0]) > 30
    assert found.grids["t_d"] == found.grids["t"]


def test_constants_that_are_quantized_on_the_way_are_folded() -> None:
    given, numbers = pair("x", 0.02, np.uint8(128))
    made, others = pair("c", 0.5, np.uint8(10))
    nodes = [*given, *made, helper.make_node("Add", ["x_d", "c_d"], ["y"])]
    weights = {**numbers, **others, "c": np.array([0.7, -0.2, 3.1, 900], np.float32)}
    found = strip_qdq(graph(nodes, weights))
    assert kinds(found.model) == ["Add"]
    assert "c" not in found.grids
    zeros = np.zeros((1, 4), np.float32)
    np.testing.assert_allclose(run(found.model, zeros)[0], [[0.5, 0, 3, 122.5]])


def test_a_float_graph_stays_as_it_is() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])], {})
    found = strip_qdq(model)
    assert not is_quantized(model)
    assert is_quantized(linear(1.0, np.uint8(0)))
    assert (kinds(found.model), found.grids, found.weights) == (["Relu"], {}, {})
    assert found.tensors == ["x", "y"]


@pytest.mark.parametrize(
    ("zero", "said"), [(np.uint8([1, 2, 3]), "3 scales"), (np.uint8([[1]]), "")]
)
def test_one_scale_is_taken_for_an_activation(zero: Array, said: str) -> None:
    made, numbers = pair("x", 1.0, zero)
    numbers["x_scale"] = np.ones(zero.shape, np.float32)
    model = graph(
        [*made, helper.make_node("Identity", ["x_d"], ["y"])],
        {name: array.reshape(-1) for name, array in numbers.items()},
    )
    if not said:
        assert strip_qdq(model).grids["x"] == ActivationGrid(1.0, -127)
        return
    with pytest.raises(StepError, match=said):
        strip_qdq(model)


def test_what_computes_on_integers_is_refused_by_name() -> None:
    made, numbers = pair("x", 1.0, np.uint8(0))
    between = helper.make_node("Reshape", ["x_q", "shape"], ["flat"], "reshaper")
    made[1].input[0] = "flat"
    shape = {"shape": np.array([4, -1], np.int64)}
    model = graph(
        [made[0], between, made[1], helper.make_node("Identity", ["x_d"], ["y"])],
        {**numbers, **shape},
    )
    with pytest.raises(StepError, match=r"flat|reshaper"):
        strip_qdq(model)


def test_a_file_that_onnxruntime_quantized(tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"image": nets.normal(12, 3, 24, 40)}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    data = nets.images(12, 24, 40)
    source = nets.exported(tmp_path / "float", nets.build(), data)
    path = tmp_path / "int8.onnx"
    quantize_static(
        source.path, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )  # fmt: skip
    found = strip_qdq(onnx.load(path))
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(found.model))
    assert found.restored == 3  # ReLU6 twice, ReLU
    assert len(found.weights) == 4
    some = nets.normal(8, 3, 24, 40)
    wanted, stripped = nets.run_onnx(path, some)[0], run(found.model, some)[0]
    assert nets.decibels(wanted, stripped) > nets.decibels(
        wanted, nets.run_onnx(source.path, some)[0]
    )
