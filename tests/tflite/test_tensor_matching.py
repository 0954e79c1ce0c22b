"""Tensors known again by what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import nets
from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph
from workbench.tflite.tensor_matching import Print, match_tensors, onnx_prints

A, B = ActivationGrid(0.1, 0), ActivationGrid(0.2, 5)
SOME, OTHER = nets.normal(1, 4, 5, 6), nets.normal(1, 4, 5, 6, seed=1)


def prints(**arrays: Any) -> dict[str, Print]:
    return {name: Print.of([np.asarray(array)]) for name, array in arrays.items()}


def numbered(*arrays: Any) -> dict[int, Print]:
    return {number: Print.of([np.asarray(array)]) for number, array in enumerate(arrays)}


def stripped(**grids: ActivationGrid) -> StrippedGraph:
    return StrippedGraph(onnx.ModelProto(), grids, {})


def test_a_tensor_is_known_in_any_layout_and_shape() -> None:
    after = numbered(SOME.transpose(0, 2, 3, 1), OTHER.reshape(-1), SOME + 0.5)
    found = match_tensors(stripped(a=A), prints(a=SOME, b=OTHER), after)
    assert found == {0: A, 1: None}


def test_rounding_of_sums_does_not_hide_a_tensor_and_a_real_difference_does() -> None:
    after = numbered(SOME * (1 + 1e-6), SOME * 1.01)
    assert match_tensors(stripped(a=A), prints(a=SOME), after) == {0: A}


def test_the_nearest_is_taken() -> None:
    found = match_tensors(
        stripped(a=A, b=B), prints(a=SOME, b=SOME + 4e-4), numbered(SOME + 3.99e-4)
    )
    assert found == {0: B}


def test_one_operator_fused_of_two_gets_the_last_ones_grid() -> None:
    before = prints(convolution=np.abs(SOME), relu=np.abs(SOME))
    assert match_tensors(stripped(convolution=A, relu=B), before, numbered(np.abs(SOME))) == {0: B}


def test_two_of_one_content_are_told_apart_by_their_order() -> None:
    before = prints(first=SOME, second=SOME)
    assert match_tensors(stripped(first=A, second=B), before, numbered(SOME, SOME)) == {0: A, 1: B}


def test_a_reshape_that_only_its_result_is_quantized_of() -> None:
    found = match_tensors(
        stripped(flat=B), prints(x=SOME, flat=SOME.reshape(1, -1)), numbered(SOME, SOME)
    )
    assert found == {0: B, 1: B}


def test_zeros_are_not_taken_for_other_zeros() -> None:
    zeros = np.zeros((1, 8))
    before = prints(dead=zeros, other=zeros)
    assert match_tensors(stripped(dead=A, other=B), before, numbered(zeros, zeros, zeros)) == {}
    assert match_tensors(stripped(dead=A), prints(dead=zeros), numbered(zeros)) == {0: A}


@pytest.mark.parametrize("size", [1, 255, 256, 257, 5000])
def test_a_print_of_any_size(size: int) -> None:
    array = nets.normal(size)
    assert Print.of([array]).distance(Print.of([array[::-1]])) == 0
    assert Print.of([array]).distance(Print.of([array + 1])) > 0.1
    assert Print.of([array]).distance(Print.of([nets.normal(size + 1)])) == float("inf")
    assert len(Print.of([array, array]).values) <= 512


def test_every_float_tensor_of_a_graph_is_printed_inputs_too() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Neg", ["r"], ["y"]),
    ]
    infos = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [1, 4]) for one in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "test", infos[:1], infos[1:]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    samples = [{"x": nets.normal(1, 4, seed=seed)} for seed in (0, 1)]
    found = onnx_prints(model, samples)
    assert set(found) == {"x", "r", "y"}
    wanted = np.concatenate([np.sort(np.maximum(sample["x"], 0)[0]) for sample in samples])
    np.testing.assert_array_equal(found["r"].values, wanted)
    assert len(model.graph.output) == 1
