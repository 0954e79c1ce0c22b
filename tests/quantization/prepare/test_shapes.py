from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from tests import nets
from tests.quantization.prepare.graphs import graph_of, kinds, rewritten, weights_of
from workbench.quantization.prepare.constants import fold_constants
from workbench.quantization.prepare.shapes import fold_shape_arithmetic

node = helper.make_node


class Shapes(nn.Module):
    """A shuffle of channels, a token for each sample, and a resize to the size of another map."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, 2, 1)
        self.token = nn.Parameter(torch.randn(1, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        found = self.convolution(x)
        n, c, h, w = found.shape
        found = found.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        large = nn.functional.interpolate(found, x.shape[2:], mode="nearest")
        half = large[:, :, : x.shape[2] // 2]
        tokens = half.flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(n, -1, -1), tokens], 1)


def exported(folder: Path) -> onnx.ModelProto:
    dataset = nets.dataset_of(x=nets.normal(4, 3, 8, 12))
    model = onnx.load(nets.exported(folder, nets.build(Shapes), dataset).path)
    fold_constants(model, None)
    return model


def test_shapes_of_an_exported_net_are_constants(tmp_path: Path) -> None:
    made, count = rewritten(fold_shape_arithmetic, exported(tmp_path))
    assert count == 6
    found = kinds(made)
    # The token's Expand alone hangs on the batch, by a Shape, a Gather and a Concat.
    assert {one: found.count(one) for one in ("Shape", "Gather", "Concat", "Where", "Cast")} == {
        "Shape": 1, "Gather": 1, "Concat": 2, "Where": 0, "Cast": 0,
    }  # fmt: skip
    constant = weights_of(made)
    for one in made.graph.node:
        if one.op_type == "Reshape":
            assert constant[one.input[1]][0] == 0
        if one.op_type in ("Resize", "Slice"):  # scales in place of sizes, for these hang on N
            assert all(not name or name in constant for name in one.input[1:])


def test_a_product_with_the_batch_is_open() -> None:
    nodes = [
        node("Shape", ["x"], ["s"]), node("Split", ["s"], ["n", "c", "hw"], axis=0),
        node("Mul", ["n", "c"], ["nc"]), node("Concat", ["nc", "hw"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]  # fmt: skip
    nodes[1].input.append("parts")
    model = graph_of(nodes, parts=np.array([1, 1, 2]))
    made, count = rewritten(fold_shape_arithmetic, model)
    assert count == 1
    assert kinds(made) == ["Reshape"]
    assert weights_of(made)[made.graph.node[0].input[1]].tolist() == [-1, 6, 6]


def test_sizes_that_may_vary_are_no_constants() -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "places"], ["t"]),
             node("Reshape", ["x", "t"], ["y"])]  # fmt: skip
    model = graph_of(nodes, {"x": ("batch", 4, "height", 6)}, places=np.array([0, 2, 1, 3]))
    made, count = rewritten(fold_shape_arithmetic, model)
    assert count == 0
    assert kinds(made) == ["Shape", "Gather", "Reshape"]


def test_shapes_that_hang_on_values_are_no_constants() -> None:
    nodes = [
        node("NonZero", ["x"], ["places"]), node("Shape", ["places"], ["s"]),
        node("Cast", ["s"], ["y"], to=onnx.TensorProto.FLOAT),
    ]  # fmt: skip
    made, count = rewritten(fold_shape_arithmetic, graph_of(nodes))
    assert count == 0
    assert kinds(made) == ["NonZero", "Shape", "Cast"]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand"])
def test_a_size_that_is_computed_from_values_is_no_constant(op: str) -> None:
    nodes = [
        node("ReduceMax", ["x"], ["a"], keepdims=0), node("Exp", ["a"], ["b"]),
        node("Tanh", ["b"], ["c"]), node("Ceil", ["c"], ["d"]),  # 1 for all that the trial sees
        node("Cast", ["d"], ["e"], to=onnx.TensorProto.INT64), node("Reshape", ["e", "one"], ["f"]),
        node(op, ["f"] if op == "ConstantOfShape" else ["c", "f"], ["g"]),
        node("Shape", ["g"], ["s"]), node("Cast", ["s"], ["h"], to=onnx.TensorProto.FLOAT),
        node("Mul", ["x", "h"], ["y"]),
    ]  # fmt: skip
    made, count = rewritten(fold_shape_arithmetic, graph_of(nodes, one=np.array([1])))
    assert count == 0
    assert "Shape" in kinds(made)


def test_what_is_computed_from_constants_is_one() -> None:
    nodes = [node("Exp", ["w"], ["a"]), node("Neg", ["a"], ["b"]), node("Mul", ["x", "b"], ["y"])]
    made, count = rewritten(fold_shape_arithmetic, graph_of(nodes, w=nets.normal(6)))
    assert count == 1
    assert kinds(made) == ["Mul"]
