from __future__ import annotations

from onnx import helper

from tests import nets
from tests.quantization.prepare.graphs import graph_of, rewritten, weights_of
from workbench.quantization.prepare.weights import add_zero_biases, copy_shared_weights

node = helper.make_node


def test_every_layer_owns_its_weights_and_bias() -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"]), node("Conv", ["a", "w", "b"], ["c"]),
        node("Gemm", ["v", "m", "b"], ["d"]), node("Gemm", ["d", "m", "b"], ["e"]),
        node("MatMul", ["e", "m"], ["f"]), node("Add", ["f", "b"], ["z"]),
        node("Relu", ["c"], ["y"]),
    ]  # fmt: skip
    shapes = {"x": ("batch", 4, 6, 6), "v": ("batch", 4)}
    weights = {"w": nets.normal(4, 4, 1, 1), "b": nets.normal(4), "m": nets.normal(4, 4)}
    made, count = rewritten(copy_shared_weights, graph_of(nodes, shapes, ("y", "z"), **weights))
    taken = [name for one in made.graph.node for name in one.input if name in weights_of(made)]
    assert len(set(taken)) == len(taken) == 10
    assert count == 7


def test_layers_without_bias_get_zeros() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"], group=2), node("ConvTranspose", ["a", "t"], ["b"], group=2),
        node("GlobalAveragePool", ["b"], ["c"]), node("Flatten", ["c"], ["d"]),
        node("Gemm", ["d", "m"], ["e"], transB=1), node("Gemm", ["e", "n"], ["y"]),
    ]  # fmt: skip
    weights = {"w": nets.normal(6, 2, 1, 1), "t": nets.normal(6, 5, 2, 2),
               "m": nets.normal(7, 10), "n": nets.normal(7, 3)}  # fmt: skip
    made, count = rewritten(add_zero_biases, graph_of(nodes, **weights))
    assert count == 4
    found = weights_of(made)
    layers = [one for one in made.graph.node if len(one.input) == 3]
    assert [found[one.input[2]].shape for one in layers] == [(6,), (10,), (7,), (3,)]
    assert not any(found[one.input[2]].any() for one in layers)
    assert rewritten(add_zero_biases, made)[1] == 0


def test_weights_that_are_computed_get_no_bias() -> None:
    model = graph_of([node("Conv", ["x", "k"], ["y"])], {"x": (1, 4, 6, 6), "k": (5, 4, 3, 3)})
    assert rewritten(add_zero_biases, model, batches=(1,))[1] == 0
