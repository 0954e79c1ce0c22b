from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests import nets
from workbench.artifact import Artifact
from workbench.errors import ModelError
from workbench.model import Model, ModelSource
from workbench.sources.loading import check_files, load

FACTORY = """
import torch

def build():
    return torch.nn.Linear(8, 4)
"""


def test_check_compares_the_digest_before_anything_opens_the_file(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"not a checkpoint at all")
    right = hashlib.sha256(weights.read_bytes()).hexdigest()
    for written in (right, right.upper(), f"sha256:{right}"):
        check_files(ModelSource(spec="a.py:b", weights=weights, sha256=written))
    with pytest.raises(ModelError, match="not the file expected") as caught:
        check_files(ModelSource(spec="a.py:b", weights=weights, sha256="0" * 64))
    assert right in caught.value.why


def test_a_wrong_digest_stops_the_load_before_the_factory_runs(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n" + FACTORY
    )
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"garbage that torch would refuse")
    source = ModelSource(spec="model.py:build", weights=weights, sha256="1" * 64, folder=tmp_path)
    with pytest.raises(ModelError, match="not the file expected"):
        load(source, {"x": nets.normal(2, 8)}, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("spec", ["absent.onnx", "absent.py:build"])
def test_a_file_that_is_not_there_is_named(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no file .*absent"):
        load(ModelSource(spec=spec, folder=tmp_path), {"x": nets.normal(2, 8)}, tmp_path)
    with pytest.raises(ModelError, match=r"there is no file .*lost\.pt"):
        check_files(ModelSource(spec=__file__, weights=tmp_path / "lost.pt"))


def test_a_digest_without_a_file_is_refused() -> None:
    with pytest.raises(ModelError, match="no file to check"):
        check_files(ModelSource(spec="package:build", sha256="0" * 64))


def test_load_gives_a_module_or_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(FACTORY)
    examples = {"x": nets.normal(4, 8)}
    model = load(ModelSource(spec="model.py:build", folder=tmp_path), examples, tmp_path)
    assert isinstance(model, Model)
    assert model.input_names == ("x",)
    exported = nets.exported(tmp_path / "onnx", model.module, nets.dataset_of(**examples))
    source = ModelSource(spec="onnx/model.onnx", folder=tmp_path)
    artifact = load(source, examples, tmp_path)
    assert isinstance(artifact, Artifact)
    assert artifact.path.read_bytes() != b""
    (output,) = nets.run_onnx(artifact.path, examples["x"])
    np.testing.assert_allclose(output, model(examples)[0], rtol=1e-4, atol=1e-5)
    assert exported.path.is_file()
