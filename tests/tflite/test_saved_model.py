"""What stands between onnx2tf's network and a SavedModel; here networks are plain functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import nets
from workbench.errors import StepError
from workbench.tflite.saved_model import compare_outputs, first_wrong, keys, moved_axes, places


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["input_ids", "mask"], ["input_ids", "mask"]),
        (["x:0", "x:1"], ["x_0", "x_1"]),
        (["a.b", "a:b", "a/b"], ["a_b", "a_b_2", "a_b_3"]),
        (["/x", "ü", ""], ["x", "tensor", "tensor_2"]),
        (["X", "x", "x_2"], ["X", "x_2", "x_2_2"]),
    ],
)
def test_keys_are_words_of_their_own(names: list[str], wanted: list[str]) -> None:
    assert keys(names) == wanted


def test_images_alone_are_moved() -> None:
    assert moved_axes(np.ones((1, 3, 4, 5)), True) == (0, 2, 3, 1)
    assert moved_axes(np.ones((1, 3, 4, 5)), False) == ()
    assert moved_axes(np.ones((1, 3, 4)), True) == ()
    assert places({"a:b": np.ones((3, 4, 5))}, [(0, 2, 1)]) == {
        "a:b": {"key": "a_b", "permutation": [0, 2, 1], "shape": [1, 4, 5]}
    }


IMAGES = {"image": nets.normal(3, 2, 4, 5)}


def serve(**outputs: Any) -> Any:
    """A network that gives these functions of one image [1, 4, 5, 2]."""
    return lambda image: {key: function(image) for key, function in outputs.items()}


def test_each_output_gets_the_axes_with_which_it_agrees() -> None:
    image = IMAGES["image"]
    wanted = [image, image.mean((2, 3)), image.mean(2)]
    found = compare_outputs(
        serve(same=lambda x: x, pooled=lambda x: x.mean((1, 2)), rows=lambda x: x.mean(1)),
        IMAGES, wanted, ["same", "pooled", "rows"], moved=True,
    )  # fmt: skip
    assert found == [(0, 2, 3, 1), (), (0, 2, 1)]


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda x: x.mean((1, 2)) * 1.01, "small differs from the ONNX file's: 40.0 dB"),
        (lambda x: x.mean((1, 2))[:, :1], "-inf dB"),
        (lambda x: x.mean(1), "shape"),
        (lambda x: x.mean((1, 2)) * np.nan, "-inf dB"),
    ],
)
def test_an_output_that_disagrees_is_named_however_large_the_others(
    function: Any, said: str
) -> None:
    image = IMAGES["image"]
    with pytest.raises(StepError, match=said):
        compare_outputs(
            serve(large=lambda x: 1e6 * x, small=function), IMAGES,
            [1e6 * image, image.mean((2, 3))], ["large", "small"], moved=True,
        )  # fmt: skip


def test_of_integers_most_must_be_equal() -> None:
    samples = {"x": nets.normal(8, 4)}
    wanted = samples["x"].argmax(1)

    def off(count: int) -> Any:
        calls = iter(range(8))
        return serve(y=lambda x: x.argmax(1) + (next(calls) < count))

    assert compare_outputs(off(2), samples, [wanted], ["y"], moved=True) == [()]
    with pytest.raises(StepError, match="y differs"):
        compare_outputs(off(3), samples, [wanted], ["y"], moved=True)


def test_the_first_operator_that_differs_is_named() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["a"], "one"),
        helper.make_node("Abs", ["a"], ["b"], "two"),
        helper.make_node("Relu", ["b"], ["y"], "three"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 2, 3, 4)) for name in "xy"]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", ends[:1], ends[1:]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    samples = {"x": nets.normal(2, 2, 3, 4)}

    def converted(asked: onnx.ModelProto) -> Any:
        assert [value.name for value in asked.graph.output] == ["a", "b", "y"]
        return lambda x: [-x, np.abs(x) + 1, np.abs(x) + 1]  # channels last, all of them

    assert first_wrong(model, samples, True, converted) == "Abs (two)"
    right = lambda asked: lambda x: [-x, np.abs(x), np.abs(x)]
    assert first_wrong(model, samples, True, right) == ""

    def failing(asked: onnx.ModelProto) -> Any:
        raise SystemError("again")

    assert first_wrong(model, samples, True, failing) == ""
