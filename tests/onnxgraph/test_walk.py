"""Reading a graph: who makes and takes a tensor, the graphs inside it, and their shapes."""

from __future__ import annotations

import onnx
import pytest

from workbench.onnxgraph import shapes, walk
from workbench.onnxgraph.rewrites import expose, rename_tensors, rename_uses

# `cond` chooses between `a` from outside, given as it is, and its square.
BRANCHES = """
g (float[N, 2] x, bool cond) => (float[N, 2] y) <float[2] w = {1, 2}> {
    a = Add(x, w)
    b = Mul(a, a)
    c = If (cond) <
        then_branch = t () => (float[N, 2] a) { unused = Neg(a) },
        else_branch = e () => (float[N, 2] d) { d = Mul(a, b) }
    >
    y = Relu(c)
}
"""


@pytest.fixture
def graph() -> onnx.GraphProto:
    return onnx.parser.parse_graph(BRANCHES)


def test_makers_and_takers_are_those_of_the_graph_itself(graph):
    assert {name: node.op_type for name, node in walk.producers(graph.node).items()} == {
        "a": "Add", "b": "Mul", "c": "If", "y": "Relu",
    }  # fmt: skip
    takers = {name: [node.op_type for node in nodes]
              for name, nodes in walk.consumers(graph.node).items()}  # fmt: skip
    assert takers == {
        "x": ["Add"], "w": ["Add"], "a": ["Mul", "Mul"], "cond": ["If"], "c": ["Relu"],
    }  # fmt: skip


def test_an_output_or_input_that_is_left_out_has_neither():
    node = onnx.helper.make_node("Resize", ["x", "", "s"], ["", "y"])
    assert walk.producers([node]).keys() == {"y"}
    assert walk.consumers([node]).keys() == {"x", "s"}


def test_what_branches_take_and_give_counts_as_taken(graph):
    taken = list(walk.taken_names(graph))
    assert taken.count("a") == 5  # twice by Mul, by each branch, and given by one as it is
    assert taken.count("b") == 1
    assert walk.operators(graph) == {"Add": 1, "Mul": 2, "If": 1, "Relu": 1, "Neg": 1}
    assert walk.computed_names(graph) == ["a", "b", "c", "y"]


def test_uses_are_renamed_in_branches_and_where_one_gives_the_tensor(graph):
    rename_uses(graph.node, {"a": "z"})
    assert walk.producers(graph.node).keys() == {"a", "b", "c", "y"}
    assert "a" not in list(walk.taken_names(graph))
    then = walk.bodies(graph.node[2])[0]
    assert walk.output_names(then) == ["z"]


def test_a_tensor_is_renamed_where_it_is_made_too(graph):
    rename_tensors(graph, {"a": "z", "d": "e"})
    assert walk.producers(graph.node).keys() == {"z", "b", "c", "y"}
    inside = walk.bodies(graph.node[2])[1]
    assert list(inside.node[0].output) == ["e"]
    assert walk.output_names(graph) == ["y"]


def test_shapes_are_inferred_and_open_axes_are_none(graph):
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    known = shapes.infer_shapes(model)
    assert known["b"] == (None, 2)
    assert known["w"] == (2,)
    assert shapes.known_shapes(model).keys() >= {"w"}
    assert "b" not in shapes.known_shapes(model)


def test_exposed_tensors_come_behind_the_outputs_each_once(graph):
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    assert walk.output_names(expose(model, ["a", "y", "b"]).graph) == ["y", "a", "b"]
    assert walk.output_names(graph) == ["y"]
