"""`wb inspect`: what it prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.inspect.files import dense, floats, graph, save_onnx
from workbench.cli.inspect import inspect
from workbench.errors import ModelError

NET = graph(
    """g (float[N, 3, 8, 8] image) => (float[N, 4, 6, 6] y)
    { c = Conv (image, w) e = Erf (c) y = Erf (e) }"""
)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save_onnx(tmp_path, NET, w=floats(4, 3, 3, 3))


def printed(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Labels and texts; a text that goes on over several lines is joined."""
    inspect(path, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    margin = len("CoreML NeuralNetwork") + 2 if any("CoreML" in one for one in lines) else 12
    found: dict[str, str] = {}
    label = ""
    for line in lines:
        label = line[:margin].strip() or label
        found[label] = f"{found.get(label, '')} {line[margin:]}".strip()
    return found


def test_an_onnx_file(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(net, capsys)
    assert found["file"] == str(net)
    assert found["format"] == f"onnx, float32, {net.stat().st_size} B"
    assert found["input"] == "image  float32 [?, 3, 8, 8]"
    assert found["output"] == "y  float32 [?, 4, 6, 6]"
    assert found["opsets"] == "ai.onnx 17"
    assert found["parameters"] == "108"
    assert found["MACs"] == "3 888 for one sample"
    assert found["operators"] == "3: 2 Erf, 1 Conv"
    assert found["NNAPI"].endswith("not Erf")
    assert found["XNNPACK"] == "1/3 nodes, 1 partition; not Erf"


@pytest.mark.process
def test_a_tflite_file_with_int8_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(dense(tmp_path / "dense.tflite", "int8", "int8"), capsys)
    assert found["format"].startswith("tflite, int8, ")
    assert found["input"] == "x  int8 [1, 6], real = 0.5 × (q + 3)"
    assert "opsets" not in found


def test_what_is_unknown_is_a_dash_and_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = graph("g (float[N, seq, 6] x) => (float[N, seq, 4] y) { y = MatMul (x, w) }")
    found = printed(save_onnx(tmp_path, text, w=floats(6, 4)), capsys)
    assert found["MACs"] == "–"
    assert found["note"] == "MACs unknown: MatMul: an axis is open; open: axis 1 (seq) of x"


def test_long_lists_wrap_between_operators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    kinds = ("Relu", "Abs", "Neg", "Exp", "Log", "Sqrt", "Sin", "Cos", "Tanh", "Erf", "Sigmoid")
    nodes = "\n".join(f"t{n + 1} = {kind} (t{n})" for n, kind in enumerate(kinds))
    text = graph(f"g (float[N, 3] t0) => (float[N, 3] t{len(kinds)}) {{ {nodes} }}")
    inspect(save_onnx(tmp_path, text), as_json=False)
    out = capsys.readouterr().out
    assert "\u00a0" not in out
    assert not any(line.endswith(" 1") for line in out.splitlines())
    assert all(len(line) <= 60 for line in out.splitlines() if "sha256" not in line
               and not line.startswith("file"))  # fmt: skip


def test_names_cannot_drive_the_terminal(tmp_path: Path, capsys) -> None:
    import onnx

    path = save_onnx(tmp_path, graph("g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }"))
    model = onnx.load(path)
    for place in (model.graph.input[0], model.graph.output[0]):
        place.name += "\x1b[2J"
    model.graph.node[0].input[0], model.graph.node[0].output[0] = "x\x1b[2J", "y\x1b[2J"
    onnx.save(model, path)
    inspect(path, as_json=False)
    inspect(path, as_json=True)
    assert "\x1b" not in capsys.readouterr().out


def test_as_json(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(net, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["macs"] == 3888
    assert found["operators"] == {"Erf": 2, "Conv": 1}
    assert set(found["takes"]) == {"NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram", "XNNPACK"}


@pytest.mark.process
def test_as_a_command(net: Path, tmp_path: Path) -> None:
    def wb(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workbench", "inspect", *words],
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip

    done = wb(str(net), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["parameters"] == 108
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(4000))
    for name in ("noise.onnx", "absent.onnx", "."):
        done = wb(name)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


@pytest.mark.process
def test_nothing_is_printed_of_a_file_that_cannot_be_read(tmp_path: Path, capsys) -> None:
    (tmp_path / "cut.tflite").write_bytes(dense(tmp_path / "a.tflite").read_bytes()[:200])
    with pytest.raises(ModelError):
        inspect(tmp_path / "cut.tflite", as_json=False)
    assert capsys.readouterr().out == ""
