from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tests import nets
from workbench.onnxgraph.session import run_samples
from workbench.tflite import lowering as rewrites
from workbench.tflite.gelu import native_gelu
from workbench.tflite.pool_padding import padded_pools

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

Array = np.ndarray[Any, Any]


def exported(folder: Path, module: nn.Module, shape: tuple[int, ...], **more: Any) -> Any:
    """The module's graph at fixed shapes with its constants as initializers, and samples."""
    samples = {"x": nets.normal(4, *shape)}
    made = nets.exported(folder, module, nets.dataset_of(**samples), **more)
    model, _ = rewrites.fixed_shapes(onnx.load(made.path), samples)
    model, _ = rewrites.simplified(model, samples)
    return rewrites.settled(model, samples)[0], samples


def of_node(
    node: onnx.NodeProto, shape: tuple[int | str, ...], opset: int = 17, **weights: Array
) -> onnx.ModelProto:
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "graph", [helper.make_tensor_value_info("x", real, shape)],
        [helper.make_tensor_value_info(node.output[0], real, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check(
    rewrite: Callable[..., rewrites.Rewritten], model: onnx.ModelProto, samples: dict[str, Array]
) -> tuple[onnx.ModelProto, str]:
    """The rewritten model, valid and of equal outputs."""
    wanted = run_samples(model, samples)
    made, note = rewrite(model, samples)
    onnx.checker.check_model(made, full_check=True)
    for before, after in zip(wanted, run_samples(made, samples), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    return made, note


def test_every_axis_becomes_a_number(tmp_path: Path) -> None:
    made = nets.exported(tmp_path, nets.build(), nets.images(4, 24, 40))
    samples = {"image": nets.normal(4, 3, 24, 40)}
    model, note = check(rewrites.fixed_shapes, onnx.load(made.path), samples)
    assert note == ""
    for value, shape in ((model.graph.input[0], [1, 3, 24, 40]), (model.graph.output[0], [1, 10])):
        assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == shape


def test_an_axis_that_was_open_and_is_not_the_batch_is_said() -> None:
    model = of_node(helper.make_node("Exp", ["x"], ["y"]), ("batch", "height", 4))
    model, note = check(rewrites.fixed_shapes, model, {"x": nets.normal(3, 5, 4)})
    assert note == "x fixed at 1x5x4"
    assert [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim] == [
        1,
        5,
        4,
    ]


def test_gelu_is_one_operator_at_a_higher_opset(tmp_path: Path) -> None:
    model, samples = exported(tmp_path, nets.build(nets.Gelu), (8,))
    assert "Erf" in kinds(model)
    made, note = check(native_gelu, model, samples)
    assert kinds(made) == ["Gemm", "Gelu"]
    assert [(one.domain, one.version) for one in made.opset_import] == [("", 20)]
    assert note == "opset raised from 17 to 20 for 1 Gelu"


class Erf(nn.Module):
    """x (1 + erf(a x)) b: Gelu where a is 1 / √2 and b a half, and a part of it elsewhere."""

    def __init__(self, before: float, behind: float) -> None:
        super().__init__()
        self.before, self.behind = before, behind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.erf(x if self.before == 1 else x * self.before)
        return x * (y + 1) * self.behind if self.behind != 1 else x * (y + 1)


@pytest.mark.parametrize(
    ("before", "behind", "expected"),
    [
        (0.5**0.5, 0.5, ["Gelu"]),
        (0.5**0.5, 1, ["Gelu", "Mul"]),  # the half went into the weights of the next layer
        (0.8, 1, ["Mul", "Gelu", "Mul"]),
        (1, 1, ["Mul", "Gelu", "Mul"]),
    ],
)
def test_part_of_a_gelu_is_a_scaled_one(
    before: float, behind: float, expected: list[str], tmp_path: Path
) -> None:
    model, samples = exported(tmp_path, Erf(before, behind), (8,))
    assert kinds(check(native_gelu, model, samples)[0]) == expected


def test_a_one_for_each_channel_is_a_one() -> None:
    nodes = [
        helper.make_node("Erf", ["x"], ["e"]), helper.make_node("Add", ["e", "one"], ["a"]),
        helper.make_node("Mul", ["x", "a"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", 1, (1, 4, 3))],
        [helper.make_tensor_value_info("y", 1, (1, 4, 3))],
        [numpy_helper.from_array(np.ones((4, 1), np.float32), "one")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    made, _ = check(native_gelu, model, {"x": nets.normal(3, 4, 3)})
    assert kinds(made) == ["Mul", "Gelu", "Mul"]


def test_erf_outside_of_gelu_stays() -> None:
    model = of_node(helper.make_node("Erf", ["x"], ["y"]), (1, 4))
    made, note = check(native_gelu, model, {"x": nets.normal(3, 4)})
    assert (kinds(made), note) == (["Erf"], "")


def test_division_by_a_constant_is_a_product() -> None:
    model = of_node(
        helper.make_node("Div", ["x", "by"], ["y"]), (1, 4), by=np.float32([2, 3, 5, 7])
    )
    assert kinds(check(rewrites.products, model, {"x": nets.normal(3, 4)})[0]) == ["Mul"]
    model = of_node(
        helper.make_node("Div", ["by", "x"], ["y"]), (1, 4), by=np.float32([2, 3, 5, 7])
    )
    assert kinds(check(rewrites.products, model, {"x": nets.normal(3, 4)})[0]) == ["Div"]


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_normalization_is_written_out(axis: int, opset: int) -> None:
    shape = (1, 3, 5)
    scale, shift = nets.normal(*shape[axis:], seed=1), nets.normal(*shape[axis:], seed=2)
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"], axis=axis, epsilon=1e-3)
    model = of_node(node, shape, opset, s=scale, b=shift)
    made, _ = check(rewrites.layer_norms, model, {"x": 3 * nets.normal(4, 3, 5)})
    assert "LayerNormalization" not in kinds(made)


def test_a_shift_of_zeros_and_a_scale_of_ones_leave_no_node() -> None:
    node = helper.make_node("LayerNormalization", ["x", "s", "b"], ["y"])
    model = of_node(node, (1, 5), s=np.ones(5, np.float32), b=np.zeros(5, np.float32))
    made, _ = check(rewrites.layer_norms, model, {"x": nets.normal(4, 5)})
    assert kinds(made).count("Mul") == 1
    assert kinds(made)[-2:] == ["Div", "Identity"]
    assert not {"s", "b"} & {one.name for one in made.graph.initializer}


class Pool(nn.Module):
    def __init__(self, before: nn.Module, **options: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(before, nn.MaxPool2d(**options))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


@pytest.mark.parametrize(
    ("before", "options", "mode"),
    [
        (nn.ReLU(), {"kernel_size": 3, "stride": 2, "padding": 1}, "constant"),
        (nn.ReLU6(), {"kernel_size": 2, "stride": 2, "padding": 1}, "constant"),
        (nn.Tanh(), {"kernel_size": 3, "stride": 2, "padding": 1}, "reflect"),
        (nn.Tanh(), {"kernel_size": 5, "stride": 1, "padding": 2}, "reflect"),
        (nn.ReLU(), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, "constant"),
        (nn.ReLU(), {"kernel_size": 2, "stride": 2, "ceil_mode": True}, "constant"),
        (nn.Tanh(), {"kernel_size": 3, "stride": 2, "ceil_mode": True}, "reflect"),
        (nn.Tanh(), {"kernel_size": 3, "stride": (2, 3), "ceil_mode": True}, ""),  # nothing beyond
        # In these a window may hold nothing but padding, or end within it.
        (nn.Tanh(), {"kernel_size": 2, "stride": 2, "padding": 1}, ""),
        (nn.ReLU(), {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}, ""),
    ],
)  # fmt: skip
def test_pools_are_padded_with_what_never_wins(
    before: nn.Module, options: dict[str, Any], mode: str, tmp_path: Path
) -> None:
    model, samples = exported(tmp_path, Pool(before, **options).eval(), (2, 7, 10))
    made, _ = check(padded_pools, model, samples)
    pads = [node for node in made.graph.node if node.op_type == "Pad"]
    assert [rewrites.attributes(node)["mode"].decode() for node in pads] == ([mode] if mode else [])


class Patches(nn.Module):
    """Channels and places of one number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2).softmax(2)


def test_tokens_are_channels_last_before_they_are_flat(tmp_path: Path) -> None:
    model, samples = exported(tmp_path, Patches(), (16, 4, 4))
    assert kinds(model) == ["Reshape", "Transpose", "Softmax"]
    made, _ = check(rewrites.tokens, model, samples)
    assert kinds(made) == ["Transpose", "Reshape", "Softmax"]
    assert rewrites.attributes(made.graph.node[0])["perm"] == [0, 2, 3, 1]


class Both(Patches):
    def forward(self, x: torch.Tensor) -> Any:
        flat = x.flatten(2)
        return flat.transpose(1, 2), flat.exp()


def test_a_flat_image_that_others_take_stays(tmp_path: Path) -> None:
    model, samples = exported(tmp_path, Both(), (6, 4, 4), outputs=("tokens", "flat"))
    assert kinds(check(rewrites.tokens, model, samples)[0]) == kinds(model)


def test_prelu_is_written_out(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.PReLU(8))
    nn.init.uniform_(module[1].weight, 0.1, 0.9)
    model, samples = exported(tmp_path, module.eval(), (3, 8, 8))
    assert kinds(check(rewrites.write_prelu, model, samples)[0]) == [
        "Conv", "Relu", "Sub", "Mul", "Add",
    ]  # fmt: skip


def test_ids_are_looked_up_by_gathernd(tmp_path: Path) -> None:
    samples = {"ids": np.random.default_rng(0).integers(0, 9, (4, 5))}
    made = nets.exported(tmp_path, nn.Embedding(9, 3).eval(), nets.dataset_of(**samples))
    model, _ = rewrites.fixed_shapes(onnx.load(made.path), samples)
    assert kinds(model) == ["Gather"]
    assert kinds(check(rewrites.embeddings, model, samples)[0]) == ["Reshape", "GatherND"]


def test_the_count_of_topk_is_no_constant_to_onnx2tf(tmp_path: Path) -> None:
    node = helper.make_node("TopK", ["x", "k"], ["y", "places"])
    model = of_node(node, (1, 6), k=np.array([2]))
    assert kinds(check(rewrites.counts_apart, model, {"x": nets.normal(3, 6)})[0]) == [
        "Identity", "TopK",
    ]  # fmt: skip
