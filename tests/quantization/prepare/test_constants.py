from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import nets
from tests.quantization.prepare.graphs import (
    graph_of,
    kinds,
    rewritten,
    same,
    samples,
    weights_of,
)
from workbench.errors import StepError
from workbench.onnxgraph import signature as graphs
from workbench.quantization.prepare.constants import (
    fold_constants,
    name_all_nodes,
    remove_default_inputs,
    remove_identities,
)
from workbench.quantization.prepare.passes import prepare_model

node = helper.make_node


def test_nodes_without_names_and_with_the_same_get_their_own() -> None:
    model = graph_of([node("Relu", ["x"], ["a"]), node("Abs", ["a"], ["b"], "one"),
                      node("Neg", ["b"], ["y"], "one")])  # fmt: skip
    made = onnx.ModelProto.FromString(model.SerializeToString())
    assert name_all_nodes(made, None) == 2
    found = [one.name for one in made.graph.node]
    assert len(set(found)) == 3
    assert all(found)
    assert found[1] == "one"
    assert name_all_nodes(made, None) == 0


def test_constant_nodes_of_all_kinds_become_initializers() -> None:
    array = numpy_helper.from_array(nets.normal(1, 4, 1, 1), "array")
    model = graph_of([
        node("Constant", [], ["a"], value=array), node("Constant", [], ["b"], value_float=2.5),
        node("Constant", [], ["c"], value_ints=[0, -1]), node("Add", ["x", "a"], ["d"]),
        node("Mul", ["d", "b"], ["e"]), node("Reshape", ["e", "c"], ["y"]),
    ])  # fmt: skip
    made, count = rewritten(fold_constants, model)
    assert count == 3
    assert kinds(made) == ["Add", "Mul", "Reshape"]
    assert weights_of(made)["c"].dtype == np.int64


def test_identities_and_dropout_go_and_outputs_keep_their_names() -> None:
    model = graph_of(
        [
            node("Identity", ["x"], ["a"]), node("Relu", ["a"], ["b"]),
            node("Dropout", ["b", "ratio"], ["c", "mask"]), node("Neg", ["c"], ["d"]),
            node("Transpose", ["d"], ["e"], perm=[0, 1, 2, 3]), node("Abs", ["d"], ["z"]),
            node("Identity", ["e"], ["y"]),
        ],
        outputs=("y", "z"), ratio=np.float32(0.5),
    )  # fmt: skip
    made, count = rewritten(remove_identities, model)
    assert count == 4
    assert sorted(kinds(made)) == ["Abs", "Neg", "Relu"]


@pytest.mark.parametrize("outputs", [("y", "mask"), ("y",)])
def test_dropout_whose_mask_is_taken_stays(outputs: tuple[str, ...]) -> None:
    model = graph_of([node("Dropout", ["x"], ["y", "mask"])])
    if "mask" in outputs:
        kind = onnx.TensorProto.BOOL
        model.graph.output.append(helper.make_tensor_value_info("mask", kind, None))
    made, count = rewritten(remove_identities, model)
    # Of the input itself, which has to stay as the output has: nothing can go.
    assert count == 0
    assert kinds(made) == ["Dropout"]


def test_an_input_given_as_an_output_stays() -> None:
    made, count = rewritten(remove_identities, graph_of([node("Identity", ["x"], ["y"])]))
    assert count == 0
    assert kinds(made) == ["Identity"]


def test_weights_that_are_inputs_too_become_constants() -> None:
    model = graph_of([node("Conv", ["x", "w"], ["y"])], w=nets.normal(3, 4, 1, 1))
    old = onnx.ModelProto.FromString(model.SerializeToString())
    value = helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, (3, 4, 1, 1))
    old.graph.input.append(value)
    assert remove_default_inputs(old, None) == 1
    same(model, old)


def test_a_low_opset_is_raised() -> None:
    weights = {"w": nets.normal(6, 4, 3, 3)}
    nodes = [
        node("Conv", ["x", "w"], ["a"]), node("ReduceMean", ["a"], ["b"], axes=[2, 3], keepdims=0),
        node("Dropout", ["b"], ["c"], ratio=0.5), node("Unsqueeze", ["c"], ["y"], axes=[1]),
    ]  # fmt: skip
    model = graph_of(nodes, opset=11, **weights)
    found = prepare_model(model, samples(model))
    assert graphs.opset(found.model) == 13
    assert found.notes[0] == "opset raised from 11 to 13"
    same(model, found.model)


def test_an_opset_that_cannot_be_raised_is_said() -> None:
    # Upsample left ONNX with opset 10, and the converter has no way for its scales as an input.
    model = graph_of([node("Upsample", ["x", "s"], ["y"], mode="nearest")], opset=9,
                     s=np.array([1, 1, 2, 2], np.float32))  # fmt: skip
    try:
        found = prepare_model(model, samples(model))
    except StepError as error:
        assert "opset 9" in str(error)
        assert "export the model anew" in error.fix
    else:  # a converter that learns it must be right
        same(model, found.model)
