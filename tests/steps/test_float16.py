from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from tests import nets
from tests.structures import sequences, vision
from workbench.artifact import Artifact, Format
from workbench.errors import RecipeError, StepError
from workbench.onnxgraph import float16
from workbench.onnxgraph.signature import signature
from workbench.steps import Float16, ToOrt

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]


def halved(subject: Artifact, dataset: Any, folder: Path, **options: Any) -> Artifact:
    return Float16(**options).run(subject, nets.context(folder / "half", dataset))


def types(path: Path) -> dict[str, int]:
    """The element type of every initializer by name."""
    return {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    # Wide enough that the weights are most of the file.
    module = nets.build(channels=64)
    return nets.exported(tmp_path_factory.mktemp("onnx"), module, nets.images())


def test_the_file_is_half_as_large_and_keeps_float_inputs_and_outputs(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = halved(float_file, nets.images(), tmp_path)
    assert made.precision == "float16"
    assert 1.8 < float_file.size / made.size < 2
    assert set(types(made.path).values()) <= {TensorProto.FLOAT16, TensorProto.INT64}
    assert (made.inputs, made.outputs) == (float_file.inputs, float_file.outputs)
    images = nets.normal(5, 3, 32, 32, seed=3)
    before, after = (nets.run_onnx(one.path, images)[0] for one in (float_file, made))
    assert after.dtype == np.float32
    assert nets.decibels(before, after) > 50
    assert "100.0 % of the weights are float16; float32 inputs and outputs" in made.notes
    assert made.history[-1] == "float16 keep_io=true"


def test_inputs_and_outputs_are_float16_where_that_is_asked(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = halved(float_file, nets.images(), tmp_path, keep_io=False)
    assert [spec.dtype for spec in (*made.inputs, *made.outputs)] == ["float16", "float16"]
    images = nets.normal(5, 3, 32, 32, seed=3)
    before = nets.run_onnx(float_file.path, images)[0]
    after = nets.run_onnx(made.path, images.astype(np.float16))[0]
    assert after.dtype == np.float16
    assert nets.decibels(before, after) > 50


@pytest.mark.parametrize("name", ["vit", "unet", "detector", "bert", "lstm", "gru"])
def test_every_structure_loads_and_agrees(name: str, tmp_path: Path) -> None:
    module = getattr(sequences if hasattr(sequences, name) else vision, name)()
    if name == "bert":
        ids = np.random.default_rng(0).integers(0, 500, (8, 32))
        data = nets.dataset_of(input_ids=ids, attention_mask=np.ones((8, 32), np.int64))
    elif name in ("lstm", "gru"):
        data = nets.dataset_of(x=nets.normal(8, 32, 12))
    else:
        data = nets.dataset_of(image=nets.normal(8, 3, 64, 64))
    names = ("boxes", "scores") if name == "detector" else ("output",)
    subject = nets.exported(tmp_path / "float", module, data, names)
    made = halved(subject, data, tmp_path)
    assert subject.size / made.size > 1.5
    some = [array[:3] for array in data.examples(8).values()]
    for before, after in zip(
        nets.run_onnx(subject.path, *some), nets.run_onnx(made.path, *some), strict=True
    ):
        assert nets.decibels(before, after) > 50


def graph_file(
    folder: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any], size: int = 8
) -> Artifact:
    """A file with an input x [N, size] and an output y [N, size]."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", size])],
        [numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "made.onnx")
    inputs, outputs = signature(model)
    return Artifact(
        path=folder / "made.onnx", format=Format.ONNX, precision="float32", inputs=inputs,
        outputs=outputs,
    )  # fmt: skip


EIGHT = nets.dataset_of(x=nets.normal(8, 8))


def in_half(path: Path, x: Any) -> Any:
    """The output as a processor gives it that computes float16 in float16: numpy does."""
    with np.errstate(over="ignore", invalid="ignore"):
        return ReferenceEvaluator(str(path)).run(None, {"x": x})[0]


def test_weights_beyond_the_range_stay_in_float32_and_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "tiny"], ["t"]),
        helper.make_node("MatMul", ["t", "large"], ["y"]),
    ]
    weights = {"tiny": [1e-3] * 8, "large": 1e5 * nets.normal(8, 8)}
    subject = graph_file(tmp_path, nodes, weights)
    made = halved(subject, EIGHT, tmp_path)
    assert types(made.path) == {"tiny": TensorProto.FLOAT16, "large": TensorProto.FLOAT}
    assert "float32 for weights beyond 65504: large" in made.notes
    x = nets.normal(4, 8, seed=5)
    assert nets.decibels(nets.run_onnx(subject.path, x)[0], in_half(made.path, x)) > 50


def test_a_filler_beyond_the_range_is_clipped_and_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Where", ["positive", "x", "lowest"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["y"]),
    ]
    lowest = float(np.finfo(np.float32).min)
    subject = graph_file(tmp_path, nodes, {"zero": 0.0, "lowest": lowest})
    data = nets.dataset_of(x=nets.normal(8, 8) + np.eye(8, dtype=np.float32))
    made = halved(subject, data, tmp_path)
    assert "clipped to 65504: -3.4e+38" in made.notes
    assert not any(note.startswith("float32 for") for note in made.notes)
    x = nets.normal(8, 8)
    assert nets.decibels(nets.run_onnx(subject.path, x)[0], in_half(made.path, x)) > 50


class Overflowing(nn.Module):
    """Squares go beyond 65504, the input and the result do not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        size = (1000 * self.linear(x)).pow(2).mean(1, keepdim=True).sqrt()
        return x * size / 1000


def test_nodes_with_values_beyond_the_range_stay_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = nets.exported(tmp_path / "float", nets.build(Overflowing), EIGHT)
    made = halved(subject, EIGHT, tmp_path)
    (note,) = [note for note in made.notes if note.startswith("float32 for values")]
    assert "1 Pow" in note
    x = nets.normal(4, 8, seed=5)
    expected = nets.run_onnx(subject.path, x)[0]
    assert nets.decibels(expected, in_half(made.path, x)) > 50
    assert types(made.path)["linear.bias"] == TensorProto.FLOAT16
    # Nothing else shows it on this machine, whose runtime computes the same file in float32.
    monkeypatch.setattr(float16, "large_values", lambda *_: set())
    blind = halved(subject, EIGHT, tmp_path / "blind")
    assert nets.decibels(expected, nets.run_onnx(blind.path, x)[0]) > 50
    assert not np.isfinite(in_half(blind.path, x)).all()


def test_large_outputs_come_through_as_float32_or_not_at_all(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "scale"], ["y"]),
    ]
    weights = {"w": nets.normal(8, 8), "scale": 60000.0}
    subject = graph_file(tmp_path, nodes, weights)
    made = halved(subject, EIGHT, tmp_path / "kept")
    x = nets.normal(4, 8, seed=5)
    expected = nets.run_onnx(subject.path, x)[0]
    assert np.abs(expected).max() > 65504
    assert nets.decibels(expected, in_half(made.path, x)) > 50
    with pytest.raises(StepError, match="y: values near or beyond 65504") as caught:
        halved(subject, EIGHT, tmp_path / "half", keep_io=False)
    assert "keep_io=true" in caught.value.fix


def test_named_operators_stay_in_float32(float_file: Artifact, tmp_path: Path) -> None:
    made = halved(float_file, nets.images(), tmp_path, keep=("Conv",))
    shapes = {t.name: t for t in onnx.load(made.path).graph.initializer}
    kernels = [t for t in shapes.values() if len(t.dims) == 4]
    assert {t.data_type for t in kernels} == {TensorProto.FLOAT}


def test_the_least_sqnr_decides(float_file: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="loses too much") as caught:
        halved(float_file, nets.images(), tmp_path, least=90.0)
    assert "at least 90 expected" in caught.value.why


def test_a_quantized_file_is_refused(float_file: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="int8, not float32"):
        halved(replace(float_file, precision="int8"), nets.images(), tmp_path)


def test_the_mobile_format_keeps_float16_weights_in_the_runtime_style(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = halved(float_file, nets.images(), tmp_path)
    sizes = {}
    for style in ("runtime", "fixed"):
        context = nets.context(tmp_path / style, nets.images())
        sizes[style] = ToOrt(style=style).run(made, context).size  # type: ignore[arg-type]
    assert sizes["runtime"] < float_file.size < sizes["fixed"] * 1.5
    assert sizes["runtime"] < sizes["fixed"]


@pytest.mark.parametrize("options", [{"keep_io": 1}, {"keep": "Pow"}, {"least": -1.0}])
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        Float16(**options)
