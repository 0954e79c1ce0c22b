"""Hard-swish and hard-sigmoid written out: the same function, and grids for what is between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tests import nets
from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph
from workbench.tflite.hard_activations import FULL, hard_products, is_hard

GIVEN, GATE, RESULT = (
    ActivationGrid(0.06, 10),
    ActivationGrid(1 / 255, -128),
    ActivationGrid(0.03, -100),
)


def model_of(*nodes: onnx.NodeProto, outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 64]) for one in outputs]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    return helper.make_model(
        helper.make_graph(list(nodes), "test", [given], infos),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip


def sigmoid(output: str, alpha: float = 1 / 6, **more: Any) -> onnx.NodeProto:
    return helper.make_node("HardSigmoid", ["x"], [output], alpha=alpha, **more)


def run(model: onnx.ModelProto, array: NDArray[Any]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, {"x": array}))


SWISH = model_of(helper.make_node("HardSwish", ["x"], ["y"]))
PRODUCT = model_of(sigmoid("s"), helper.make_node("Mul", ["s", "x"], ["y"]))
ALONE = model_of(sigmoid("y"))
BOTH = model_of(sigmoid("s"), helper.make_node("Mul", ["x", "s"], ["y"]), outputs=("y", "s"))


@pytest.mark.parametrize("model", [SWISH, PRODUCT, ALONE, BOTH])
def test_the_function_stays(model: onnx.ModelProto) -> None:
    made = hard_products(StrippedGraph(model, {}, {})).model
    onnx.checker.check_model(made, full_check=True)
    some = 4 * nets.normal(1, 64)
    for wanted, found in zip(run(model, some), run(made, some), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert is_hard(model)
    assert not is_hard(made)
    assert not {"HardSwish", "HardSigmoid"} & {node.op_type for node in made.graph.node}


@pytest.mark.parametrize(
    ("model", "wanted"), [(SWISH, FULL), (PRODUCT, ActivationGrid(6 / 255, -128))]
)
def test_a_swish_has_grids_for_its_parts(model: onnx.ModelProto, wanted: ActivationGrid) -> None:
    grids = {"x": GIVEN, "y": RESULT, **({"s": GATE} if model is PRODUCT else {})}
    found = hard_products(StrippedGraph(model, grids, {})).grids
    assert found["y_sixth"] == ActivationGrid(0.06 / 6, 10)  # the integers of x
    assert found["y_relu6"].zero == wanted.zero
    assert found["y_relu6"].scale == pytest.approx(wanted.scale)
    assert (found["x"], found["y"]) == (GIVEN, RESULT)
    assert grids.keys() <= {"x", "y", "s"}


def test_what_is_left_float_stays_so() -> None:
    for model in (SWISH, PRODUCT):
        found = hard_products(StrippedGraph(model, {"x": GIVEN}, {}))
        assert found.grids == {"x": GIVEN}
        assert [node.op_type for node in found.model.graph.node] == ["HardSwish"]
    alone = hard_products(StrippedGraph(ALONE, {"x": GIVEN}, {})).model
    assert [node.op_type for node in alone.graph.node] == ["HardSigmoid"]


def test_a_gate_that_others_take_too_is_written_out_once_for_them() -> None:
    made = hard_products(StrippedGraph(BOTH, {"x": GIVEN, "s": GATE, "y": RESULT}, {}))
    assert made.grids["s_relu6"] == ActivationGrid(pytest.approx(6 / 255), -128)  # type: ignore[arg-type]
    assert [node.op_type for node in made.model.graph.node].count("Clip") == 1


@pytest.mark.parametrize(
    "node", [sigmoid("y", 0.2), sigmoid("y", beta=0.4), helper.make_node("Relu", ["x"], ["y"])]
)
def test_other_slopes_stay(node: onnx.NodeProto) -> None:
    model = model_of(node)
    assert not is_hard(model)
    found = hard_products(StrippedGraph(model, {}, {})).model
    assert [one.op_type for one in found.graph.node] == [node.op_type]
