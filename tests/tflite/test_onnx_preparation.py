from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests import nets
from workbench.errors import StepError
from workbench.onnxgraph.session import run_samples
from workbench.tflite import onnx_preparation
from workbench.tflite.onnx_preparation import name_plainly, prepare_graph

pytestmark = pytest.mark.filterwarnings("ignore:::torch")


class Encoder(nn.Module):
    """Token ids and a mask through PyTorch's own encoder layer, with a Gelu."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.layers(self.words(ids), src_key_padding_mask=mask == 0).mean(1)
        return result


def encoder(folder: Path) -> tuple[Path, dict[str, Any]]:
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 7, 6)
    samples = {
        "ids": generator.integers(0, 20, (6, 6)),
        "mask": (np.arange(6) < lengths[:, None]).astype(np.int64),
    }
    return nets.exported(folder, nets.build(Encoder), nets.dataset_of(**samples)).path, samples


def saved(folder: Path, *nodes: onnx.NodeProto, shape: tuple[int, ...] = (1, 4)) -> Path:
    real = TensorProto.FLOAT
    graph = helper.make_graph(
        list(nodes), "graph", [helper.make_tensor_value_info("x", real, shape)],
        [helper.make_tensor_value_info("y", real, None)],
        [numpy_helper.from_array(np.float32([1, 2, 3, 4]), "weight")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def test_a_graph_is_prepared_and_every_change_is_said(tmp_path: Path) -> None:
    path, samples = encoder(tmp_path)
    before = path.read_bytes()
    model, expected, notes = prepare_graph(path, samples)
    onnx.checker.check_model(model, full_check=True)
    kinds = {node.op_type for node in model.graph.node}
    assert kinds.isdisjoint({"Erf", "LayerNormalization", "Shape"})
    assert "Gelu" in kinds
    assert notes[0] == "opset raised from 17 to 20 for 1 Gelu"
    assert "masks bounded" in notes[1]
    assert len(notes) == 2
    (wanted,) = nets.run_onnx(path, *samples.values())
    np.testing.assert_allclose(expected[0], wanted, rtol=1e-4, atol=1e-6)
    assert nets.decibels(wanted, run_samples(model, samples)[0]) > onnx_preparation.LEAST
    assert path.read_bytes() == before


def test_embeddings_are_rewritten_for_16_bits_alone(tmp_path: Path) -> None:
    path, samples = encoder(tmp_path)
    for wide, wanted in ((False, "Gather"), (True, "GatherND")):
        model, *_ = prepare_graph(path, samples, wide)
        assert wanted in {node.op_type for node in model.graph.node}


def test_a_rewrite_that_changes_the_outputs_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted_weights(model: onnx.ModelProto, _inputs: Any) -> tuple[onnx.ModelProto, str]:
        (weight,) = model.graph.initializer
        array = numpy_helper.to_array(weight) + 0.01
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float32), weight.name))
        return model, ""

    monkeypatch.setattr(onnx_preparation, "REWRITES", (shifted_weights,))
    path = saved(tmp_path, helper.make_node("Mul", ["x", "weight"], ["y"]))
    with pytest.raises(StepError, match=r"shifted weights.*differ"):
        prepare_graph(path, {"x": nets.normal(3, 4)})


def test_a_rewrite_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto, _inputs: Any) -> tuple[onnx.ModelProto, str]:
        raise ValueError("no\nsuch thing")

    monkeypatch.setattr(onnx_preparation, "REWRITES", (broken,))
    path = saved(tmp_path, helper.make_node("Mul", ["x", "weight"], ["y"]))
    with pytest.raises(StepError, match=r"prepared for TFLite \(broken\)") as caught:
        prepare_graph(path, {"x": nets.normal(3, 4)})
    assert caught.value.why == "ValueError: no"


def test_an_operator_without_a_counterpart_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, helper.make_node("Erf", ["x"], ["y"], "/error"))
    with pytest.raises(StepError, match=r"operator Erf \(/error\) has no TFLite counterpart"):
        prepare_graph(path, {"x": nets.normal(3, 4)})


def test_samples_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, helper.make_node("Mul", ["x", "weight"], ["y"]))
    with pytest.raises(StepError, match="cannot run the file on the dataset's samples"):
        prepare_graph(path, {"x": nets.normal(3, 5)})


def test_names_are_such_as_tensorflow_takes(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
            return left - right, left

    samples = {"1:left": nets.normal(3, 4), "/right": nets.normal(3, 4, seed=1)}
    made = nets.exported(tmp_path, Two(), nets.dataset_of(**samples), ("a:0", "a:1"))
    model = onnx.load(made.path)
    swapped = dict(reversed(samples.items()))
    wanted = run_samples(model, samples)
    name_plainly(model, swapped)
    onnx.checker.check_model(model)
    assert [value.name for value in model.graph.input] == ["wb_input_0", "wb_input_1"]
    assert [value.name for value in model.graph.output] == ["wb_output_0", "wb_output_1"]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(name[0].isalnum() and ":" not in name for name in names)
    renamed = dict(zip(("wb_input_0", "wb_input_1"), swapped.values(), strict=True))
    for before, after in zip(wanted, run_samples(model, renamed), strict=True):
        np.testing.assert_array_equal(after, before)


def test_every_kind_of_bidirectional_network_comes_out_as_products(tmp_path: Path) -> None:
    made = nets.exported(
        tmp_path, nets.build(nets.TwoWayLstm), nets.dataset_of(x=nets.normal(4, 7, 6))
    )
    model, _, notes = prepare_graph(made.path, {"x": nets.normal(4, 7, 6)})
    assert notes == ["LSTM unrolled in 14 steps"]
    assert "LSTM" not in {node.op_type for node in model.graph.node}
    assert "LSTM" in {node.op_type for node in onnx.load(made.path).graph.node}
