from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.quantization.prepare.graphs import graph_of, kinds, rewritten
from workbench.quantization.prepare.activations import rewrite_hard_sigmoid, rewrite_hard_swish

node = helper.make_node

RELU6 = (node("Add", ["x", "three"], ["a"]), node("Clip", ["a", "zero", "six"], ["r"]))
GATE = node("HardSigmoid", ["x"], ["g"], alpha=1 / 6, beta=0.5)
NUMBERS = {name: np.float32(value) for name, value in
           {"three": 3, "zero": 0, "six": 6, "sixth": 1 / 6, "half": 0.5, "third": 1 / 3,
            "five": 5}.items()}  # fmt: skip

WAYS: dict[str, list[onnx.NodeProto]] = {
    "operator": [node("HardSwish", ["x"], ["y"])],
    "gated": [GATE, node("Mul", ["x", "g"], ["y"])],
    "divided last": [*RELU6, node("Mul", ["x", "r"], ["p"]), node("Div", ["p", "six"], ["y"])],
    "multiplied last": [*RELU6, node("Mul", ["r", "x"], ["p"]), node("Mul", ["sixth", "p"], ["y"])],
    "gate divided": [*RELU6, node("Div", ["r", "six"], ["g"]), node("Mul", ["g", "x"], ["y"])],
    "x divided": [*RELU6, node("Div", ["x", "six"], ["p"]), node("Mul", ["p", "r"], ["y"])],
    "in two parts": [*RELU6, node("Mul", ["x", "half"], ["p"]), node("Mul", ["p", "r"], ["q"]),
                     node("Mul", ["q", "third"], ["y"])],
}  # fmt: skip

OTHERS: dict[str, list[onnx.NodeProto]] = {
    "not divided": [*RELU6, node("Mul", ["x", "r"], ["y"])],
    "cut elsewhere": [RELU6[0], node("Clip", ["a", "zero", "five"], ["r"]),
                      node("Mul", ["x", "r"], ["p"]), node("Div", ["p", "six"], ["y"])],
    "another slope": [node("HardSigmoid", ["x"], ["g"]), node("Mul", ["x", "g"], ["y"])],
    "SiLU": [node("Sigmoid", ["x"], ["g"]), node("Mul", ["x", "g"], ["y"])],
    "another factor": [GATE, node("Neg", ["x"], ["n"]), node("Mul", ["n", "g"], ["y"])],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", ["ort", "tflite"])
def test_hard_swish_is_known_in_every_form(way: str, target: str) -> None:
    made, count = rewritten(rewrite_hard_swish, graph_of(WAYS[way], **NUMBERS), target)
    if target == "ort":
        assert kinds(made) == ["HardSwish"]
    else:
        assert sorted(kinds(made)) == ["Add", "Clip", "Mul", "Mul"]
        # x / 6 comes first: scaled last it would be fused back into an operator of TFLite's.
        last = made.graph.node[-1]
        assert last.output[0] == "y"
        assert {one.op_type for one in made.graph.node if one.output[0] in last.input} == {
            "Mul", "Clip",
        }  # fmt: skip
    assert count == int((way, target) != ("operator", "ort"))


@pytest.mark.parametrize("way", OTHERS)
def test_what_is_no_hard_swish_stays(way: str) -> None:
    made, count = rewritten(rewrite_hard_swish, graph_of(OTHERS[way], **NUMBERS))
    assert count == 0
    assert kinds(made) == [one.op_type for one in OTHERS[way]]


def test_a_gate_between_two_hard_swishes() -> None:
    nodes = [
        *WAYS["gated"][:1], node("Mul", ["x", "g"], ["s"]), node("HardSwish", ["s"], ["t"]),
        node("HardSigmoid", ["t"], ["u"], alpha=1 / 6, beta=0.5), node("Mul", ["s", "u"], ["y"]),
    ]  # fmt: skip
    made, count = rewritten(rewrite_hard_swish, graph_of(nodes))
    assert count == 1  # HardSwish itself is in its form already
    assert kinds(made) == ["HardSwish", "HardSwish", "HardSigmoid", "Mul"]


def test_hard_sigmoid_by_target() -> None:
    written = [*RELU6, node("Div", ["r", "six"], ["y"])]
    made, count = rewritten(rewrite_hard_sigmoid, graph_of(written, **NUMBERS))
    assert count == 1
    assert kinds(made) == ["HardSigmoid"]
    again, count = rewritten(rewrite_hard_sigmoid, made, "tflite")
    assert count == 1
    assert kinds(again) == ["Add", "Clip", "Mul"]
    model = graph_of([node("HardSigmoid", ["x"], ["y"], alpha=0.2)])
    assert rewritten(rewrite_hard_sigmoid, model, "tflite")[1] == 0


def test_below_its_opset_hard_swish_is_gated() -> None:
    nodes = [*WAYS["divided last"]]
    made, count = rewritten(rewrite_hard_swish, graph_of(nodes, opset=13, **NUMBERS))
    assert count == 1
    assert kinds(made) == ["HardSigmoid", "Mul"]
