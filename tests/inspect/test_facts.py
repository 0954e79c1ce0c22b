"""The precision that a file's weights and activations make."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.inspect.files import graph, save_onnx
from workbench.codec import from_plain, to_plain
from workbench.inspect import Facts, Tensor, read
from workbench.inspect.facts import precision, printable

CASES = [
    ({"float32": 100}, "", "float32", ""),
    ({"float16": 95, "float32": 5}, "", "float16", "weights: 95% float16, 5% float32"),
    ({"int8": 90, "float32": 10, "int32": 50}, "int8", "int8", "weights: 90% int8, 10% float32"),
    ({"uint8": 100}, "uint8", "int8", ""),
    ({"int8": 100}, "dynamic", "dynamic-int8", ""),
    ({"int8": 100}, "int16", "int16", ""),
    ({"int8": 100}, "", "int8-weights", ""),
    ({"int4": 100}, "", "int4-weights", ""),
    ({"int8": 50, "float32": 50}, "int8", "mixed", "weights: 50% int8, 50% float32"),
    ({"float32": 80, "int8": 20}, "dynamic", "mixed", "weights: 80% float32, 20% int8"),
    ({"float32": 100}, "int8", "mixed", "weights: float32, activations quantized"),
    ({"int8": 100}, "mixed", "mixed", "weights: int8, activations quantized"),
]


@pytest.mark.parametrize(("weights", "activations", "word", "note"), CASES)
def test_precision(weights: dict[str, int], activations: str, word: str, note: str) -> None:
    assert precision(weights, activations) == (word, note)


def test_without_weights_what_flows_through_decides() -> None:
    ids = Tensor(name="ids", dtype="int64", shape=())
    half = Tensor(name="x", dtype="float16", shape=())
    assert precision({}, "", [ids, half]) == ("float16", "")
    assert precision({"int32": 3}, "", [ids]) == ("unknown", "")


def test_names_are_safe_to_print() -> None:
    assert printable("conv/1:0 ünï") == "conv/1:0 ünï"
    assert printable("\x1b[31mred\n") == "�[31mred�"
    assert len(printable("x" * 5000)) == 120


def test_facts_survive_json(tmp_path) -> None:
    text = graph("g (float[N, 3] x, float y) => (float[N, 3] z) { z = Add (x, y) }")
    facts = read(save_onnx(tmp_path, text))
    unranked = Tensor(name="u", dtype="int8", shape=(), quantization=(0.1, -3), ranked=False)
    facts = replace(facts, outputs=(*facts.outputs, unranked))
    assert from_plain(json.loads(json.dumps(to_plain(facts))), Facts) == facts


def test_as_json(tmp_path) -> None:
    text = graph("g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }")
    path = save_onnx(tmp_path, text)
    data = json.loads(json.dumps(read(path).to_json()))
    assert data["inputs"] == [
        {"name": "x", "dtype": "float32", "shape": [None, 3], "quantization": None}
    ]
    assert (data["format"], data["operators"], data["macs"]) == ("onnx", {"Relu": 1}, 0)
    assert data["bytes"] == path.stat().st_size
