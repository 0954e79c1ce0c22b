"""What is read of `.ort` files: the same as of the ONNX files that they were made from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.inspect.files import floats, graph, save_onnx, save_ort
from workbench.artifact import Format, digest
from workbench.errors import ModelError
from workbench.inspect import ort_file, read

NET = graph(
    """g (float[batch, 3, 8, 8] image, bool flip) => (float[batch, 4] scores) {
        c = Conv <pads = [1, 1, 1, 1]> (image, w, b)
        r = Relu (c)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        scores = If (flip) <
            then_branch = yes () => (float[batch, 4] s) { s = Neg (f) },
            else_branch = no () => (float[batch, 4] t) { t = Mul (f, two) }>
    }"""
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = {"w": floats(4, 3, 3, 3), "b": floats(4), "two": np.float32(2)}
    return save_onnx(tmp_path_factory.mktemp("ort"), NET, **weights)


@pytest.mark.process
def test_a_file_that_was_not_optimized_holds_what_its_source_does(source: Path) -> None:
    path = save_ort(source, optimized=False)
    facts, original = read(path), read(source)
    assert facts.format is Format.ORT
    assert (facts.sha256, facts.bytes) == (digest(path), path.stat().st_size)
    same = ("inputs", "outputs", "operators", "parameters", "macs", "precision", "takes")
    for name in same:
        assert getattr(facts, name) == getattr(original, name), name
    assert facts.opsets["ai.onnx"] == 17
    assert facts.macs == 4 * 64 * 27
    assert facts.notes[0].startswith("ORT format ")


def test_fused_operators_are_named_and_cost_the_same(source: Path) -> None:
    facts = ort_file.read(save_ort(source))
    assert facts.operators["com.microsoft:FusedConv"] == 1
    assert "Conv" not in facts.operators
    assert facts.macs == 4 * 64 * 27
    assert "com.microsoft:FusedConv" in facts.takes["NNAPI"]


def test_nodes_are_put_in_order(source: Path) -> None:
    """ORT writes them by index; ONNX, and the checker, want each after what it takes from."""
    facts = ort_file.read(save_ort(source))
    assert set(facts.takes) == {"NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram", "XNNPACK"}


@pytest.mark.process
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, source: Path, tmp_path: Path) -> None:
    data = save_ort(source).read_bytes()
    cut = tmp_path / "cut.ort"
    cut.write_bytes(data[: max(8, int(len(data) * share))])
    with pytest.raises(ModelError, match="cannot be read as an ORT file"):
        read(cut)


def test_facts_are_plain(source: Path) -> None:
    """They cross a process boundary."""
    import pickle

    facts = ort_file.read(save_ort(source))
    assert pickle.loads(pickle.dumps(facts)) == facts
    assert dataclasses.replace(facts, macs=None).macs is None
