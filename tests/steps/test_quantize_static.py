from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.artifact import Artifact
from workbench.dataset import Dataset
from workbench.device.profile import Device
from workbench.errors import DatasetError, RecipeError, StepError
from workbench.steps import QuantizeStatic

SAMPLES = 21  # not a multiple of the batch that calibration reads


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images(SAMPLES))


def quantized(float_file: Artifact, folder: Path, device: Device | None = None, **options: Any):  # type: ignore[no-untyped-def]
    more = {"device": device} if device else {}
    context = nets.context(folder, nets.images(SAMPLES), **more)
    return QuantizeStatic(**options).run(float_file, context)


class Graph:
    """An ONNX file's nodes by what they give, and its initializers as arrays."""

    def __init__(self, path: Path) -> None:
        self.graph = onnx.load(path).graph
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
        self.arrays = {one.name: numpy_helper.to_array(one) for one in self.graph.initializer}

    def of(self, operator: str) -> list[onnx.NodeProto]:
        return [node for node in self.graph.node if node.op_type == operator]

    @cache  # noqa: B019
    def weights(self) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """Every convolution's and product's stored weights, with their scales."""
        found = []
        for node in [*self.of("Conv"), *self.of("Gemm"), *self.of("MatMul")]:
            dequantize = self.makers[node.input[1]]
            assert dequantize.op_type == "DequantizeLinear"
            found.append((self.arrays[dequantize.input[0]], self.arrays[dequantize.input[1]]))
        return found

    def activation_types(self) -> set[str]:
        return {str(self.arrays[node.input[2]].dtype) for node in self.of("QuantizeLinear")}


def test_convolutions_stand_between_quantize_and_dequantize(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = quantized(float_file, tmp_path)
    graph = Graph(made.path)
    assert len(graph.of("Conv")) == 3
    for node in graph.of("Conv"):
        before = graph.makers[node.input[0]]
        assert before.op_type == "DequantizeLinear"
        assert graph.makers[before.input[0]].op_type == "QuantizeLinear"
        after = graph.takers[node.output[0]]
        while after[0].op_type in ("Relu", "Clip"):
            after = graph.takers[after[0].output[0]]
        assert after[0].op_type == "QuantizeLinear"
    assert (made.precision, made.format) == ("int8", "onnx")
    assert made.inputs == float_file.inputs
    assert made.history[-1] == f"quantize u8s8 balanced samples={SAMPLES}"


@pytest.mark.parametrize(
    ("scheme", "activations", "most"),
    [("u8s8", "uint8", 127), ("u8s8-reduced", "uint8", 64), ("s8s8", "int8", 127),
     ("s8s8-symmetric", "int8", 127)],
)  # fmt: skip
def test_the_scheme_decides_types_and_range(
    scheme: str, activations: str, most: int, float_file: Artifact, tmp_path: Path
) -> None:
    made = quantized(float_file, tmp_path, scheme=scheme)
    graph = Graph(made.path)
    assert graph.activation_types() == {activations}
    stored = [weights for weights, _ in graph.weights()]
    assert {str(weights.dtype) for weights in stored} == {"int8"}
    largest = max(int(np.abs(weights.astype(int)).max()) for weights in stored)
    assert most - 1 <= largest <= most
    some = nets.normal(16, 3, 32, 32, seed=5)
    before, after = nets.run_onnx(float_file.path, some), nets.run_onnx(made.path, some)
    assert nets.decibels(before[0], after[0]) > 15
    zeros = {int(graph.arrays[node.input[2]].max()) for node in graph.of("QuantizeLinear")}
    assert (zeros == {0}) == (scheme == "s8s8-symmetric")


def test_each_output_channel_has_a_scale(float_file: Artifact, tmp_path: Path) -> None:
    made = quantized(float_file, tmp_path)
    convolutions = [pair for pair in Graph(made.path).weights() if pair[0].ndim == 4]
    assert len(convolutions) == 3
    for weights, scales in convolutions:
        assert scales.size == len(weights) == len(np.unique(scales))


def read_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """Lowest and highest by tensor, from onnxruntime's own JSON."""
    from onnxruntime.quantization.calibrate import load_tensors_data

    tensors = load_tensors_data(path).items()
    return {name: (float(low), float(high)) for name, data in tensors
            for low, high in [data.range_value]}  # fmt: skip


@pytest.mark.parametrize("samples", [None, 5])
def test_ranges_are_those_of_exactly_the_samples(
    samples: int | None, float_file: Artifact, tmp_path: Path
) -> None:
    data = nets.images(SAMPLES)
    made = QuantizeStatic(samples=samples).run(float_file, nets.context(tmp_path, data))
    ranges = made.companions[0]
    assert ranges == tmp_path / "ranges.json"
    found = read_ranges(ranges)
    used = nets.normal(SAMPLES, 3, 32, 32)[: samples or SAMPLES]
    low, high = found["image"]
    assert (low, high) == pytest.approx((float(used.min()), float(used.max())), rel=1e-6)
    assert "output" not in found  # logits stay float
    assert made.notes[1] == f"{samples or SAMPLES} calibration samples"


def test_a_calibrated_scale_is_the_range_over_255_steps(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = quantized(float_file, tmp_path, scheme="u8s8")
    graph = Graph(made.path)
    (node,) = [n for n in graph.of("QuantizeLinear") if n.input[0] == "image"]
    used = nets.normal(SAMPLES, 3, 32, 32)
    wanted = (float(used.max()) - float(used.min())) / 255
    assert float(graph.arrays[node.input[1]]) == pytest.approx(wanted, rel=1e-5)


def test_nothing_is_left_beside_the_result(float_file: Artifact, tmp_path: Path) -> None:
    content = float_file.path.read_bytes()
    quantized(float_file, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.int8.onnx", "ranges.json", "quantization.json",
    }  # fmt: skip
    assert float_file.path.read_bytes() == content


def test_a_file_of_fixed_batch_is_calibrated_one_by_one(tmp_path: Path) -> None:
    module, data = nets.build(), nets.images(5)
    fixed = nets.exported(tmp_path / "onnx", module, data, dynamic_batch=False)
    made = QuantizeStatic().run(fixed, nets.context(tmp_path / "out", data))
    used = nets.normal(5, 3, 32, 32)
    found = read_ranges(made.companions[0])["image"]
    assert found == pytest.approx((float(used.min()), float(used.max())), rel=1e-6)
    assert made.inputs[0].shape[0] == 1
    after = np.concatenate([nets.run_onnx(made.path, one[None])[0] for one in used])
    assert nets.decibels(nets.run_torch(module, used).numpy(), after) > 15


@pytest.mark.parametrize(
    ("isa", "scheme", "activations"),
    [(nets.VNNI, "u8s8", "uint8"), (("avx_vnni",), "u8s8", "uint8"),
     (nets.PLAIN_X86, "u8s8-reduced", "uint8")],
)  # fmt: skip
def test_auto_follows_the_devices_isa(
    isa: tuple[str, ...], scheme: str, activations: str, float_file: Artifact, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("workbench.device.probe.architecture", lambda: "x86")
    made = quantized(float_file, tmp_path, Device(name="one", isa=isa))
    assert made.notes[0].startswith(f"{scheme},")
    graph = Graph(made.path)
    assert graph.activation_types() == {activations}
    largest = max(int(np.abs(weights.astype(int)).max()) for weights, _ in graph.weights())
    assert (largest <= 64) == (scheme == "u8s8-reduced")


def test_auto_is_signed_on_arm(
    float_file: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.device.probe.architecture", lambda: "arm")
    made = quantized(float_file, tmp_path, Device(name="one", isa=("asimddp",)))
    assert Graph(made.path).activation_types() == {"int8"}


def test_more_samples_than_there_are_is_the_datasets_error(
    float_file: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=rf"30 calibration .* testing has {SAMPLES}"):
        quantized(float_file, tmp_path, samples=30)


def test_no_calibration_split_is_the_datasets_error(float_file: Artifact, tmp_path: Path) -> None:
    from workbench.dataset import random_dataset

    with pytest.raises(DatasetError, match="no calibration samples"):
        QuantizeStatic().run(float_file, nets.context(tmp_path, random_dataset(float_file.inputs)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_named(
    value: float, float_file: Artifact, tmp_path: Path
) -> None:
    arrays = nets.normal(SAMPLES, 3, 32, 32)
    arrays[13, 1, 2, 3] = value
    with pytest.raises(DatasetError, match=r"calibration\.npz, row 13: .* NaN or Inf"):
        QuantizeStatic().run(float_file, nets.context(tmp_path, nets.dataset_of(image=arrays)))


def test_a_graph_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    from workbench.model import ModelSource
    from workbench.sources.onnx_model import load_onnx

    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["s"]), helper.make_node("Erf", ["s"], ["y"])],
        "none",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "sines.onnx")
    data = nets.dataset_of(x=nets.normal(8, 8))
    (tmp_path / "in").mkdir()
    source = ModelSource(spec="sines.onnx", folder=tmp_path)
    subject = load_onnx(source, data.examples(), tmp_path / "in")
    with pytest.raises(StepError, match="nothing could be quantized") as caught:
        QuantizeStatic().run(subject, nets.context(tmp_path / "out", data))
    assert "Erf, Sin" in caught.value.why


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0}, {"scheme": "s8u8"}, {"preset": "quick"}, {"runtime": "onnx"},
        {"optimize": "size"}, {"max_drop": -1.0}, {"whole": "yes"}, {"exclude": "name"},
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_construction(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        QuantizeStatic(**options)


def test_named_nodes_stay_float(float_file: Artifact, tmp_path: Path) -> None:
    names = [n.name for n in onnx.load(float_file.path).graph.node if n.op_type == "Conv"]
    made = quantized(float_file, tmp_path, exclude=(names[1],))
    graph = Graph(made.path)
    stored = {n.name: graph.makers.get(n.input[1]) for n in graph.of("Conv")}
    assert stored[names[1]] is None
    assert stored[names[0]] is not None
    assert f"in float as asked: {names[1]}" in made.notes
    with pytest.raises(StepError, match="there is no node") as caught:
        quantized(float_file, tmp_path / "typo", exclude=(names[1] + "x",))
    assert names[1] in caught.value.fix


def test_a_quantized_model_is_refused(float_file: Artifact, tmp_path: Path) -> None:
    made = quantized(float_file, tmp_path / "once")
    with pytest.raises(StepError, match="quantized already") as caught:
        QuantizeStatic().run(made, nets.context(tmp_path / "twice", nets.images(SAMPLES)))
    assert "wb profile" in caught.value.fix


@pytest.mark.parametrize("preset", ["fast", "balanced", "best"])
def test_every_preset_is_near_to_float(preset: str, float_file: Artifact, tmp_path: Path) -> None:
    made = quantized(float_file, tmp_path, preset=preset)
    assert made.history[-1] == f"quantize u8s8 {preset} samples={SAMPLES}"
    new = nets.normal(40, 3, 32, 32, seed=9)
    before, after = (nets.run_onnx(one.path, new)[0] for one in (float_file, made))
    assert nets.decibels(before, after) > 28


def budgeted(float_file: Artifact, folder: Path, max_drop: float) -> Artifact:
    calibration = nets.split_of(image=nets.normal(SAMPLES, 3, 32, 32))
    evaluation = nets.split_of("evaluation", image=nets.normal(400, 3, 32, 32, seed=4))
    context = nets.context(folder, Dataset("made", calibration, evaluation))
    return QuantizeStatic(max_drop=max_drop).run(float_file, context)


def test_a_budget_is_held_on_evaluation_samples(float_file: Artifact, tmp_path: Path) -> None:
    made = budgeted(float_file, tmp_path, 20)
    (note,) = [one for one in made.notes if one.startswith("max_drop=20: agreement with FP32")]
    assert "that the search never used" in note
    found = json.loads((tmp_path / "quantization.json").read_text(encoding="utf-8"))
    assert found["budget"]["held"] == "interval"
    assert found["budget"]["drop"]["high"] <= 20


def test_where_no_int8_holds_the_budget_fp32_is_handed_on(
    float_file: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.quantization.search import predictions

    def wrong(self: Any, model: onnx.ModelProto, rows: Any) -> Any:
        return np.zeros(len(rows), bool)  # whatever is in INT8

    monkeypatch.setattr(predictions.ClassPredictions, "__call__", wrong)
    made = budgeted(float_file, tmp_path, 1)
    assert made.precision == "float32"
    assert made.path.read_bytes() == float_file.path.read_bytes()
    assert made.notes[-1].endswith("handed on in FP32")
    assert [one.name for one in tmp_path.iterdir()] == [made.path.name]
