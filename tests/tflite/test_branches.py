from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.errors import StepError
from workbench.onnxgraph.session import run_samples
from workbench.tflite.branches import both_branches

REAL = TensorProto.FLOAT
SAMPLES = {"x": nets.normal(12, 6)}


def graph(name: str, nodes: list[onnx.NodeProto], *results: str) -> onnx.GraphProto:
    made = [helper.make_tensor_value_info(one, REAL, None) for one in results]
    constants = [numpy_helper.from_array(nets.normal(6, 6, seed=7), "own")]
    used = any("own" in node.input for node in nodes)
    return helper.make_graph(nodes, name, [], made, constants if used else [])


def model(*nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 6)) -> onnx.ModelProto:
    """`x` [1, 6] to `y`; `positive` says whether its sum is, `outer` is a weight."""
    summed = helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)
    asked = helper.make_node("Greater", ["sum", "zero"], ["positive"])
    weights = [
        numpy_helper.from_array(nets.normal(6, 6, seed=8), "outer"),
        numpy_helper.from_array(np.array(0, np.float32), "zero"),
    ]
    made = helper.make_graph(
        [summed, asked, *nodes], "main", [helper.make_tensor_value_info("x", REAL, (1, 6))],
        [helper.make_tensor_value_info("y", REAL, shape)], weights,
    )  # fmt: skip
    found = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(found)
    return found


def condition(then: onnx.GraphProto, other: onnx.GraphProto, made: str = "y") -> onnx.NodeProto:
    return helper.make_node(
        "If", ["positive"], [made], "choice", then_branch=then, else_branch=other
    )


def matmul(weight: str, name: str = "product") -> onnx.GraphProto:
    return graph(f"by {weight}", [helper.make_node("MatMul", ["x", weight], [name])], name)


def nested() -> onnx.ModelProto:
    inner = condition(matmul("outer"), matmul("own"), "chosen")
    doubled = helper.make_node("Add", ["chosen", "x"], ["result"])
    return model(condition(matmul("own"), graph("inner", [inner, doubled], "result")))


CASES = {
    "weights within and outside, under equal names": lambda: model(
        condition(matmul("outer"), matmul("own"))
    ),
    "one inside the other": nested,
    "a branch that gives what it is given": lambda: model(
        condition(
            graph("same", [helper.make_node("Identity", ["x"], ["same"])], "same"), matmul("own")
        )
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_that_of_the_branch_taken(case: str) -> None:
    given = CASES[case]()
    wanted = run_samples(given, SAMPLES)[0]
    made, note = both_branches(given, SAMPLES)
    onnx.checker.check_model(made, full_check=True)
    assert not any(node.op_type == "If" for node in made.graph.node)
    np.testing.assert_array_equal(run_samples(made, SAMPLES)[0], wanted)
    assert (SAMPLES["x"].sum(1) > 0).any()  # both ways were gone
    assert (SAMPLES["x"].sum(1) < 0).any()
    assert note == f"both branches of {2 if 'other' in case else 1} If computed, one result taken"


def test_branches_of_two_shapes_are_refused() -> None:
    total = helper.make_node("ReduceSum", ["x"], ["total"], keepdims=1)
    with pytest.raises(StepError, match=r"If \(choice\).*differ in shape"):
        both_branches(model(condition(matmul("own"), graph("sum", [total], "total"))), SAMPLES)


def test_a_model_without_control_flow_stays_as_it_is() -> None:
    given = model(helper.make_node("MatMul", ["x", "outer"], ["y"]))
    before = given.SerializeToString()
    made, note = both_branches(given, SAMPLES)
    assert (made.SerializeToString(), note) == (before, "")
