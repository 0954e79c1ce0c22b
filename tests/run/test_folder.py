"""The run folder: what is in it was read back, and the report says what was found."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.report import reports
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.dataset.facts import DatasetFacts
from workbench.device.profile import Device
from workbench.engine.facts import ModelFacts
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.model import ModelSource
from workbench.recipe import Recipe
from workbench.report.data import Report, Row
from workbench.report.report_json import report_json
from workbench.run import folder as rundir
from workbench.steps import Simplify

SPEC = TensorSpec(name="x", dtype="float32", shape=(None, 8))


@pytest.fixture
def made(tmp_path: Path) -> tuple[Request, Outcome, Report]:
    """A run of one step on an ONNX file, not yet written."""
    place = tmp_path / "cache"
    place.mkdir()
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Tanh", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, ["N", 8])], [value("y", TensorProto.FLOAT, ["N", 8])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph), place / "model.onnx")
    (place / "beside.config").write_text("operators")
    artifact = Artifact(
        path=place / "model.onnx", format=Format.ONNX, precision="float32", inputs=(SPEC,),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(None, 8)),),
        companions=(place / "beside.config",),
    )  # fmt: skip
    recipe = Recipe(Simplify())
    request = Request(
        recipe=recipe, settings=(), source=ModelSource(spec=str(place / "model.onnx")),
        data=(SPEC,), device=Device(name="testing"),
    )  # fmt: skip
    (located,) = recipe.located()
    dataset = DatasetFacts(name="random inputs", inputs=(SPEC,))
    outcome = Outcome(
        model=ModelFacts(fingerprint="f"),
        dataset=dataset,
        results=(StepResult(located, artifact),),
        start=artifact,
    )
    row = Row(key=located.id, label="FP32 ONNX", format="onnx", precision="float32",
              path="artifacts/model.onnx", bytes=artifact.size, sha256=artifact.sha256)  # fmt: skip
    return request, outcome, reports.normal(rows=(row,), eager="", onnx=located.id)


def write(folder: Path, made: tuple[Request, Outcome, Report]) -> tuple[Path, dict]:
    request, outcome, report = made
    prepared = rundir.prepare(request, datetime.now().astimezone(), folder)
    placed, finished = rundir.write(prepared, report, request, outcome, replace=True)
    written = json.loads((placed / "report.json").read_text())
    assert written["checklist"] == report_json(finished)["checklist"]
    return placed, written


def test_every_copy_was_read_back(made, tmp_path: Path):
    placed, report = write(tmp_path / "run", made)
    assert (placed / "artifacts/model.onnx.beside.config").read_text() == "operators"
    verified = report["checklist"][-1]
    assert verified["verdict"] == "yes"
    assert verified["evidence"].startswith("2 files read back")


def test_a_copy_that_is_not_what_the_step_made_is_said(made, tmp_path: Path):
    """The file changes after it was measured."""
    artifact = made[1].results[0].artifact
    artifact.path.write_bytes(artifact.path.read_bytes() + b"\x72\x00")
    _, report = write(tmp_path / "run", made)
    verified = report["checklist"][-1]
    assert verified["verdict"] == "no"
    assert "artifacts/model.onnx" in verified["evidence"]
