from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench import graph
from workbench.artifact import TensorSpec


def model(**opsets: int) -> onnx.ModelProto:
    """x[batch, 3, ?] → Relu → Add w → y[2, 3, ?]; the weight is listed as an input too."""
    made = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Add", ["r", "w"], ["s"]),
            helper.make_node("Relu", ["s"], ["y"]),
        ],
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["batch", 3, None]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT16, [3, 1]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 128]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2, 3, None])],
        [numpy_helper.from_array(np.ones((3, 1), np.float16), "w")],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(made, opset_imports=imports)


@pytest.mark.parametrize(
    ("opsets", "wanted"),
    [({"": 17}, 17), ({"ai.onnx": 13}, 13), ({"com.microsoft": 1, "": 15}, 15),
     ({"com.microsoft": 1}, 0)],
)  # fmt: skip
def test_the_opset_is_that_of_the_default_domain(opsets: dict[str, int], wanted: int) -> None:
    assert graph.opset(model(**opsets)) == wanted


def test_operators_are_counted() -> None:
    assert graph.operators(model()) == {"Relu": 2, "Add": 1}
    assert graph.operators(model())["Conv"] == 0


def test_the_signature_leaves_weights_out_and_open_axes_open() -> None:
    inputs, outputs = graph.signature(model())
    assert inputs == (
        TensorSpec(name="x", dtype="float16", shape=(None, 3, None)),
        TensorSpec(name="ids", dtype="int64", shape=(1, 128)),
    )
    assert outputs == (TensorSpec(name="y", dtype="float16", shape=(2, 3, None)),)


def test_a_scalar_has_no_axes() -> None:
    made = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "sum",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    _, (output,) = graph.signature(helper.make_model(made))
    assert output.shape == ()


def test_the_files_of_a_model_are_itself_and_those_that_hold_its_tensors(tmp_path):
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4])
    net = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight]
    )
    model = helper.make_model(net)
    whole, apart = tmp_path / "whole.onnx", tmp_path / "apart.onnx"
    onnx.save(model, whole)
    onnx.save(model, apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    assert graph.files(whole) == [whole]
    assert graph.files(apart) == [apart, tmp_path / "apart.data"]
    (tmp_path / "garbage.onnx").write_bytes(b"location" * 9)
    assert graph.files(tmp_path / "garbage.onnx") == [tmp_path / "garbage.onnx"]
