from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import nets
from workbench.artifact import Artifact, Format
from workbench.errors import StepError
from workbench.onnxgraph.signature import signature
from workbench.steps import Simplify


def foldable(folder: Path) -> Artifact:
    """y = (x · W + exp(c)) transposed twice, with a chain of constants and an unused branch."""
    generator = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Exp", ["c"], ["exp"]),
        helper.make_node("Neg", ["exp"], ["negative"]),
        helper.make_node("Add", ["product", "negative"], ["sum"]),
        helper.make_node("Identity", ["sum"], ["same"]),
        helper.make_node("Transpose", ["same"], ["turned"], perm=[1, 0]),
        helper.make_node("Transpose", ["turned"], ["y"], perm=[1, 0]),
        helper.make_node("Relu", ["product"], ["unused"]),
    ]
    weights = {"w": generator.standard_normal((8, 4)), "c": generator.standard_normal(4)}
    graph = helper.make_graph(
        nodes,
        "foldable",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    path = folder / "foldable.onnx"
    onnx.save(model, path)
    inputs, outputs = signature(model)
    return Artifact(
        path=path,
        format=Format.ONNX,
        precision="float32",
        inputs=inputs,
        outputs=outputs,
        history=("source",),
        notes=("opset 17",),
    )


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_constants_are_folded_and_the_outputs_stay(tmp_path: Path) -> None:
    before = foldable(tmp_path / "source")
    content = before.path.read_bytes()
    data = nets.dataset_of(x=nets.normal(8, 8))
    after = Simplify().run(before, nets.context(tmp_path / "out", data))
    left = operators(after.path)
    assert left.total() < operators(before.path).total() == 8
    assert not left.keys() & {"Exp", "Neg", "Identity", "Relu"}
    some = nets.normal(5, 8, seed=3)
    for one, other in zip(
        nets.run_onnx(before.path, some), nets.run_onnx(after.path, some), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert before.path.read_bytes() == content
    assert after.path.parent == tmp_path / "out"
    assert after.history == ("source", "simplify")
    assert f"8 nodes simplified to {left.total()}" in after.notes


def test_an_exported_network_shrinks_and_keeps_its_dynamic_batch(tmp_path: Path) -> None:
    module, data = nets.build(nets.Foldable), nets.dataset_of(x=nets.normal(8, 8))
    before = nets.exported(tmp_path / "source", module, data)
    after = Simplify().run(before, nets.context(tmp_path / "out", data))
    assert operators(after.path).total() < operators(before.path).total()
    assert after.inputs[0].shape == (None, 8)
    for count in (1, 5):
        some = nets.normal(count, 8, seed=count)
        (found,) = nets.run_onnx(after.path, some)
        np.testing.assert_allclose(found, nets.run_torch(module, some), rtol=1e-3, atol=1e-5)


def changed(how: Any) -> Any:
    """onnxsim.simplify, which claims success after something was done to its model."""
    import onnxsim

    real = onnxsim.simplify

    def simplify(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        made, _ = real(model)
        how(made)
        return made, True

    return simplify


def wrong_weight(model: onnx.ModelProto) -> None:
    tensor = max(model.graph.initializer, key=lambda one: np.prod(one.dims))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_a_simplification_that_changed_a_weight_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = foldable(tmp_path / "source")
    monkeypatch.setattr("onnxsim.simplify", changed(wrong_weight))
    data = nets.dataset_of(x=nets.normal(8, 8))
    with pytest.raises(StepError, match="simplify: the outputs differ") as caught:
        Simplify().run(before, nets.context(tmp_path / "out", data))
    assert "largest difference" in caught.value.why


def test_it_is_caught_without_any_samples_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.dataset import random_dataset

    before = foldable(tmp_path / "source")
    monkeypatch.setattr("onnxsim.simplify", changed(wrong_weight))
    with pytest.raises(StepError, match="outputs differ"):
        Simplify().run(before, nets.context(tmp_path / "out", random_dataset(before.inputs)))


def test_onnxsim_failing_is_an_error_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: onnx.ModelProto) -> None:
        raise RuntimeError("first line\nsecond line")

    before = foldable(tmp_path / "source")
    monkeypatch.setattr("onnxsim.simplify", fail)
    with pytest.raises(StepError, match="onnxsim cannot simplify") as caught:
        Simplify().run(before, nets.context(tmp_path / "out", nets.dataset_of(x=nets.normal(8, 8))))
    assert caught.value.why == "first line"
