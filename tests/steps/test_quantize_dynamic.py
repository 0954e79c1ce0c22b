from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from tests import nets
from tests.structures import sequences
from workbench.artifact import Artifact, Format
from workbench.device.profile import Device
from workbench.errors import RecipeError, StepError
from workbench.onnxgraph import rewrites, walk
from workbench.onnxgraph.signature import signature
from workbench.quantization.dynamic import weight_only
from workbench.steps import QuantizeDynamic

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

TOKENS = nets.dataset_of(
    input_ids=np.random.default_rng(0).integers(0, 500, (8, 32)),
    attention_mask=(np.arange(32) < np.arange(32, 8, -3)[:, None]).astype(np.int64),
)
SERIES = nets.dataset_of(x=nets.normal(8, 32, 12))


def file_of(folder: Path, module: nn.Module, dataset: Any) -> Artifact:
    return nets.exported(folder / "float", module, dataset)


def quantized(subject: Artifact, dataset: Any, folder: Path, **options: Any) -> Artifact:
    more = {"device": options.pop("device")} if "device" in options else {}
    context = nets.context(folder / "int8", dataset, **more)
    return QuantizeDynamic(**options).run(subject, context)


def operators(path: Path) -> Counter[str]:
    return walk.operators(onnx.load(path).graph)


def outputs(path: Path, dataset: Any) -> np.ndarray[Any, Any]:
    """Of every sample, run alone."""
    inputs = dataset.examples(8)
    return np.concatenate(
        [nets.run_onnx(path, *(a[i : i + 1] for a in inputs.values()))[0] for i in range(8)]
    )


def loss(subject: Artifact, made: Artifact, dataset: Any) -> float:
    if not nets.EXACT:
        pytest.skip("MatMulInteger saturates on this CPU, without VNNI")
    return nets.decibels(outputs(subject.path, dataset), outputs(made.path, dataset))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return file_of(tmp_path_factory.mktemp("bert"), sequences.bert(), TOKENS)


def test_a_transformers_products_are_in_integers_and_its_tables_in_int8(
    bert: Artifact, tmp_path: Path
) -> None:
    made = quantized(bert, TOKENS, tmp_path)
    found = operators(made.path)
    # Two layers of six products and the pooler; the head has 256 weights, and stays float, as do
    # the products of two activations.
    assert found["MatMulInteger"] == 13
    assert found["MatMul"] == 2 * 2 + 1
    assert found["Gemm"] == 0
    stored = {t.name: t for t in onnx.load(made.path).graph.initializer}
    assert [500, 64] in [list(t.dims) for t in stored.values() if t.data_type == TensorProto.INT8]
    assert bert.size / made.size > 2.8
    assert loss(bert, made, TOKENS) > 28
    assert (made.format, made.precision) == (Format.ONNX, "dynamic-int8")
    assert made.inputs == bert.inputs
    assert made.history == (*bert.history, "quantize_dynamic s8 weights")
    assert "in integers: 13 MatMul" in made.notes
    assert "weights INT8, computed in float: 1 embedding table" in made.notes
    assert not list(made.path.parent.glob("prepared*"))


def test_embeddings_are_left_where_that_is_asked(bert: Artifact, tmp_path: Path) -> None:
    made = quantized(bert, TOKENS, tmp_path, embeddings=False)
    floats = [list(t.dims) for t in onnx.load(made.path).graph.initializer if t.data_type == 1]
    assert [500, 64] in floats


class Images(nn.Module):
    """Convolutions and a large linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 32, 3, 2)
        self.linear = nn.Linear(32, 512)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.linear(self.convolution(image).relu().mean((2, 3)))
        return result


def test_convolutions_are_never_quantized(tmp_path: Path) -> None:
    subject = file_of(tmp_path, nets.build(Images), nets.images())
    found = operators(quantized(subject, nets.images(), tmp_path).path)
    assert found["Conv"] == 1
    assert found["ConvInteger"] == 0
    assert found["MatMulInteger"] == 1


def test_a_network_of_convolutions_alone_is_refused_by_its_operators(tmp_path: Path) -> None:
    subject = file_of(tmp_path, nets.build(), nets.images())
    with pytest.raises(StepError, match="nothing that dynamic INT8") as caught:
        quantized(subject, nets.images(), tmp_path)
    assert "3 Conv" in caught.value.why
    assert "mobile-int8" in caught.value.fix
    made = quantized(subject, nets.images(), tmp_path / "all", smallest=0)
    assert operators(made.path)["MatMulInteger"] == 1


def test_a_gru_keeps_int8_weights_and_computes_in_float(tmp_path: Path) -> None:
    subject = file_of(tmp_path, sequences.gru(), SERIES)
    made = quantized(subject, SERIES, tmp_path)
    found = operators(made.path)
    assert (found["GRU"], found["DequantizeLinear"]) == (1, 2)
    scales = [t for t in onnx.load(made.path).graph.initializer if t.name.endswith("_scale")]
    assert sorted(list(t.dims) for t in scales) == [[192], [192]]  # 2 directions × 3 gates × 32
    assert subject.size / made.size > 2.2
    assert loss(subject, made, SERIES) > 45
    assert "weights INT8, computed in float: 1 GRU" in made.notes


def test_an_lstm_of_both_directions_runs_in_integers(tmp_path: Path) -> None:
    subject = file_of(tmp_path, sequences.lstm(), SERIES)
    made = quantized(subject, SERIES, tmp_path)
    assert operators(made.path)["com.microsoft:DynamicQuantizeLSTM"] == 1
    assert loss(subject, made, SERIES) > 40


class Twins(nn.Module):
    """Two recurrent layers of the same initial weights, as the exporter writes once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(32, 32, batch_first=True)
        self.second = nn.LSTM(32, 32, batch_first=True)
        self.second.load_state_dict(self.first.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x)[0])[0]
        return result


def test_weights_that_two_nodes_share_are_quantized_apart_and_stored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = nets.dataset_of(x=nets.normal(8, 6, 32))
    subject = file_of(tmp_path, nets.build(Twins), data)
    taken = Counter(i for node in onnx.load(subject.path).graph.node for i in node.input)
    weights = {t.name for t in onnx.load(subject.path).graph.initializer if len(t.dims) == 3}
    assert any(taken[name] > 1 for name in weights), "the exporter shares no weights any more"
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["com.microsoft:DynamicQuantizeLSTM"] == 2
    assert loss(subject, made, data) > 30
    assert subject.size / made.size > 2  # 1.5 with a copy for each
    # Without un-sharing onnxruntime's quantizer reshapes the shared weights twice.
    monkeypatch.setattr(rewrites, "unshare", lambda graph, wanted: 0)
    with pytest.raises(StepError, match="does not run"):
        quantized(subject, data, tmp_path / "shared")


class Clones(nn.Module):
    """Equal square layers, as an untrained transformer's: shared, and behind Identity nodes."""

    def __init__(self) -> None:
        super().__init__()
        one = nn.Linear(64, 64)
        self.layers = nn.ModuleList([one, nn.Linear(64, 64), nn.Linear(64, 64)])
        for layer in self.layers:
            layer.load_state_dict(one.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_clones_are_all_quantized(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 5, 64))
    subject = file_of(tmp_path, nets.build(Clones), data)
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["MatMulInteger"] == 3
    matrices = [t for t in onnx.load(made.path).graph.initializer
                if list(t.dims) == [64, 64]]  # fmt: skip
    assert len(matrices) == 1
    assert loss(subject, made, data) > 30


def test_a_wrong_conversion_is_an_error(
    bert: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = weight_only.rows_to_int8

    def mixed_up(matrix: Any) -> Any:
        rows, scales = right(matrix)
        return rows[::-1], scales

    monkeypatch.setattr(weight_only, "rows_to_int8", mixed_up)
    with pytest.raises(StepError, match="outputs differ"):
        quantized(bert, TOKENS, tmp_path)


def test_what_is_lost_honestly_is_said(
    bert: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = weight_only.rows_to_int8

    def coarse(matrix: Any) -> Any:
        rows, scales = right(matrix)
        return (rows // 48) * 48, scales

    monkeypatch.setattr(weight_only, "rows_to_int8", coarse)
    made = quantized(bert, TOKENS, tmp_path)
    assert made.notes[-1].startswith("loses much: SQNR ")
    assert 5 < loss(bert, made, TOKENS) < 14


def stored(path: Path) -> list[np.ndarray[Any, Any]]:
    arrays = [numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return [a for a in arrays if a.dtype in (np.int8, np.uint8) and a.ndim == 2]


@pytest.mark.parametrize(
    ("weights", "isa", "kind", "most"),
    [("auto", nets.VNNI, "int8", 127), ("auto", nets.PLAIN_X86, "int8", 64),
     ("s8", nets.VNNI, "int8", 127), ("u8", nets.PLAIN_X86, "uint8", 255)],
)  # fmt: skip
def test_the_weights_type_follows_the_isa(
    weights: str, isa: tuple[str, ...], kind: str, most: int, bert: Artifact, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("workbench.device.probe.architecture", lambda: "x86")
    device = Device(name="one", isa=isa)
    made = quantized(bert, TOKENS, tmp_path, weights=weights, device=device, embeddings=False)
    found = stored(made.path)
    assert {str(a.dtype) for a in found} == {kind}
    assert most - 2 <= max(int(np.abs(a.astype(int)).max()) for a in found) <= most
    assert loss(bert, made, TOKENS) > 20


def test_named_nodes_are_left_alone(bert: Artifact, tmp_path: Path) -> None:
    names = [node.name for node in onnx.load(bert.path).graph.node if node.op_type == "MatMul"]
    left = tuple(name for name in names if "/layers.0/" in name)[:2]
    made = quantized(bert, TOKENS, tmp_path, exclude=left)
    assert operators(made.path)["MatMulInteger"] == 11
    with pytest.raises(StepError, match="there is no node"):
        quantized(bert, TOKENS, tmp_path / "typo", exclude=("/layers.0/quary/MatMul",))


def graph_file(
    folder: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any], opset: int = 17,
    shape: tuple[int, ...] = (5, 64),
) -> Artifact:  # fmt: skip
    """A file with an input x [N, *shape] and an output y of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "made.onnx")
    inputs, outputs = signature(model)
    return Artifact(
        path=folder / "made.onnx",
        format=Format.ONNX,
        precision="float32",
        inputs=inputs,
        outputs=outputs,
    )


@pytest.mark.skipif(not nets.EXACT, reason="MatMulInteger saturates here, without VNNI")
@pytest.mark.parametrize(("per_channel", "least", "most"), [(True, 35, 60), (False, 0, 15)])
def test_one_scale_a_channel_keeps_small_channels(
    per_channel: bool, least: float, most: float, tmp_path: Path
) -> None:
    weights = nets.normal(64, 96)
    weights[:, ::2] *= 0.01
    subject = graph_file(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights})
    data = nets.dataset_of(x=nets.normal(8, 5, 64))
    made = quantized(subject, data, tmp_path, per_channel=per_channel)
    before, after = outputs(subject.path, data), outputs(made.path, data)
    assert least < nets.decibels(before[..., ::2], after[..., ::2]) < most


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_a_bias_is_quantized_either_way_round(transposed: int, tmp_path: Path) -> None:
    weights = {"w": nets.normal(*((96, 64) if transposed else (64, 96))), "b": nets.normal(96)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=transposed)]
    subject = graph_file(tmp_path, nodes, weights, shape=(64,))
    data = nets.dataset_of(x=nets.normal(8, 64))
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["MatMulInteger"] == 1
    assert loss(subject, made, data) > 35


@pytest.mark.parametrize("attribute", [{"alpha": 0.5}, {"beta": 2.0}])
def test_a_scaled_gemm_stays_float(attribute: dict[str, float], tmp_path: Path) -> None:
    weights = {"w": nets.normal(64, 96), "b": nets.normal(96), "v": nets.normal(96, 64)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["m"], **attribute),
             helper.make_node("MatMul", ["m", "v"], ["y"])]  # fmt: skip
    subject = graph_file(tmp_path, nodes, weights, shape=(64,))
    data = nets.dataset_of(x=nets.normal(8, 64))
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["Gemm"] == 1
    assert loss(subject, made, data) > 30


def test_weights_behind_identity_and_transpose_are_seen(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("Transpose", ["w2"], ["w3"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w3"], ["y"]),
    ]
    subject = graph_file(tmp_path, nodes, {"w": nets.normal(96, 64)})
    data = nets.dataset_of(x=nets.normal(8, 5, 64))
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["MatMulInteger"] == 1
    assert operators(made.path)["Transpose"] == 0
    assert loss(subject, made, data) > 35


def test_attention_with_a_bias_that_the_quantizer_would_drop_stays_float(tmp_path: Path) -> None:
    weights = {"w": nets.normal(64, 192), "b": nets.normal(192), "v": nets.normal(64, 96),
               "bias": 9 * nets.normal(1, 4, 5, 5)}  # fmt: skip
    nodes = [
        helper.make_node("Attention", ["x", "w", "b", "", "", "bias"], ["m"],
                         domain="com.microsoft", num_heads=4),
        helper.make_node("MatMul", ["m", "v"], ["y"]),
    ]  # fmt: skip
    subject = graph_file(tmp_path, nodes, weights)
    data = nets.dataset_of(x=nets.normal(8, 5, 64))
    made = quantized(subject, data, tmp_path)
    assert operators(made.path)["com.microsoft:Attention"] == 1
    assert loss(subject, made, data) > 30


def test_an_opset_without_scales_a_row_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    subject = graph_file(tmp_path, nodes, {"w": nets.normal(64, 96)}, opset=11)
    data = nets.dataset_of(x=nets.normal(8, 5, 64))
    with pytest.raises(StepError, match="opset 11, dynamic INT8 needs 13"):
        quantized(subject, data, tmp_path)


def test_rows_of_zeros_stay_zeros() -> None:
    matrix = nets.normal(4, 8)
    matrix[2] = 0
    rows, scales = weight_only.rows_to_int8(matrix)
    assert np.isfinite(scales).all()
    assert rows.dtype == np.int8
    np.testing.assert_array_equal(rows[2], 0)
    np.testing.assert_allclose(rows * scales[:, None], matrix, atol=float(scales.max()) / 2)
    assert np.abs(rows[[0, 1, 3]]).max(axis=1).tolist() == [127, 127, 127]


@pytest.mark.parametrize(
    "options", [{"weights": "s4"}, {"smallest": -1}, {"exclude": "name"}, {"per_channel": 1}]
)
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        QuantizeDynamic(**options)
