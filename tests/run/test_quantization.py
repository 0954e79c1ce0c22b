"""`wb.quantize`: one ONNX file to INT8 without a recipe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.quantization.search.test_sensitivity import images, network
from workbench import api
from workbench.errors import ModelError, StepError
from workbench.inspect.artifacts import open_artifact


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float file, and 32 samples for calibration."""
    monkeypatch.chdir(tmp_path)
    onnx.save(network(), "net.onnx")
    np.save("x.npy", images())
    (tmp_path / "data.toml").write_text(
        'source = "numpy"\npath = "x.npy"\n[split]\ncalibration = 32\nevaluation = 8\n'
    )
    return tmp_path


def test_the_int8_file_stands_in_its_folder_with_what_belongs_to_it(here: Path) -> None:
    before = (here / "net.onnx").read_bytes()
    artifact = api.quantize("net.onnx", "data.toml", preset="fast", samples=32)
    assert artifact.path == Path("net-int8/model.int8.onnx")
    first = artifact.sha256
    assert artifact.precision == "int8"
    assert {path.name for path in (here / "net-int8").iterdir()} == {
        "model.int8.onnx", "ranges.json", "quantization.json"
    }  # fmt: skip
    assert all(path.is_file() for path in artifact.companions)
    assert any("32 calibration samples" in note for note in artifact.notes)
    assert open_artifact(artifact.path).precision == "int8"
    assert (here / "net.onnx").read_bytes() == before
    # Again, into the same folder, from a loaded dataset: what was there is replaced.
    samples = api.load_dataset("data.toml")
    again = api.quantize("net.onnx", samples, preset="fast", samples=8, exclude=("first",))
    assert again.path == artifact.path
    assert again.sha256 != first
    with pytest.raises(ModelError, match="is quantized already"):
        api.quantize(artifact.path, samples)


def test_a_step_that_fails_leaves_nothing_half_made(here: Path) -> None:
    with pytest.raises(StepError, match="no node 'absent'"):
        api.quantize("net.onnx", "data.toml", out="int8", preset="fast", exclude=("absent",))
    assert not any((here / "int8").iterdir())
