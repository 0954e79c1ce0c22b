from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import nets
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device.profile import Device
from workbench.errors import ModelError, StepError
from workbench.jobs.description import describe_dataset, describe_model
from workbench.jobs.inference import infer_batch, open_target
from workbench.jobs.step import run_step
from workbench.jobs.timing import measure_latency
from workbench.jobs.worker import job_function
from workbench.model import ModelSource
from workbench.process import JOBS

NETWORK = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
"""
RECIPE = '''"""To ONNX and INT8."""
from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify

recipe = Recipe(Export(opset=17), Simplify(), branches={"int8": (QuantizeStatic(),)})
'''
DATA = """
source = "numpy"
path = "samples.npz"
labels = "labels"
[split]
calibration = 20
evaluation = 10
"""
DEVICE = Device(name="testing", isa=nets.VNNI)


def silent(fraction: float, note: str) -> None:
    pass


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with a network, a recipe and labelled samples."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "twice.py").write_text(RECIPE)
    (tmp_path / "data.toml").write_text(DATA)
    labels = np.arange(30) % 7
    np.savez(tmp_path / "samples.npz", image=nets.normal(30, 3, 8, 8), labels=labels)
    return tmp_path


def source(project: Path) -> ModelSource:
    return ModelSource(spec="network.py:build", folder=project)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_is_a_function(name: str) -> None:
    assert callable(job_function(name))


def test_a_dataset_is_described_by_its_splits(project: Path) -> None:
    found = describe_dataset(str(project / "data.toml"), silent)
    calibration, evaluation = found.calibration, found.evaluation
    assert calibration is not None
    assert evaluation is not None
    assert (calibration.samples, evaluation.samples) == (20, 10)
    assert evaluation.labelled
    assert evaluation.highest_label is not None
    assert evaluation.highest_label <= 6
    assert calibration.fingerprint != evaluation.fingerprint
    assert found.inputs == (TensorSpec(name="image", dtype="float32", shape=(None, 3, 8, 8)),)
    depends = {Path(path).name for path in found.depends}
    assert {"data.toml", "samples.npz"} <= depends


def test_a_model_is_described_with_the_files_it_rests_on(project: Path) -> None:
    data = str(project / "data.toml")
    found, _ = describe_model(source(project), data, Path(), silent)
    count = 4 * 27 + 4 + 144 * 10 + 10
    assert (found.parameters, found.bytes, found.classes) == (count, 4 * count, 10)
    assert str(project / "network.py") in found.depends
    assert not any(path.endswith(".npz") for path in found.depends)
    again, _ = describe_model(source(project), data, project, silent)
    assert again.fingerprint == found.fingerprint


def test_an_onnx_file_is_described_as_its_artifact(project: Path) -> None:
    data = nets.dataset_of(image=nets.normal(8, 3, 32, 32))
    made = nets.exported(project / "onnx", nets.build(), data)
    (project / "in").mkdir()
    specs = (TensorSpec(name="image", dtype="float32", shape=(None, 3, 32, 32)),)
    given = ModelSource(spec="onnx/model.onnx", folder=project)
    found, artifact = describe_model(given, specs, project / "in", silent)
    assert artifact is not None
    assert artifact.path.parent == project / "in"
    assert artifact.path.is_file()
    assert found.fingerprint == artifact.sha256
    assert (found.bytes, found.classes) == (artifact.size, 10)
    assert str(made.path) in found.depends


def steps(project: Path, *names: str, settings: tuple[str, ...] = ()) -> list[Artifact]:
    """The recipe's steps one after another, each in a folder of its own."""
    subject: Any = source(project)
    made = []
    for name in names:
        folder = project / name
        folder.mkdir()
        subject = run_step(
            (str(project / "twice.py"), settings), name, subject, str(project / "data.toml"),
            DEVICE, folder, project / "work", 0, silent,
        )  # fmt: skip
        made.append(subject)
    return made


def test_a_recipes_steps_run_by_their_ids(project: Path) -> None:
    exported, simplified, int8 = steps(project, "export", "simplify", "int8.quantize")
    assert exported.path.parent == project / "export"
    assert exported.history == ("export opset=17",)
    assert simplified.history == ("export opset=17", "simplify")
    assert int8.format is Format.ONNX
    assert int8.history[-1] == "quantize u8s8 balanced samples=20"
    some = nets.normal(6, 3, 8, 8, seed=9)
    (before,), (after,) = nets.run_onnx(exported.path, some), nets.run_onnx(int8.path, some)
    assert nets.decibels(before, after) > 15


def test_settings_reach_the_step_in_the_worker(project: Path) -> None:
    settings = ("export.opset=14", "quantize.samples=3")
    made = steps(project, "export", "int8.quantize", settings=settings)
    assert made[0].history == ("export opset=14",)
    assert made[1].history[-1] == "quantize u8s8 balanced samples=3"


def test_an_opened_target_answers_until_the_next_is_opened(project: Path) -> None:
    open_target(source(project), 1, {"image": nets.normal(1, 3, 8, 8)}, progress=silent)
    some = {"image": nets.normal(6, 3, 8, 8, seed=9)}
    (eager,) = infer_batch(some, silent)
    (exported,) = steps(project, "export")
    open_target(exported, 1, None, progress=silent)
    (onnx,) = infer_batch(some, silent)
    assert eager.shape == (6, 10)
    np.testing.assert_allclose(onnx, eager, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["eager", "onnx"])
def test_latency_keeps_every_raw_sample(kind: str, project: Path) -> None:
    target = source(project) if kind == "eager" else steps(project, "export")[0]
    inputs = {"image": nets.normal(1, 3, 8, 8)}
    found = measure_latency(target, inputs, DEVICE, 2, 12, 0.05, silent)
    assert len(found["samples_ns"]) >= 12
    assert all(isinstance(one, int) and one > 500 for one in found["samples_ns"])
    assert found["load_ns"] > 0
    assert found["peak_bytes"] >= 0


def test_a_measuring_process_is_pinned_to_the_devices_cores(project: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system pins no processes")
    before = os.sched_getaffinity(0)
    core = min(before)
    inputs = {"image": nets.normal(1, 3, 8, 8)}
    try:
        device = Device(name="testing", cores=(core,))
        measure_latency(source(project), inputs, device, 0, 1, 0.0, silent)
        assert os.sched_getaffinity(0) == {core}
    finally:
        os.sched_setaffinity(0, before)


def test_random_inputs_stand_in_for_samples(project: Path) -> None:
    specs = (TensorSpec(name="image", dtype="float32", shape=(None, 3, 8, 8)),)
    found, _ = describe_model(source(project), specs, Path(), silent)
    assert found.classes == 10
    narrow = (TensorSpec(name="image", dtype="float32", shape=(None, 3, 7, 7)),)
    with pytest.raises(ModelError, match="does not take the dataset's samples"):
        describe_model(source(project), narrow, Path(), silent)


def test_a_step_that_fails_raises_its_own_error(project: Path) -> None:
    with pytest.raises(StepError, match="outputs differ"):
        steps(project, "export", settings=("export.rtol=0", "export.atol=0"))
