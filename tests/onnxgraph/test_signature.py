from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench.artifact import Pixels, TensorSpec
from workbench.onnxgraph import rewrites, signature


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
    assert signature.opset(model(**opsets)) == wanted


def test_operators_are_counted() -> None:
    assert signature.operators(model()) == {"Relu": 2, "Add": 1}
    assert signature.operators(model())["Conv"] == 0


def test_the_signature_leaves_weights_out_and_open_axes_open() -> None:
    inputs, outputs = signature.signature(model())
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
    _, (output,) = signature.signature(helper.make_model(made))
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
    assert signature.files(whole) == [whole]
    assert signature.files(apart) == [apart, tmp_path / "apart.data"]
    (tmp_path / "garbage.onnx").write_bytes(b"location" * 9)
    assert signature.files(tmp_path / "garbage.onnx") == [tmp_path / "garbage.onnx"]


def baked() -> onnx.ModelProto:
    """image uint8 [2, 4, 5, 3] → Shape → y int64 [2]; mask [2, 4] → Cast → c."""
    made = helper.make_graph(
        [helper.make_node("Cast", ["mask"], ["c"], to=TensorProto.INT64),
         helper.make_node("Shape", ["image"], ["y"], end=2)],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [2, 4, 5, 3]),
         helper.make_tensor_value_info("mask", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2]),
         helper.make_tensor_value_info("c", TensorProto.INT64, [2, 4])],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_a_signature_carries_over_what_was_baked_and_takes_the_files_sizes() -> None:
    pixels = Pixels(factor=(1.0,), offset=(0.0,))
    image = TensorSpec(
        name="image", dtype="float32", shape=(None, 3, 4, 5), permutation=(0, 2, 3, 1),
        pixels=pixels,
    )  # fmt: skip
    classes = TensorSpec(name="y", dtype="float32", shape=(None, 10), head="argmax")
    plain = TensorSpec(name="mask", dtype="float16", shape=(None, 9))
    inputs, outputs = signature.signature(baked(), (image, plain, classes))
    assert inputs[0] == TensorSpec(
        name="image", dtype="float32", shape=(2, 3, 4, 5), permutation=(0, 2, 3, 1), pixels=pixels
    )
    assert inputs[1] == TensorSpec(name="mask", dtype="float32", shape=(2, 4))
    assert outputs[0] == TensorSpec(name="y", dtype="float32", shape=(2, 10), head="argmax")
    assert outputs[1] == TensorSpec(name="c", dtype="int64", shape=(2, 4))


def test_a_tensor_is_renamed_in_subgraphs_too() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])],
    )
    given = helper.make_graph(
        [], "given", [], [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    )
    made = helper.make_graph(
        [helper.make_node("If", ["q"], ["y"], then_branch=branch, else_branch=given),
         helper.make_node("Add", ["x", "y"], ["x2"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [],
    )  # fmt: skip
    rewrites.rename_tensors(made, {"x": "z"})
    assert list(made.node[1].input) == ["z", "y"]
    inner = {one.name: one.g for one in made.node[0].attribute}
    assert list(inner["then_branch"].node[0].input) == ["z"]
    assert inner["else_branch"].output[0].name == "z"
    assert made.input[0].name == "x"


def test_baked_pixels_get_their_channels_in_front() -> None:
    pixels = Pixels(factor=(1.0,), offset=(0.0,))
    image = TensorSpec(name="image", dtype="float32", shape=(2, 3, 4, 5), pixels=pixels)
    mask = TensorSpec(name="mask", dtype="float32", shape=(2, 4))
    model = baked()
    signature.channels_first(model, (image, mask))
    onnx.checker.check_model(model, full_check=True)
    inputs, _ = signature.signature(model)
    assert inputs == (
        TensorSpec(name="image", dtype="uint8", shape=(2, 3, 4, 5)),
        TensorSpec(name="mask", dtype="float32", shape=(2, 4)),
    )
    first = model.graph.node[0]
    assert (first.op_type, first.input[0]) == ("Transpose", "image")
    assert list(first.attribute[0].ints) == [0, 2, 3, 1]
    assert model.graph.node[2].input[0] == first.output[0]
