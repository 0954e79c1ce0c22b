"""A head is taken off before quantization and put on again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from workbench.quantization.prepare import classifier_head


def model(operator: str, name: str, **attributes: int) -> onnx.ModelProto:
    kind = TensorProto.INT64 if operator == "ArgMax" else TensorProto.FLOAT
    shape = ["batch"] if operator == "ArgMax" else ["batch", 3]
    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["logits"], "relu"),
            helper.make_node(operator, ["logits"], ["y"], name, axis=1, **attributes),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("operator", "attributes"), [("Softmax", {}), ("ArgMax", {"keepdims": 0})])
def test_it_comes_off_and_goes_on_again(operator: str, attributes: dict[str, int]) -> None:
    import onnxruntime

    whole = model(operator, "baked/y/head", **attributes)
    before = whole.SerializeToString()
    bare, head = classifier_head.detach_head(whole)
    onnx.checker.check_model(bare, full_check=True)
    assert whole.SerializeToString() == before
    assert [node.op_type for node in bare.graph.node] == ["Relu"]
    session = onnxruntime.InferenceSession(bare.SerializeToString())
    x = np.array([[-1, 2, 3], [5, 4, -6]], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
    assert classifier_head.attach_head(bare, head, whole).SerializeToString() == before


def test_what_is_the_users_own_stays() -> None:
    whole = model("Softmax", "softmax")
    bare, head = classifier_head.detach_head(whole)
    assert bare is whole and head is None
    assert classifier_head.attach_head(bare, head, whole) is whole
