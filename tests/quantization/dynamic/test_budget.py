from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests import nets
from tests.steps.test_quantize_dynamic import graph_file, operators, quantized
from workbench.artifact import Artifact, stored_inputs
from workbench.dataset import Dataset
from workbench.errors import StepError
from workbench.quantization.dynamic import budget
from workbench.quantization.search.output_distance import decibels, output_distance
from workbench.steps import QuantizeDynamic

LAYERS = ("fragile", "sound", "last")


def inputs(count: int, seed: int = 0) -> Any:
    """Values of which one is so large that eight bits hold little of the others."""
    x = nets.normal(count, 64, seed=seed)
    x[:, 0] = 300
    return x


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Three products; the first one's input has an outlier that its weights take no notice of."""
    first = nets.normal(64, 64, seed=1) / 8
    first[0] = 0
    weights = {
        "w1": first,
        "w2": nets.normal(64, 64, seed=2) / 8,
        "w3": nets.normal(64, 10, seed=3),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], "fragile"),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], "sound"),
        helper.make_node("MatMul", ["c", "w3"], ["y"], "last"),
    ]
    return graph_file(tmp_path_factory.mktemp("budget"), nodes, weights, shape=(64,))


def data(evaluation: int = 400) -> Dataset:
    return Dataset(
        "made", nets.split_of(x=inputs(16)), nets.split_of("evaluation", x=inputs(evaluation, 5))
    )


@pytest.mark.skipif(not nets.EXACT, reason="MatMulInteger saturates on this CPU, without VNNI")
def test_the_noise_of_each_layer_is_that_of_the_file_with_it_alone(
    subject: Artifact, tmp_path: Path
) -> None:
    model = onnx.load(subject.path)
    chosen = dict.fromkeys(LAYERS, "MatMul")
    samples = stored_inputs(subject.inputs, data().examples(16))
    alone = budget.layer_noise(model, chosen, samples)
    assert list(alone) == list(LAYERS)
    for name in LAYERS:
        rest = tuple(one for one in LAYERS if one != name)
        made = quantized(subject, data(), tmp_path / name, exclude=rest, smallest=0)
        before, after = (
            [np.concatenate([nets.run_onnx(file.path, samples["x"][i : i + 1])[0]
                             for i in range(16)])]
            for file in (subject, made)
        )  # fmt: skip
        real = output_distance(before, after).noise
        assert decibels(alone[name]) == pytest.approx(decibels(real), abs=0.5)
    assert max(alone, key=lambda name: alone[name]) == "fragile"


def test_switched_off_the_graph_is_the_float_one(subject: Artifact) -> None:
    import onnxruntime

    model = budget.add_noise_switches(onnx.load(subject.path), {"fragile": "MatMul"})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = inputs(4)
    for flag in (0, 1):
        found = session.run(None, {"x": x, budget.SWITCHES: np.float32([flag])})[0]
        same = np.allclose(found, nets.run_onnx(subject.path, x)[0], rtol=1e-5, atol=1e-4)
        assert same == (flag == 0)


def test_the_layer_that_costs_accuracy_goes_to_float_and_no_other(
    subject: Artifact, tmp_path: Path
) -> None:
    plain = quantized(subject, data(), tmp_path / "plain", smallest=0)
    assert operators(plain.path)["MatMulInteger"] == 3
    made = quantized(subject, data(), tmp_path / "held", smallest=0, max_drop=10)
    assert operators(made.path)["MatMulInteger"] == 2
    assert "fragile" in {n.name for n in onnx.load(made.path).graph.node if n.op_type == "MatMul"}
    (note,) = [one for one in made.notes if one.startswith("max_drop=10: agreement with FP32")]
    assert "with 1 more layer(s) in float: fragile" in note
    assert "on 200 samples that the search never used" in note
    assert not list(made.path.parent.glob("tried*"))


def test_what_no_int8_holds_is_handed_on_in_float(
    subject: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsound(model: Any, chosen: Any, *_: Any) -> dict[str, float]:
        return {name: float(name != "fragile") for name in chosen}  # the wrong ones first

    monkeypatch.setattr(budget, "layer_noise", unsound)
    made = quantized(subject, data(), tmp_path, smallest=0, max_drop=0.5)
    assert made.precision == "float32"
    assert made.path.read_bytes() == subject.path.read_bytes()
    assert made.notes[-1].startswith("max_drop=0.5 is not held: ")
    assert sorted(one.name for one in tmp_path.glob("int8/*")) == [made.path.name]


def test_a_budget_without_evaluation_samples_is_refused(subject: Artifact, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="needs evaluation samples") as caught:
        context = nets.context(tmp_path, nets.dataset_of(x=inputs(16)))
        QuantizeDynamic(max_drop=1, smallest=0).run(subject, context)
    assert "--data" in caught.value.fix
    assert not list(tmp_path.glob("*.onnx"))
