"""Layer by layer, on graphs whose faults are known: they are put there."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.nets import Array, normal
from workbench.artifact import Artifact, Format, Pixels
from workbench.errors import DeviceError
from workbench.measure.divergence import (
    BEST,
    FLOAT,
    QUANTIZED,
    Divergence,
    TensorDivergence,
    layers,
)
from workbench.onnxgraph import rewrites, signature

SIZE = 6


def chain(path: Path, names: str = "abcd", out: str = "y", **weights: Array) -> Artifact:
    """x [N, 6] through MatMul and Tanh in turns, a tensor a letter; `weights` replace some."""
    nodes, initializers, given = [], [], "x"
    for place, name in enumerate((*names, out)):
        operator = "MatMul" if place % 2 == 0 else "Tanh"
        inputs = [given]
        if operator == "MatMul":
            weight = weights.get(name, normal(SIZE, SIZE, seed=place))
            initializers.append(numpy_helper.from_array(weight.astype(np.float32), f"w_{name}"))
            inputs.append(f"w_{name}")
        nodes.append(helper.make_node(operator, inputs, [name], f"node_{name}"))
        given = name
    return saved(path, nodes, initializers, out)


def saved(path: Path, nodes: list[Any], initializers: list[Any], out: str) -> Artifact:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE])
            for name in ("x", out)]  # fmt: skip
    made = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return opened(path)


def opened(path: Path) -> Artifact:
    inputs, outputs = signature.signature(onnx.load(path))
    return Artifact(path=path, format=Format.ONNX, precision="", inputs=inputs, outputs=outputs)


def compared(one: Artifact, other: Artifact, samples: int = 4) -> Divergence:
    return layers(one, other, {"x": normal(samples, SIZE)}, lambda fraction, note: None)


def by_tensor(found: Divergence) -> dict[str, TensorDivergence]:
    return {layer.tensor: layer for layer in found.layers}


def test_a_graph_and_itself_are_equal_everywhere(tmp_path: Path) -> None:
    one = chain(tmp_path / "one.onnx")
    found = compared(one, chain(tmp_path / "other.onnx"))
    assert [layer.tensor for layer in found.layers] == ["x", "a", "b", "c", "d", "y"]
    assert all(layer.sqnr == math.inf for layer in found.layers)
    assert (found.inside, found.of, found.threshold) == (4, 4, FLOAT)
    assert found.first is None
    assert found.worst(5) == ()


def test_the_layer_with_another_weight_is_the_first_and_the_worst(tmp_path: Path) -> None:
    one = chain(tmp_path / "one.onnx")
    other = chain(tmp_path / "other.onnx", c=normal(SIZE, SIZE, seed=9))
    found = compared(one, other)
    assert found.first is not None
    assert (found.first.tensor, found.first.title) == ("c", "MatMul node_c")
    assert found.worst(5)[0].tensor == "c"
    before = by_tensor(found)["c"]
    assert before.before == math.inf
    assert before.drop == pytest.approx(BEST[24] - before.sqnr)
    # What comes after inherits the error, and has its own share of it only.
    assert by_tensor(found)["d"].before == pytest.approx(before.sqnr)


def test_sqnr_is_that_of_the_tensors_themselves(tmp_path: Path) -> None:
    weight = normal(SIZE, SIZE, seed=0)
    one = chain(tmp_path / "one.onnx", a=weight)
    other = chain(tmp_path / "other.onnx", a=weight * 1.01)
    samples = normal(4, SIZE)
    wanted = samples.astype(float) @ weight
    noise = samples.astype(float) @ (weight * 1.01) - wanted
    found = by_tensor(compared(one, other))["a"]
    assert found.sqnr == pytest.approx(
        10 * np.log10((wanted**2).sum() / (noise**2).sum()), abs=0.01
    )
    assert found.largest == pytest.approx(np.abs(noise).max(), rel=1e-4)
    # 1 % off is 40 dB: the threshold between float graphs.
    assert found.sqnr == pytest.approx(FLOAT, abs=0.01)


def test_a_drop_is_from_the_nearest_tensors_on_every_path(tmp_path: Path) -> None:
    def build(name: str, left: Array, right: Array, inner: str) -> Artifact:
        nodes = [
            helper.make_node("MatMul", ["x", "wl"], ["left"], "left"),
            helper.make_node("MatMul", ["x", "wr"], ["right"], "right"),
            helper.make_node("Tanh", ["left"], [inner], "tanh"),  # of another name in the other
            helper.make_node("Add", [inner, "right"], ["y"], "add"),
        ]
        weights = [numpy_helper.from_array(left, "wl"), numpy_helper.from_array(right, "wr")]
        return saved(tmp_path / name, nodes, weights, "y")

    left, right = normal(SIZE, SIZE), normal(SIZE, SIZE, seed=1)
    one = build("one.onnx", left, right, "t")
    other = build("other.onnx", left * np.float32(1.1), right * np.float32(1.001), "u")
    found = by_tensor(compared(one, other))
    assert list(found) == ["x", "left", "right", "y"]
    assert found["left"].sqnr == pytest.approx(20, abs=0.1)
    assert found["right"].sqnr == pytest.approx(60, abs=0.1)
    assert found["y"].before == found["left"].sqnr


def test_a_quantized_tensor_stands_for_its_original(tmp_path: Path) -> None:
    """QDQ around `b`, coarse, as ONNX Runtime's quantizer writes and names it."""
    one = chain(tmp_path / "one.onnx")
    model = onnx.load(one.path)
    scale = numpy_helper.from_array(np.array(0.25, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(128, np.uint8), "zero")
    model.graph.initializer.extend([scale, zero])
    nodes = list(model.graph.node)
    for node in nodes:
        node.input[:] = ["b_DequantizeLinear_Output" if name == "b" else name
                         for name in node.input]  # fmt: skip
    pair = [
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["b_QuantizeLinear_Output"]),
        helper.make_node("DequantizeLinear", ["b_QuantizeLinear_Output", "scale", "zero"],
                         ["b_DequantizeLinear_Output"]),
    ]  # fmt: skip
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:2], *pair, *nodes[2:]])
    onnx.save(model, tmp_path / "other.onnx")
    other = opened(tmp_path / "other.onnx")
    found = compared(one, other)
    assert found.threshold == QUANTIZED
    assert by_tensor(found)["a"].sqnr == math.inf
    b = by_tensor(found)["b"]
    assert 5 < b.sqnr < 35
    assert b.title == "Tanh node_b"
    assert b.drop == pytest.approx(BEST[8] - b.sqnr)
    assert found.worst(1)[0].tensor == "b"
    # The other way round, the layer is still called after what computes it.
    (back,) = [layer for layer in compared(other, one).layers if layer.tensor.startswith("b")]
    assert back.title == "Tanh node_b"


def test_graphs_without_common_names_have_no_inside(tmp_path: Path) -> None:
    one = chain(tmp_path / "one.onnx")
    found = compared(one, chain(tmp_path / "other.onnx", names="pqrs"))
    assert found.inside == 0
    assert {layer.tensor for layer in found.layers} == {"x", "y"}


def test_a_tensor_of_another_shape_is_not_the_same_one(tmp_path: Path) -> None:
    def build(name: str, axis: int) -> Artifact:
        nodes = [
            helper.make_node("ReduceSum", ["x", "axes"], ["a"], keepdims=axis),
            helper.make_node("Sub", ["x", "a" if axis else "x"], ["y"]),
        ]
        return saved(tmp_path / name, nodes, [numpy_helper.from_array(np.array([1]), "axes")], "y")

    found = compared(build("one.onnx", 1), build("other.onnx", 0))
    assert "a" not in by_tensor(found)


def test_masked_scores_do_not_drown_the_others(tmp_path: Path) -> None:
    def build(name: str, factor: float) -> Artifact:
        mask = np.array([0, 0, 0, 0, -1e9, -np.inf], np.float32)
        arrays = {"mask": mask, "factor": np.array(factor, np.float32)}
        nodes = [
            helper.make_node("Mul", ["x", "factor"], ["scores"]),
            helper.make_node("Add", ["scores", "mask"], ["masked"]),
            helper.make_node("Softmax", ["masked"], ["y"]),
        ]
        weights = [numpy_helper.from_array(array, key) for key, array in arrays.items()]
        return saved(tmp_path / name, nodes, weights, "y")

    found = by_tensor(compared(build("one.onnx", 1.0), build("other.onnx", 1.01)))
    assert found["masked"].sqnr == pytest.approx(40, abs=0.01)


def test_what_is_not_finite_in_one_alone_has_diverged(tmp_path: Path) -> None:
    one = chain(tmp_path / "one.onnx")
    other = chain(tmp_path / "other.onnx", a=np.full((SIZE, SIZE), np.nan))
    found = compared(one, other)
    assert found.first is not None
    assert (found.first.tensor, found.first.sqnr) == ("a", -math.inf)


def test_baked_graphs_are_compared_on_the_inner_side(tmp_path: Path) -> None:
    one = chain(tmp_path / "one.onnx")
    model = onnx.load(one.path)
    rewrites.rename_tensors(model.graph, {"x": f"{signature.BAKED}x"})
    rewrites.rename_tensors(model.graph, {"y": f"{signature.BAKED}y"})
    cast = helper.make_node("Cast", ["x"], [f"{signature.BAKED}x"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    model.graph.node.append(helper.make_node("Softmax", [f"{signature.BAKED}y"], ["y"]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, tmp_path / "other.onnx")
    other = opened(tmp_path / "other.onnx")
    pixels = replace(
        other.inputs[0], dtype="float32", pixels=Pixels(factor=(1.0,) * SIZE, offset=(0.0,) * SIZE)
    )
    other = replace(other, inputs=(pixels,))
    whole = np.random.default_rng(0).integers(0, 255, (4, SIZE)).astype(np.float32)
    found = layers(one, other, {"x": whole}, lambda fraction, note: None)
    assert set(by_tensor(found)) == {"x", "a", "b", "c", "d", "y"}
    assert all(layer.sqnr == math.inf for layer in found.layers)


def test_a_graph_that_does_not_run_without_optimization_is_the_devices_error(
    tmp_path: Path,
) -> None:
    one = chain(tmp_path / "one.onnx")
    model = onnx.load(one.path)
    model.graph.node[1].op_type = "Magic"
    model.graph.node[1].domain = "my.own"
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DeviceError, match=r"other\.onnx layer by layer"):
        compared(one, opened(tmp_path / "other.onnx"))
