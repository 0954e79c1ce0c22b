"""Model files as users bring them: exported, traced, renamed, reordered, broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests import nets

LABELS = 24


class Reordered(nn.Module):
    """The outputs of `nets.Outputs` as a tuple, the other way round."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.inner(x)
        return found["embedding"], found["scores"]


def _export(module: nn.Module, path: Path, inputs: dict[str, Tensor], *outputs: str) -> None:
    torch.onnx.export(
        module, tuple(inputs.values()), str(path), dynamo=False, opset_version=17,
        input_names=list(inputs), output_names=list(outputs),
        dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
    )  # fmt: skip


def _without_a_runtime(path: Path) -> None:
    """A valid file with an operator that no runtime has."""
    ends = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])]  # fmt: skip
    node = helper.make_node("Magic", ["image"], ["logits"], domain="my.own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    made = helper.make_graph([node], "graph", ends[:1], ends[1:])
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), path)


def _channels_last(source: Path, path: Path) -> None:
    """The same network with its input as NHWC, as converters make it."""
    model = onnx.load(source)
    (value,) = model.graph.input
    for node in model.graph.node:
        node.input[:] = ["turned" if name == value.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Transpose", ["pixels"], ["turned"],
                                                perm=[0, 3, 1, 2]))  # fmt: skip
    value.CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 32, 32, 3]))
    onnx.save(model, path)


def _with_another_weight(source: Path, path: Path) -> str:
    """The same network with one convolution's weights replaced; that node's name."""
    model = onnx.load(source)
    node = [node for node in model.graph.node if node.op_type == "Conv"][1]
    for tensor in model.graph.initializer:
        if tensor.name == node.input[1]:
            other = nets.normal(*tensor.dims, seed=7)
            tensor.CopyFrom(numpy_helper.from_array(other, tensor.name))
    onnx.save(model, path)
    return str(node.name)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files, and of datasets that fit some of them."""
    folder = tmp_path_factory.mktemp("files")
    image = {"image": torch.randn(2, 3, 32, 32)}
    net = nets.build()
    _export(net, folder / "conv.onnx", image, "logits")
    torch.jit.trace(net, tuple(image.values())).save(str(folder / "conv.pt"))
    _channels_last(folder / "conv.onnx", folder / "nhwc.onnx")
    name = _with_another_weight(folder / "conv.onnx", folder / "broken.onnx")
    (folder / "broken.txt").write_text(name)
    _without_a_runtime(folder / "magic.onnx")
    outputs, x = nets.build(nets.Outputs), {"x": torch.randn(2, 8)}
    _export(outputs, folder / "outputs.onnx", x, "scores", "embedding")
    torch.jit.trace(Reordered(outputs), tuple(x.values())).save(str(folder / "reordered.pt"))
    torch.jit.trace(outputs, tuple(x.values()), strict=False).save(str(folder / "dict.pt"))
    pair = {"second": torch.randn(2, 6), "first": torch.randn(2, 6)}
    _export(nets.Difference(), folder / "difference.onnx", pair, "o")
    renamed = {"u": pair["second"], "v": pair["first"]}
    _export(nets.Difference(), folder / "renamed.onnx", renamed, "o")
    whole = (folder / "conv.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "random.tflite").write_bytes(b"\x1c\0\0\0TFL3" + np.random.default_rng(0).bytes(4000))
    _datasets(folder)
    return folder


def _datasets(folder: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = {
        "x": generator.standard_normal((LABELS, 3, 32, 32)),
        "u": generator.standard_normal((LABELS, 6)),
        "v": 9 * generator.standard_normal((LABELS, 6)),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32))
    np.save(folder / "y.npy", generator.integers(0, 10, LABELS))
    split = "[split]\ncalibration = 8\n"
    (folder / "images.toml").write_text(
        f'source = "numpy"\npath = "x.npy"\nlabels = "y.npy"\n{split}'
    )
    for name, (one, other) in {"pair": ("second", "first"), "odd": ("alpha", "beta")}.items():
        (folder / f"{name}.toml").write_text(
            f'source = "numpy"\n[inputs]\n{one} = "u.npy"\n{other} = "v.npy"\n{split}'
        )
