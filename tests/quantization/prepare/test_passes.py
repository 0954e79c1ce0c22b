from __future__ import annotations

import importlib.util
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from tests import nets, structures
from tests.quantization.prepare.graphs import graph_of, kinds, run, same, samples
from tests.structures import sequences, vision
from workbench.errors import StepError
from workbench.onnxgraph.view import RewriteContext
from workbench.quantization.prepare import passes
from workbench.quantization.prepare.passes import already_quantized, prepare_model

node = helper.make_node


def structure(name: str, folder: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    module = getattr(sequences if name in structures.SEQUENCES else vision, name)()
    project = structures.write(name, folder, 4)
    inputs = {path.stem: np.load(path) for path in sorted(project.glob("*.npy"))}
    if "image" in inputs:
        pixels = inputs["image"].transpose(0, 3, 1, 2).astype(np.float32)
        inputs["image"] = (pixels / 255 - 0.45) / 0.225
    names = {"bert": ["input_ids", "attention_mask"]}.get(name, list(inputs))
    dataset = nets.dataset_of(**{one: inputs[one] for one in names})
    outputs = ("boxes", "scores") if name == "detector" else ("output",)
    return onnx.load(nets.exported(folder, module, dataset, outputs).path), inputs


@pytest.mark.parametrize("name", structures.STRUCTURES)
def test_every_structure_keeps_its_function(name: str, tmp_path: Path) -> None:
    model, inputs = structure(name, tmp_path)
    before = model.SerializeToString()
    batches = [{key: array[:n] for key, array in inputs.items()} for n in (1, 3)]
    wanted = [run(model, batch) for batch in batches]
    for target in ("ort", "tflite"):
        found = prepare_model(model, inputs, target=target)
        assert model.SerializeToString() == before
        onnx.checker.check_model(found.model, full_check=True)
        assert not any("left as it was" in note for note in found.notes)
        for expected, batch in zip(wanted, batches, strict=True):
            for one, other in zip(expected, run(found.model, batch), strict=True):
                assert nets.decibels(one, other) > 90
        counts = Counter(kinds(found.model))
        assert not counts.keys() & {"Constant", "Identity", "Dropout", "BatchNormalization", "Pad"}
        assert counts["Shape"] <= 1
        named = [one.name for one in found.model.graph.node]
        assert len(set(named)) == len(named)
        if name == "control_flow":
            assert found.notes[-1].startswith("left in float, with what is inside: If ")


def test_a_rewrite_that_changes_the_outputs_is_taken_back(monkeypatch: Any) -> None:
    def wrong(model: onnx.ModelProto, _given: RewriteContext) -> int:
        model.graph.node[0].op_type = "Neg"
        return 1

    def broken(model: onnx.ModelProto, _given: RewriteContext) -> int:
        model.graph.node[0].input[0] = "nothing"
        return 2

    rewrites = ((wrong, "signs turned"), (broken, "tensors lost"), *passes.REWRITES)
    monkeypatch.setattr(passes, "REWRITES", rewrites)
    model = graph_of([node("Relu", ["x"], ["a"]), node("Identity", ["a"], ["y"])])
    found = prepare_model(model, samples(model))
    same(model, found.model)
    assert kinds(found.model) == ["Relu"]
    assert found.notes[0].startswith("left as it was: signs turned (1), for then the outputs keep")
    assert found.notes[1].startswith("left as it was: tensors lost (2), for then it does not run")


def test_a_rewrite_right_for_one_sample_alone_is_taken_back(monkeypatch: Any) -> None:
    def single(model: onnx.ModelProto, _given: RewriteContext) -> int:
        model.graph.initializer[0].CopyFrom(
            onnx.numpy_helper.from_array(np.array([1, -1]), model.graph.initializer[0].name)
        )
        return 1

    monkeypatch.setattr(passes, "REWRITES", ((single, "batch fixed"),))
    model = graph_of([node("Reshape", ["x", "s"], ["y"])], s=np.array([0, -1]))
    assert "left as it was" in prepare_model(model, samples(model)).notes[0]


def test_baked_preprocessing_stays() -> None:
    nodes = [
        node("Sub", ["x", "mean"], ["a"], "baked/image/Sub"),
        node("Identity", ["a"], ["b"]), node("Conv", ["b", "w"], ["c"]),
        node("Mul", ["c", "mean"], ["y"], "baked/y/Mul"),
    ]  # fmt: skip
    model = graph_of(nodes, mean=nets.normal(1), w=nets.normal(4, 4, 1, 1))
    found = prepare_model(model, samples(model))
    assert kinds(found.model) == ["Sub", "Conv", "Mul"]
    assert found.model.graph.node[0].name == "baked/image/Sub"


def test_what_an_if_takes_from_outside_keeps_its_value() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "two"], ["b"]),
        node("Identity", ["b"], ["c"]), node("ReduceMax", ["x"], ["top"], keepdims=0),
        node("Greater", ["top", "two"], ["large"]),
        node("If", ["large"], ["y"], **{
            f"{way}_branch": helper.make_graph(
                [node(op, ["a", "c"], [f"{way}_y"])], way, [],
                [helper.make_tensor_value_info(f"{way}_y", onnx.TensorProto.FLOAT, None)])
            for way, op in (("then", "Add"), ("else", "Sub"))}),
    ]  # fmt: skip
    model = graph_of(nodes, w=nets.normal(4, 4, 1, 1), two=np.float32(2))
    found = prepare_model(model, samples(model))
    same(model, found.model)
    assert not any("left as it was" in note for note in found.notes)
    # Both `a` and `c` are taken inside.
    assert kinds(found.model)[:3] == ["Conv", "Mul", "Identity"]


def test_a_fixed_batch() -> None:
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Shape", ["a"], ["s"]),
             node("Expand", ["one", "s"], ["e"]), node("Add", ["a", "e"], ["y"])]  # fmt: skip
    model = graph_of(nodes, {"x": (2, 4, 6, 6)}, w=nets.normal(4, 4, 1, 1), one=np.float32(1))
    found = prepare_model(model, {"x": nets.normal(5, 4, 6, 6)})
    assert kinds(found.model) == ["Conv", "Add"]
    same(model, found.model, batches=(2,))


def test_a_batch_that_is_open_in_name_alone() -> None:
    nodes = [node("Reshape", ["x", "s"], ["a"]), node("Identity", ["a"], ["y"])]
    model = graph_of(nodes, s=np.array([1, -1]), scale=np.ones(144, np.float32))
    model.graph.node.insert(1, node("Mul", ["a", "scale"], ["b"]))
    model.graph.node[2].input[0] = "b"
    found = prepare_model(model, samples(model))
    assert kinds(found.model) == ["Reshape", "Mul"]
    same(model, found.model, batches=(1,))


def test_inputs_that_do_not_fit_are_said() -> None:
    model = graph_of([node("Relu", ["x"], ["y"])])
    with pytest.raises(StepError, match="cannot run the model on the given inputs"):
        prepare_model(model, {"x": nets.normal(2, 3, 6, 6)})


def test_quantized_operators_are_named(tmp_path: Path) -> None:
    model = graph_of([node("Relu", ["x"], ["y"])])
    assert already_quantized(model) is None
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["a"]),
        node("DequantizeLinear", ["a", "s", "z"], ["b"]), node("Relu", ["b"], ["c"]),
        node("DequantizeLinear", ["a", "s", "z"], ["d"]), node("Add", ["c", "d"], ["y"]),
    ]  # fmt: skip
    model = graph_of(nodes, s=np.float32(0.1), z=np.uint8(128))
    assert already_quantized(model) == "2 DequantizeLinear, 1 QuantizeLinear"


@pytest.mark.shared
def test_mobilenet(shared: Path) -> None:
    spec = importlib.util.spec_from_file_location("model", shared / "mobilenetv1-025/model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.build()
    net.load_state_dict(torch.load(shared / "mobilenetv1-025/weights.pt", weights_only=True))
    kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    inputs = {"x": nets.normal(3, 3, 224, 224)}
    buffer = io.BytesIO()
    axes = {"x": {0: "batch"}, "y": {0: "batch"}}
    torch.onnx.export(
        net.eval(), (torch.from_numpy(inputs["x"][:1]),), buffer, dynamo=False, opset_version=17,
        input_names=["x"], output_names=["y"], dynamic_axes=axes, **kept,
    )  # fmt: skip
    model = onnx.load_from_string(buffer.getvalue())
    found = prepare_model(model, inputs)
    assert Counter(kinds(found.model)) == {
        "Conv": 27, "LeakyRelu": 27, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1,
    }  # fmt: skip
    for wanted, made in zip(run(model, inputs), run(found.model, inputs), strict=True):
        assert nets.decibels(wanted, made) > 100
