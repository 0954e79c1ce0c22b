from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import nets
from tests.quantization.prepare.graphs import graph_of, kinds, rewritten
from workbench.quantization.prepare.spatial import (
    fold_pads,
    mean_to_global_pool,
    merge_shape_changes,
)

node = helper.make_node


def amounts(*found: int) -> np.ndarray[Any, Any]:
    return np.array(found, np.int64)


def pads_of(one: onnx.NodeProto) -> list[int]:
    return next(list(found.ints) for found in one.attribute if found.name == "pads")


def test_zeros_around_convolutions_are_their_own_padding() -> None:
    nodes = [
        node("Pad", ["x", "p"], ["a"]), node("Conv", ["a", "w"], ["b"], pads=[1, 0, 1, 0]),
        node("Conv", ["a", "w"], ["c"], auto_pad="VALID", strides=[2, 1]),
        node("GlobalMaxPool", ["b"], ["d"]), node("Add", ["c", "d"], ["y"]),
    ]  # fmt: skip
    model = graph_of(nodes, p=amounts(0, 0, 0, 1, 0, 0, 1, 2), w=nets.normal(5, 4, 3, 3))
    made, count = rewritten(fold_pads, model)
    assert count == 1
    assert "Pad" not in kinds(made)
    assert [pads_of(one) for one in made.graph.node[:2]] == [[1, 1, 2, 2], [0, 1, 1, 2]]


def test_pads_given_by_axes() -> None:
    nodes = [node("Pad", ["x", "p", "", "axes"], ["a"]), node("Conv", ["a", "w"], ["y"])]
    model = graph_of(
        nodes, opset=18, p=amounts(1, 2, 0, 1), axes=np.array([-1, 2]), w=nets.normal(5, 4, 3, 3)
    )
    made, count = rewritten(fold_pads, model)
    assert count == 1
    assert pads_of(made.graph.node[0]) == [2, 1, 1, 0]


@pytest.mark.parametrize(
    ("found", "more", "value"),
    [
        ((0, 0, 1, 1, 0, 0, 1, 1), {"mode": "reflect"}, 0),
        ((0, 0, 1, 1, 0, 0, 1, 1), {}, 1),
        ((0, 1, 1, 1, 0, 0, 1, 1), {}, 0),
        ((0, 0, 1, 1, 0, 0, -1, 1), {}, 0),
    ],
)
def test_other_pads_stay(found: tuple[int, ...], more: dict[str, Any], value: float) -> None:
    nodes = [node("Pad", ["x", "p", "v"], ["a"], **more), node("Conv", ["a", "w"], ["y"])]
    weights = nets.normal(5, 4 + found[1], 3, 3)
    model = graph_of(nodes, p=amounts(*found), v=np.float32(value), w=weights)
    made, count = rewritten(fold_pads, model)
    assert count == 0
    assert kinds(made) == ["Pad", "Conv"]


def test_a_pad_that_others_take_stays() -> None:
    nodes = [
        node("Pad", ["x", "p"], ["a"]), node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        node("Add", ["a", "b"], ["y"]),
    ]  # fmt: skip
    model = graph_of(nodes, p=amounts(0, 0, 1, 1, 0, 0, 1, 1), w=nets.normal(4, 4, 3, 3))
    assert rewritten(fold_pads, model)[1] == 0


@pytest.mark.parametrize(
    ("more", "folded"),
    [
        ({}, 1),
        ({"count_include_pad": 1, "pads": [0, 1, 0, 1]}, 1),
        ({"count_include_pad": 0, "pads": [0, 1, 0, 1]}, 0),
        ({"ceil_mode": 1, "strides": [2, 2]}, 0),
    ],
)
def test_zeros_around_an_average_count(more: dict[str, Any], folded: int) -> None:
    nodes = [
        node("Pad", ["x", "p"], ["a"]),
        node("AveragePool", ["a"], ["y"], kernel_shape=[3, 3], **more),
    ]
    made, count = rewritten(fold_pads, graph_of(nodes, p=amounts(0, 0, 1, 1, 0, 0, 1, 1)))
    assert count == folded
    assert ("Pad" in kinds(made)) == (not folded)


@pytest.mark.parametrize(
    ("before", "target", "folded"), [("Relu", "ort", 1), ("Relu", "tflite", 0), ("Neg", "ort", 0)]
)
def test_zeros_around_a_maximum_where_no_value_is_below(
    before: str, target: str, folded: int
) -> None:
    nodes = [
        node(before, ["x"], ["a"]), node("Pad", ["a", "p"], ["b"]),
        node("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]  # fmt: skip
    made, count = rewritten(fold_pads, graph_of(nodes, p=amounts(0, 0, 1, 1, 0, 0, 1, 1)), target)
    assert count == folded
    assert len(made.graph.node) == 3 - folded


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("opset", [17, 18])
def test_means_over_the_image_are_global_pools(kept: int, opset: int) -> None:
    axes: dict[str, Any] = {"axes": [3, -2]} if opset < 18 else {}
    given = ["x"] if opset < 18 else ["x", "axes"]
    model = graph_of(
        [node("ReduceMean", given, ["y"], keepdims=kept, **axes)],
        opset=opset, **({} if axes else {"axes": np.array([3, -2])}),
    )  # fmt: skip
    made, count = rewritten(mean_to_global_pool, model)
    assert count == 1
    assert kinds(made) == ["GlobalAveragePool", *([] if kept else ["Flatten"])]


@pytest.mark.parametrize(("axes", "shape"), [([1], None), ([1, 2], ("batch", 4, 5)), ([2], None)])
def test_other_means_stay(axes: list[int], shape: tuple[Any, ...] | None) -> None:
    model = graph_of([node("ReduceMean", ["x"], ["y"], axes=axes)], {"x": shape} if shape else None)
    assert rewritten(mean_to_global_pool, model)[1] == 0


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([node("Reshape", ["x", "flat"], ["a"]), node("Reshape", ["a", "wide"], ["y"])], 1),
        ([node("Flatten", ["x"], ["a"]), node("Reshape", ["a", "kept"], ["y"])], 1),
        ([node("Reshape", ["x", "flat"], ["a"]), node("Flatten", ["a"], ["y"])], 1),
        ([node("Reshape", ["x", "turned"], ["a"]), node("Flatten", ["a"], ["y"])], 2),
        ([node("Reshape", ["x", "turned"], ["a"]), node("Reshape", ["a", "kept"], ["y"])], 2),
        ([node("Transpose", ["x"], ["a"], perm=[0, 2, 3, 1]),
          node("Transpose", ["a"], ["y"], perm=[0, 2, 1, 3])], 1),
    ],
)  # fmt: skip
def test_one_change_of_shape_where_it_does_for_two(nodes: list[onnx.NodeProto], left: int) -> None:
    model = graph_of(
        nodes, flat=np.array([0, 4, -1]), wide=np.array([-1, 2, 18]), kept=np.array([0, 2, -1]),
        turned=np.array([-1, 4]),
    )  # fmt: skip
    made, count = rewritten(merge_shape_changes, model)
    assert count == 2 - left
    assert len(made.graph.node) == left


def test_transposes_there_and_back_both_go() -> None:
    nodes = [
        node("Relu", ["x"], ["a"]), node("Transpose", ["a"], ["b"], perm=[0, 2, 3, 1]),
        node("Transpose", ["b"], ["c"], perm=[0, 3, 1, 2]), node("Neg", ["c"], ["y"]),
    ]  # fmt: skip
    made, count = rewritten(merge_shape_changes, graph_of(nodes))
    assert count == 1
    assert kinds(made) == ["Relu", "Neg"]
