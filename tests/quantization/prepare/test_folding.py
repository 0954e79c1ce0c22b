from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from tests import nets
from tests.quantization.prepare.graphs import graph_of, kinds, rewritten, weights_of
from workbench.quantization.prepare.folding import (
    fold_batch_norms,
    fold_gemm_factors,
    fold_scales_and_shifts,
    matmul_to_gemm,
    split_lone_batch_norms,
)

node = helper.make_node


def normalization(channels: int, seed: int = 5) -> dict[str, NDArray[Any]]:
    generator = np.random.default_rng(seed)
    low = {"scale": -1.5, "shift": -1.0, "mean": -1.0, "variance": 0.3}
    return {name: generator.uniform(start, 1.7, channels).astype(np.float32)
            for name, start in low.items()}  # fmt: skip


def normalized(given: str, made: str, **more: Any) -> onnx.NodeProto:
    return node("BatchNormalization", [given, "scale", "shift", "mean", "variance"], [made], **more)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("op", "shape", "channels", "more"),
    [
        ("Conv", (6, 4, 3, 3), 6, {"pads": [1, 1, 1, 1]}),
        ("Conv", (8, 1, 3, 3), 8, {"group": 4}),
        ("ConvTranspose", (4, 6, 3, 3), 6, {"strides": [2, 2]}),
        ("ConvTranspose", (4, 3, 3, 3), 6, {"group": 2}),
    ],
)
def test_batch_norm_is_folded_into_convolutions(
    op: str, shape: tuple[int, ...], channels: int, more: dict[str, Any], biased: bool
) -> None:
    weights = {"w": nets.normal(*shape), **normalization(channels)}
    if biased:
        weights["b"] = nets.normal(channels, seed=2)
    layer = node(op, ["x", "w", *(["b"] if biased else [])], ["a"], **more)
    model = graph_of([layer, normalized("a", "y", epsilon=1e-2)], **weights)
    made, count = rewritten(fold_batch_norms, model)
    assert count == 1
    assert kinds(made) == [op]
    assert len(made.graph.initializer) == 2


@pytest.mark.parametrize("turned", [0, 1])
def test_batch_norm_is_folded_into_a_linear_layer(turned: int) -> None:
    weights = {"w": nets.normal(*((6, 5) if turned else (5, 6))), **normalization(6)}
    nodes = [node("Gemm", ["x", "w"], ["a"], transB=turned), normalized("a", "y")]
    made, count = rewritten(fold_batch_norms, graph_of(nodes, {"x": ("batch", 5)}, **weights))
    assert count == 1
    assert kinds(made) == ["Gemm"]


def test_batch_norm_after_a_tensor_that_others_take_stays() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), normalized("a", "b"), node("Add", ["a", "b"], ["y"])]
    model = graph_of(nodes, w=nets.normal(6, 4, 1, 1), **normalization(6))
    assert rewritten(fold_batch_norms, model)[1] == 0
    nodes = [node("Conv", ["x", "w"], ["a"]), normalized("a", "y")]
    model = graph_of(nodes, outputs=("y", "a"), w=nets.normal(6, 4, 1, 1), **normalization(6))
    assert rewritten(fold_batch_norms, model)[1] == 0


def test_weights_that_two_convolutions_share_are_folded_apart() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]), normalized("a", "b"), node("Conv", ["x", "w"], ["c"]),
        node("Add", ["b", "c"], ["y"]),
    ]  # fmt: skip
    made, count = rewritten(
        fold_batch_norms, graph_of(nodes, w=nets.normal(6, 4, 1, 1), **normalization(6))
    )
    assert count == 1
    assert kinds(made) == ["Conv", "Conv", "Add"]


def test_batch_norm_after_no_convolution_is_mul_and_add() -> None:
    model = graph_of([normalized("x", "a"), node("Relu", ["a"], ["y"])], **normalization(4))
    assert rewritten(fold_batch_norms, model)[1] == 0
    made, count = rewritten(split_lone_batch_norms, model)
    assert count == 1
    assert kinds(made) == ["Mul", "Add", "Relu"]
    model = graph_of([normalized("x", "y")], {"x": ("batch", 4)}, **normalization(4))
    assert kinds(rewritten(split_lone_batch_norms, model)[0]) == ["Mul", "Add"]


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 6, 1, 1), (1,), ()])
@pytest.mark.parametrize("op", ["Mul", "Div", "Add", "Sub"])
@pytest.mark.parametrize("first", [True, False])
def test_constants_per_channel_are_folded(op: str, shape: tuple[int, ...], first: bool) -> None:
    constant = np.random.default_rng(3).uniform(0.5, 2, shape).astype(np.float32)
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[1, 1, 1, 1]),
        node(op, ["a", "c"] if first else ["c", "a"], ["y"]),
    ]
    weights = {"w": nets.normal(6, 4, 3, 3), "b": nets.normal(6), "c": constant}
    if op == "Div" and not first:  # 1 / y is no linear function of y; and y must not be near 0
        weights |= {"w": weights["w"] * 1e-3, "b": weights["b"] * 0 + 5}
    made, count = rewritten(fold_scales_and_shifts, graph_of(nodes, **weights))
    assert count == (0 if op == "Div" and not first else 1)
    assert kinds(made) == (["Conv"] if count else ["Conv", "Div"])


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (3, 6, 1, 1)])
def test_constants_along_other_axes_stay(shape: tuple[int, ...]) -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "c"], ["y"])]
    model = graph_of(nodes, w=nets.normal(6, 4, 3, 3), c=nets.normal(*shape))
    # A batch in the constant: the model runs with that batch, or 1, alone.
    assert rewritten(fold_scales_and_shifts, model, batches=(1,))[1] == 0


def test_a_division_by_zero_stays() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Div", ["a", "c"], ["b"]),
             node("Clip", ["b", "least", "most"], ["y"])]  # fmt: skip
    constant = np.array([1, 0, 2, 1, 1, 1], np.float32).reshape(6, 1, 1)
    model = graph_of(nodes, w=nets.normal(6, 4, 1, 1), c=constant,
                     least=np.float32(-9), most=np.float32(9))  # fmt: skip
    assert rewritten(fold_scales_and_shifts, model)[1] == 0


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,)])
def test_a_product_of_a_matrix_is_gemm_with_its_bias(shape: tuple[int, ...]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["b", "a"], ["y"])]
    model = graph_of(nodes, {"x": ("batch", 5)}, w=nets.normal(5, 6), b=nets.normal(*shape))
    made, count = rewritten(matmul_to_gemm, model)
    assert count == 1
    assert kinds(made) == ["Gemm"]


def test_a_product_without_bias_gets_one_and_higher_ranks_stay() -> None:
    model = graph_of([node("MatMul", ["x", "w"], ["y"])], {"x": ("batch", 5)}, w=nets.normal(5, 6))
    made, count = rewritten(matmul_to_gemm, model)
    assert count == 1
    assert len(made.graph.node[0].input) == 3
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["b", "a"], ["y"])]
    shapes = {"x": ("batch", 3, 5)}
    model = graph_of(nodes, shapes, w=nets.normal(5, 6), b=nets.normal(6))
    assert kinds(rewritten(matmul_to_gemm, model)[0]) == ["MatMul", "Add"]


def test_alpha_and_beta_are_multiplied_in() -> None:
    layer = node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=-2.0, transB=1)
    model = graph_of([layer], {"x": ("batch", 5)}, w=nets.normal(6, 5), b=nets.normal(6))
    made, count = rewritten(fold_gemm_factors, model)
    assert count == 1
    assert [one.name for one in made.graph.node[0].attribute] == ["transB"]
    np.testing.assert_allclose(weights_of(made)["b_times_beta"], -2 * nets.normal(6))
