from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.nets import normal
from tests.quantization.prepare.graphs import graph_of
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import (
    FIXED,
    OperatorPlacement,
    clip_bounds,
    place_operators,
    weighted_nodes,
)

node = helper.make_node
C = normal(4, 4, 1, 1)


def conv(x: str, y: str, name: str, bias: bool = True) -> Any:
    return node("Conv", [x, f"w{name}", *([f"b{name}"] if bias else [])], [y], name)


def network_of(*nodes: Any, outputs: Any = ("y",), **more: Any) -> Network:
    """Convolutions of 4 channels, named by what follows "w" in their weights."""
    weights = {}
    for one in nodes:
        if one.op_type == "Conv":
            weights |= {one.input[1]: C, **({one.input[2]: C[:, 0, 0, 0]} if len(one.input) > 2
                                            else {})}  # fmt: skip
    return Network(graph_of(nodes, outputs=outputs, **weights, **more))


def test_a_relu_behind_a_convolution_is_fused() -> None:
    found = place_operators(network_of(conv("x", "a", "1"), node("Relu", ["a"], ["b"], "r"),
                             conv("b", "y", "2")))  # fmt: skip
    assert found.nodes == {"1", "r", "2"}
    assert found.tensors == ("x", "b", "y")
    assert found.fused == {"a": "b"}


def test_a_relu_is_not_fused_where_another_takes_its_input() -> None:
    found = place_operators(network_of(conv("x", "a", "1"), node("Relu", ["a"], ["b"], "r"),
                             node("Add", ["a", "b"], ["c"], "s"), conv("c", "y", "2")))  # fmt: skip
    assert not found.fused
    assert "a" in found.tensors


def test_a_clip_is_fused_from_0_alone() -> None:
    for low, fuses in ((0.0, True), (-1.0, False)):
        network = network_of(
            conv("x", "a", "1"), node("Clip", ["a", "low", "high"], ["b"], "c"),
            conv("b", "y", "2"), low=np.float32(low), high=np.float32(6),
        )  # fmt: skip
        assert clip_bounds(network.nodes[1], network) == (low, 6)
        assert bool(place_operators(network).fused) == fuses


def test_what_only_moves_values_is_tied_to_its_input() -> None:
    network = network_of(
        conv("x", "a", "1"), node("MaxPool", ["a"], ["b"], "m", kernel_shape=[2, 2]),
        node("Reshape", ["b", "shape"], ["c"], "h"), node("Transpose", ["c"], ["d"], "t",
                                                          perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["d", "back"], ["e"], "i"),
        node("Split", ["e", "sizes"], ["f", "g"], "s", axis=1),
        node("Concat", ["g", "f"], ["h"], "o", axis=1), conv("h", "y", "2"),
        shape=np.array([0, 2, 2, 5, 5]), back=np.array([0, 4, 5, 5]), sizes=np.array([1, 3]),
    )  # fmt: skip
    found = place_operators(network)
    for name in "bcdefg":
        assert found.root(name) == "a"
    assert found.root("h") == "h"
    assert set(found.tensors) == {"x", "a", "h", "y"}


def test_the_last_matrix_product_gives_float() -> None:
    network = Network(graph_of([
        node("Gemm", ["x", "w1", "b"], ["a"], "1"), node("Relu", ["a"], ["r"], "r"),
        node("Gemm", ["r", "w2", "b"], ["y"], "2"), node("Softmax", ["y"], ["z"], "s"),
    ], {"x": ("n", 4)}, ["z"], w1=C[..., 0, 0], w2=C[..., 0, 0], b=normal(4)))  # fmt: skip
    found = place_operators(network)
    assert found.nodes == {"1", "r", "2"}
    assert set(found.tensors) == {"x", "r"}


def test_transformers_quantize_products_inputs_alone() -> None:
    w = normal(4, 4)
    network = Network(graph_of([
        node("LayerNormalization", ["x", "g"], ["n"], "n"), node("MatMul", ["n", "w1"], ["a"], "1"),
        node("Add", ["a", "g"], ["b"], "a"), node("MatMul", ["b", "x2"], ["c"], "scores"),
        node("MatMul", ["c", "w2"], ["y"], "2"),
    ], {"x": ("n", 4), "x2": (4, 4)}, w1=w, w2=w, g=normal(4)))  # fmt: skip
    found = place_operators(network)
    assert found.nodes == {"1", "2"}
    assert found.tensors == ("n", "c")


@pytest.mark.parametrize("outlier", ["Softmax", "LayerNormalization"])
def test_convolutions_beside_an_attention_are_quantized_as_anywhere(outlier: str) -> None:
    end = ["a", "g"] if outlier == "LayerNormalization" else ["a"]
    network = network_of(
        conv("x", "c", "1"), node("Relu", ["c"], ["r"], "r"), conv("r", "d", "2"),
        node("Add", ["r", "d"], ["s"], "s"), conv("s", "a", "3"), node(outlier, end, ["p"], "p"),
        node("Add", ["a", "s"], ["t"], "t"), node("Mul", ["p", "t"], ["q"], "q"),
        conv("q", "y", "4"), g=normal(6),
    )  # fmt: skip
    placement = place_operators(network)
    assert placement.fused == {"c": "r"}
    assert placement.nodes == {"1", "r", "2", "s", "3", "t", "4"}
    assert set(placement.tensors) == {"x", "r", "d", "s", "a", "t", "q", "y"}


def test_what_leads_to_a_layer_past_a_normalization_alone_stays_float() -> None:
    network = network_of(
        conv("x", "c", "1"), node("Add", ["c", "g"], ["s"], "s"),
        node("LayerNormalization", ["s", "g"], ["n"], "n"), node("MatMul", ["n", "w"], ["m"], "m"),
        node("Add", ["m", "s"], ["y"], "t"), g=normal(6), w=normal(6, 6),
    )  # fmt: skip
    placement = place_operators(network)
    assert placement.nodes == {"1", "m"}
    assert set(placement.tensors) == {"x", "c", "n"}


@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_nodes_left_float_are_left_and_so_are_those_behind(runtime: Any) -> None:
    network = network_of(conv("x", "a", "1"), node("Relu", ["a"], ["b"], "r"),
                         conv("b", "c", "2"), conv("c", "y", "3"))  # fmt: skip
    assert place_operators(network, {"1", "r"}, runtime).nodes == {"2", "3"}
    assert place_operators(network, {"1"}, runtime).tensors == ("b", "c", "y")
    assert place_operators(network, {"2"}, runtime).nodes == {"1", "r", "3"}
    found = place_operators(network, {"r"}, runtime)
    assert "r" not in found.nodes and not found.fused and "a" in found.tensors
    assert place_operators(network, {"1", "2", "3"}, runtime) in (
        OperatorPlacement(),
        place_operators(network, ("1", "2", "3"), runtime),
    )
    assert not place_operators(network, {"1", "2", "3"}, runtime).nodes


def test_weights_that_are_computed_or_not_there_are_left_float() -> None:
    network = Network(
        graph_of([node("Conv", ["x", "w"], ["y"], "1")], {"x": ("n", 4, 6, 6), "w": (3, 4, 1, 1)})
    )
    assert not weighted_nodes(network) and not place_operators(network).nodes
    network = Network(graph_of([node("Gemm", ["x", "w"], ["y"], "1", alpha=2.0)], {"x": ("n", 4)},
                               w=normal(4, 3)))  # fmt: skip
    assert not place_operators(network).nodes
    assert not place_operators(Network(graph_of([node("Relu", ["x"], ["y"], "r")]))).tensors


def test_tflites_concatenations_have_one_grid_and_sigmoids_its_own() -> None:
    network = network_of(
        conv("x", "a", "1"), conv("x", "b", "2"), node("Concat", ["a", "b"], ["c"], "c", axis=0),
        node("Sigmoid", ["c"], ["d"], "s"), conv("d", "y", "3"),
    )  # fmt: skip
    found = place_operators(network, (), "tflite")
    assert found.alike == (frozenset("abc"),)
    assert found.fixed == {"d": FIXED["Sigmoid"]}
    assert place_operators(network).alike == () and place_operators(network).fixed == {}


def test_concatenations_that_share_a_tensor_are_one_set() -> None:
    network = network_of(
        conv("x", "a", "1"), conv("x", "b", "2"), conv("x", "c", "3"),
        node("Concat", ["a", "b"], ["d"], "d", axis=0),
        node("Concat", ["b", "c"], ["e"], "e", axis=0),
        node("Concat", ["d", "e"], ["f"], "f", axis=0), conv("f", "y", "4"),
    )  # fmt: skip
    assert place_operators(network, (), "tflite").alike == (frozenset("abcdef"),)
