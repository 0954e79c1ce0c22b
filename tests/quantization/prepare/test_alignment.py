from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from tests import nets
from tests.quantization.prepare.graphs import graph_of, same, weights_of
from tests.structures.vision import Head, SqueezeExcite, conv
from workbench.onnxgraph.view import Target
from workbench.quantization.prepare.alignment import align_channels
from workbench.quantization.prepare.passes import prepare_model

node = helper.make_node


class Chain(nn.Module):
    """Pointwise, depthwise, pointwise with other activations; a depthwise pair at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, channels, 3, 2, act=nn.ReLU6),
            conv(channels, channels, 3, 1, channels, nn.Hardswish),
            conv(channels, 10, 1, act=nn.LeakyReLU),
            conv(10, channels, 1, act=nn.ReLU),
            conv(channels, channels, 3, 2, channels, None),
            conv(channels, channels, 3, 1, channels, nn.ReLU),
            conv(channels, 16, 1),
            Head(16),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


class Residual(nn.Module):
    """Depthwise convolutions around which a sum leads: its tensors have to grow together."""

    def __init__(self, excite: bool) -> None:
        super().__init__()
        self.first, self.last = conv(3, 12, 3, 2), conv(12, 8, 1)
        self.depthwise = conv(12, 12, 3, 1, 12)
        self.pointwise = conv(12, 12, 1, act=None)
        self.excite = SqueezeExcite(12, nn.Sigmoid) if excite else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x)
        made: Tensor = self.last(found + self.pointwise(self.excite(self.depthwise(found))))
        return made


def made_of(folder: Path, module: nn.Module, target: Target = "tflite") -> onnx.ModelProto:
    """Prepared; for LiteRT channels stay as they are."""
    samples = {"x": nets.normal(4, 3, 24, 24)}
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            torch.manual_seed(1)
            nn.init.uniform_(part.bias, 0.5, 1)
    path = nets.exported(folder, module.eval(), nets.dataset_of(**samples)).path
    return prepare_model(onnx.load(path), samples, target=target).model


def aligned(
    model: onnx.ModelProto, multiple: int = 16, **more: float
) -> tuple[onnx.ModelProto, int]:
    """A copy of the model, aligned, and in how many regions."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    return made, align_channels(made, multiple, **more)


def groups(model: onnx.ModelProto) -> list[int]:
    return [one.i for layer in model.graph.node for one in layer.attribute if one.name == "group"]


@pytest.mark.parametrize(
    ("channels", "multiple", "wanted"), [(24, 16, 32), (40, 16, 48), (6, 8, 8)]
)
def test_depthwise_channels_become_a_multiple(
    channels: int, multiple: int, wanted: int, tmp_path: Path
) -> None:
    model = made_of(tmp_path, nets.build(Chain, channels=channels))
    made, count = aligned(model, multiple)
    same(model, made)
    assert [one for one in groups(made) if one > 1] == 3 * [wanted]
    assert count == 2  # the pair is one region
    # What was added is zeros, and nothing else changed.
    old, new = (
        sorted(np.abs(array).sum(dtype=np.float64) for array in weights_of(one).values())
        for one in (model, made)
    )
    np.testing.assert_allclose(new, old)


def test_preparation_aligns_for_onnx_runtime_alone(tmp_path: Path) -> None:
    module = nets.build(Chain, channels=24)
    ours, theirs = (made_of(tmp_path / one, module, one) for one in ("ort", "tflite"))
    assert [max(groups(one)) for one in (ours, theirs)] == [32, 24]


def test_what_costs_more_than_a_third_or_is_aligned_stays(tmp_path: Path) -> None:
    model = made_of(tmp_path / "16", nets.build(Chain, channels=16))
    assert aligned(model, 16)[1] == 0
    model = made_of(tmp_path / "8", nets.build(Chain, channels=8))
    assert aligned(model, 16)[1] == 0
    made, count = aligned(model, 16, most=1)
    same(model, made)
    assert count == 2


def test_sums_grow_together_and_gates_stay(tmp_path: Path) -> None:
    model = made_of(tmp_path / "sum", nets.build(Residual, excite=False))
    made, count = aligned(model)
    same(model, made)
    assert count == 1
    assert 16 in groups(made)
    model = made_of(tmp_path / "gate", nets.build(Residual, excite=True))
    assert aligned(model)[1] == 0


def layers(*between: onnx.NodeProto, end: str = "c") -> onnx.ModelProto:
    """A convolution to `a`, a depthwise one of `b` to `c`, one of `end` to `y`."""
    nodes = [node("Conv", ["x", "w"], ["a"], "first"), *between,
             node("Conv", ["b", "d"], ["c"], "depthwise", group=12),
             node("Conv", [end, "v"], ["y"], "last")]  # fmt: skip
    return graph_of(
        nodes, w=nets.normal(12, 4, 1, 1), d=nets.normal(12, 1, 3, 3), v=nets.normal(5, 12, 1, 1),
        m=nets.normal(1, 4, 1, 1), two=np.float32(2), each=nets.normal(12, 1, 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("between", "count"),
    [
        ([node("Sigmoid", ["a"], ["b"])], 1),
        ([node("Mul", ["two", "a"], ["b"])], 1),
        ([node("Div", ["a", "two"], ["b"])], 1),
        # Zeros as a divisor, constants per channel, another operator, a map of one channel.
        ([node("Div", ["two", "a"], ["b"])], 0),
        ([node("Mul", ["a", "each"], ["b"])], 0),
        ([node("Softmax", ["a"], ["b"], axis=1)], 0),
        ([node("Conv", ["x", "m"], ["s"], "map"), node("Mul", ["a", "s"], ["b"])], 0),
    ],
)
def test_only_what_treats_channels_alike_lies_between(
    between: list[onnx.NodeProto], count: int
) -> None:
    for number, one in enumerate(between):
        one.name = one.name or f"between {number}"
    model = layers(*between)
    made, regions = aligned(model)
    assert regions == count
    same(model, made)


def test_channels_that_the_outside_sees_stay() -> None:
    model = layers(node("Relu", ["a"], ["b"], "relu"))
    model.graph.output.append(helper.make_tensor_value_info("b", 1, None))
    assert aligned(model)[1] == 0
