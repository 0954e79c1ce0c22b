"""Whole runs on a small project: what they leave, what they reuse, and what interrupts them.

The command line is started for one whole run, an exit code, and what interrupts a run; all others
are done in this process, most of them on the whole run's cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from tests import project
from workbench.errors import WorkbenchError
from workbench.measure.latency import PRESETS

pytestmark = pytest.mark.process

CRASHING_NET = (
    project.NET
    + """
import os, signal
class Crashing(nn.Module):
    # Survives what export and its checks ask of it, and dies where latency is measured.
    def __init__(self):
        super().__init__()
        self.inner, self.calls = inner(), 0
    def forward(self, x):
        self.calls += 1
        if self.calls > 40 and x.shape[0] == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        return self.inner(x)
inner, build = build, Crashing
"""
)

FAILING_BRANCH = '''"""One branch fails."""
from dataclasses import dataclass
from typing import ClassVar
from workbench.artifact import Format
from workbench.errors import StepError
from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify

@dataclass(frozen=True, kw_only=True)
class Fails:
    name: ClassVar = "fails"
    takes: ClassVar = (Format.ONNX,)
    gives: ClassVar = Format.TFLITE
    needs_data: ClassVar = False
    packages: ClassVar = ()
    seconds: ClassVar = 1
    def run(self, subject, context):
        raise StepError("no kernel for Frobnicate", "it is made up", "leave it out")

recipe = Recipe(Export(), Simplify(), branches={"good": (QuantizeStatic(),), "bad": (Fails(),)})
'''


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project with one finished run from the shell: the folder and the run's report."""
    folder = project.make(tmp_path_factory.mktemp("done") / "project")
    finished = project.wb(folder, "recipe", "small", *project.OWN, "--json")
    assert finished.returncode == 0, finished.stderr
    return folder, project.report(finished)


@pytest.fixture(scope="module")
def runs(done):
    """More runs of that project."""
    with project.Runs(done[0]) as runs:
        yield runs


@pytest.fixture
def fresh(done, tmp_path):
    """A copy of the project without runs or cache."""
    return project.copied(done[0], tmp_path / "project", cache=False)


@pytest.fixture
def others(done, tmp_path):
    """Runs of a copy of the project, with what the first run made in its cache."""
    with project.Runs(project.copied(done[0], tmp_path / "project", cache=True)) as runs:
        yield runs


def keys(report):
    return [row["key"] for row in report["rows"]]


def test_the_table_has_both_baselines_and_every_artifact_once(done):
    _, report = done
    assert keys(report) == ["eager", "simplify", "ort.quantize", "ort.to_ort"]
    labels = [row["label"] for row in report["rows"]]
    assert labels == ["PyTorch eager", "FP32 ONNX", "INT8 ONNX", "INT8 ORT-mobile"]
    assert report["baselines"] == {"eager": "eager", "onnx": "simplify", "reference": "eager"}


def test_every_figure_is_there_and_can_be_true(done):
    _, report = done
    figures = {row["key"]: row["figures"] for row in report["rows"]}
    for row in figures.values():
        assert 0 < row["median"]["low"] <= row["median"]["value"] <= row["median"]["high"]
        assert row["median"]["value"] <= row["p90"]["value"]
        assert row["load_ms"] > 0 and row["peak_bytes"] > 0
        assert 0 <= row["accuracy"] <= 100
    assert figures["eager"]["delta"] is None
    assert figures["simplify"]["agreement"] == 100
    assert figures["simplify"]["delta"]["value"] == 0
    assert figures["simplify"]["sqnr"] > 80
    assert 10 < figures["ort.quantize"]["sqnr"] < 60
    assert figures["ort.quantize"]["than_onnx"] is not None
    for row in report["rows"]:
        assert len(row["latency"]["processes"]) == 6
        assert all(len(one["samples_ns"]) >= 10 for one in row["latency"]["processes"])


def test_the_manifest_names_every_file_with_its_digest(done):
    folder, report = done
    run = folder / report["folder"]
    manifest = project.manifest(folder, report)
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()} - {"manifest.json"}
    assert set(manifest["files"]) == files
    for name, expected in manifest["files"].items():
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == expected
    assert {"report.html", "report.md", "report.json"} <= files
    assert any(name.endswith("required_operators.config") for name in files)
    for row in report["rows"][1:]:
        assert manifest["files"][row["path"]] == row["sha256"]
    assert [step["id"] for step in manifest["steps"]] == [
        "export", "simplify", "ort.quantize", "ort.to_ort",
    ]  # fmt: skip
    assert manifest["recipe"]["branches"]["ort"][0]["preset"] == "balanced"
    assert set(manifest["measuring_seconds"]) == {"latency", "accuracy"}
    assert manifest["seeds"] and manifest["host"]["cores"] and manifest["versions"]["torch"]


def test_the_checklist_the_formats_and_the_samples_of_a_run(done):
    folder, report = done
    run = folder / report["folder"]
    lines = {line["name"]: line for line in report["checklist"]}
    assert list(lines) == [
        "exports", "outputs match", "optimized", "batching", "error handling", "files verified",
    ]  # fmt: skip
    artifacts = [row for row in report["rows"] if row["path"]]
    for name in ("exports", "batching", "error handling"):
        verdicts = [one["verdict"] for one in lines[name]["artifacts"]]
        assert verdicts == ["yes"] * len(artifacts), lines[name]
    assert lines["files verified"]["verdict"] == "yes"
    files = list((run / "artifacts").iterdir())
    assert lines["files verified"]["evidence"].startswith(f"{len(files)} files read back")
    assert [entry["file"] for entry in report["formats"]] == [row["path"] for row in artifacts]
    assert report["formats"][0]["requires"] == ["opset 17, IR 8"]
    for row in artifacts:
        name = row["path"].removeprefix("artifacts/")
        assert row["samples"] == [
            f"samples/{name}/{file}" for file in ("main.cpp", "Sample.kt", "Sample.swift")
        ]
        assert all(name in (run / path).read_text().splitlines()[0] for path in row["samples"])
    assert json.loads((run / "report.json").read_text())["checklist"] == report["checklist"]


def test_artifacts_load_in_their_runtime_from_the_run_folder(done):
    import numpy as np
    import onnxruntime

    folder, report = done
    samples = np.load(folder / "x.npy")[:5]
    outputs = []
    for row in report["rows"][1:]:
        path = folder / report["folder"] / row["path"]
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"input": samples})[0])
    assert all(output.shape == (5, 10) for output in outputs)
    assert np.abs(outputs[1] - outputs[0]).max() < 0.2 * np.abs(outputs[0]).max()


def test_the_same_again_makes_and_measures_nothing(done, runs):
    folder, first = done
    again = runs.recipe("small", preset=PRESETS["quick"])
    assert again["measured"] == first["measured"]
    assert all(step["cached"] for step in project.manifest(folder, again)["steps"])
    assert [row["latency"] for row in again["rows"]] == [row["latency"] for row in first["rows"]]


def test_a_changed_option_remakes_only_what_follows(done, runs):
    changed = runs.recipe("small", settings=["quantize.preset=fast"])
    steps = project.manifest(done[0], changed)["steps"]
    assert [step["cached"] for step in steps] == [True, True, False, False]


def test_a_changed_source_file_is_noticed(others):
    first = project.manifest(others.folder, others.recipe("plain"))
    assert all(step["cached"] for step in first["steps"])
    net = others.folder / "net.py"
    net.write_text(net.read_text().replace("nn.ReLU()", "nn.Hardtanh(0, 1)"))
    others.new_workers()
    second = project.manifest(others.folder, others.recipe("plain"))
    assert first["model"]["fingerprint"] != second["model"]["fingerprint"]
    assert not any(step["cached"] for step in second["steps"])


def test_without_labels_agreement_and_sqnr_stand_for_accuracy(others):
    data = others.folder / "data.toml"
    data.write_text('source = "numpy"\npath = "x.npy"\n[split]\ncalibration = 8\n')
    report = others.recipe("small")
    figures = report["rows"][2]["figures"]
    assert figures["accuracy"] is None and figures["delta"] is None
    assert figures["agreement"] is not None and figures["sqnr"] > 10
    assert any("no labels" in note for note in report["notes"])


def test_a_users_metric_replaces_top1(others):
    (others.folder / "metric.py").write_text(
        "def error(predictions, labels):\n"
        "    return -float(abs(predictions.argmax(1) - labels).mean())\n"
    )
    data = others.folder / "data.toml"
    data.write_text('metric = "metric.py:error"\n' + data.read_text())
    report = others.recipe("small")
    figures = [row["figures"] for row in report["rows"]]
    assert report["metric"] == "error"
    assert figures[0]["accuracy"] < 0
    assert figures[1]["accuracy"] == figures[0]["accuracy"]
    assert figures[1]["delta"]["value"] == 0


def test_an_onnx_file_skips_export_and_is_left_untouched(done, runs):
    folder, report = done
    model = folder / "mine.onnx"
    shutil.copyfile(folder / report["folder"] / report["rows"][1]["path"], model)
    before = model.read_bytes()
    found = runs.recipe("small", model="mine.onnx", weights=None, preset=project.ONE_PROCESS)
    assert keys(found) == ["simplify", "ort.quantize", "ort.to_ort"]
    assert found["baselines"]["eager"] == ""
    assert found["rows"][0]["figures"]["agreement"] is None
    assert found["rows"][0]["figures"]["median"] is not None
    assert model.read_bytes() == before


def test_a_failed_branch_is_a_row_and_the_others_stand(others):
    (others.folder / "recipes" / "failing.py").write_text(FAILING_BRANCH)
    finished = project.wb(others.folder, "recipe", "failing", *project.UNTIMED, "--json")
    assert finished.returncode == 3
    report = project.report(finished)
    assert keys(report) == ["eager", "simplify", "good.quantize", "bad.fails"]
    failed = report["rows"][3]
    assert failed["error"]["what"] == "bad.fails: no kernel for Frobnicate"
    assert failed["figures"]["accuracy"] is None
    assert report["rows"][2]["figures"]["accuracy"] is not None
    page = (others.folder / report["folder"] / "report.html").read_text()
    assert "no kernel for Frobnicate" in page
    report = others.recipe("failing", preset=project.ONE_PROCESS)
    assert others.exit_code == 3
    assert report["rows"][3]["figures"]["median"] is None
    assert report["rows"][2]["figures"]["median"] is not None


def test_a_crash_while_measuring_is_that_rows_error(others):
    (others.folder / "net.py").write_text(CRASHING_NET)
    state = others.folder / "weights.pt"
    import torch

    loaded = torch.load(state, weights_only=True)
    torch.save({f"inner.{key}": value for key, value in loaded.items()}, state)
    preset = dataclasses.replace(project.ONE_PROCESS, runs=60)
    rows = {row["key"]: row for row in others.recipe("small", preset=preset)["rows"]}
    assert others.exit_code == 3
    assert "SIGSEGV" in rows["eager"]["error"]["why"]
    assert rows["simplify"]["figures"]["median"] is not None
    assert rows["ort.to_ort"]["error"] is None


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def entries(folder):
    return list((folder / "cache" / "entries").glob("*/entry.json"))


@pytest.mark.parametrize("finished_steps", [0, 1, 3])
def test_a_killed_run_goes_on_where_it_was(fresh, finished_steps):
    process = project.start(fresh, "recipe", "small", *project.UNTIMED, "--json")
    wait_for(lambda: len(entries(fresh)) >= finished_steps and project.workers(fresh))
    process.kill()
    process.communicate()
    wait_for(lambda: not project.workers(fresh), 15)
    assert not (fresh / "runs").exists() or not list((fresh / "runs").glob("small-*"))
    with project.Runs(fresh) as runs:
        steps = project.manifest(fresh, runs.recipe("small"))["steps"]
    assert [step["cached"] for step in steps][:finished_steps] == [True] * finished_steps
    assert list((fresh / "cache" / "tmp").iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_leaves_nothing_behind(fresh, sent):
    process = project.start(fresh, "recipe", "small", *project.UNTIMED)
    wait_for(lambda: project.workers(fresh))
    time.sleep(0.5)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    wait_for(lambda: not project.workers(fresh), 15)
    assert not (fresh / "runs").exists() or not list((fresh / "runs").iterdir())


def test_two_runs_at_once_share_what_they_make(fresh):
    both = [project.start(fresh, "recipe", "small", *project.UNTIMED, "--json") for _ in range(2)]
    reports = []
    for process in both:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        reports.append(json.loads(out))
    assert reports[0]["folder"] != reports[1]["folder"]
    made = [[step["cached"] for step in project.manifest(fresh, one)["steps"]] for one in reports]
    assert all(first != second for first, second in zip(*made, strict=True))
    digests = [[row["sha256"] for row in one["rows"]] for one in reports]
    assert digests[0] == digests[1]


def test_without_latency_there_is_accuracy_alone(runs):
    found = runs.recipe("small")
    figures = found["rows"][2]["figures"]
    assert found["measured"] == ""
    assert figures["median"] is None and figures["than_onnx"] is None
    assert figures["agreement"] is not None


def test_out_names_the_folder_and_a_second_run_replaces_it_whole(done, runs):
    folder, _ = done
    assert runs.recipe("small", out="mine")["folder"] == "mine"
    (folder / "mine" / "left.txt").write_text("of the first run")
    assert runs.recipe("small", out="mine")["folder"] == "mine"
    assert (folder / "mine" / "manifest.json").is_file()
    assert not (folder / "mine" / "left.txt").exists()
    assert [path.name for path in folder.glob(".wb-*")] == []


def test_a_full_disk_is_a_message_and_nothing_is_lost(fresh):
    small = fresh / "cache"
    small.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(small)], capture_output=True,
        check=False,
    ) if os.geteuid() == 0 else None  # fmt: skip
    if mount is None or mount.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        finished = project.wb(fresh, "recipe", "small", *project.UNTIMED)
        assert finished.returncode == 3
        assert "the disk is full" in finished.stderr and "Traceback" not in finished.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        with project.Runs(fresh) as runs:
            runs.recipe("small")
            assert runs.exit_code == 0
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def test_a_forward_that_changed_is_noticed_though_weights_and_layers_did_not(others):
    net = others.folder / "net.py"
    net.write_text(
        "import torch\nfrom torch import nn\n"
        + "class Net(nn.Sequential):\n    def forward(self, x):\n"
        + "        return super().forward(x) * 1\n"
        + project.NET.replace("nn.Sequential(", "Net(")
    )
    first = others.recipe("plain")
    net.write_text(net.read_text().replace("(x) * 1", "(x) * 2"))
    others.new_workers()
    second = others.recipe("plain")
    assert first["rows"][1]["sha256"] != second["rows"][1]["sha256"]


def test_input_shapes_stand_in_for_data_where_a_recipe_needs_none(done, runs):
    folder, report = done
    (folder / "recipes" / "float.py").write_text(
        "from workbench.recipe import Recipe\n"
        "from workbench.steps import Export, Simplify, ToOrt\n"
        "recipe = Recipe(Export(), Simplify(), ToOrt())\n"
    )
    shapes = {"weights": None, "data": None, "inputs": ["input:1x3x32x32"]}
    found = runs.recipe("float", **shapes, preset=project.ONE_PROCESS)
    assert keys(found) == ["eager", "simplify", "to_ort"]
    assert found["samples"] == 0
    assert found["rows"][2]["figures"]["than_onnx"] is not None
    assert found["rows"][2]["figures"]["accuracy"] is None
    shutil.copyfile(folder / report["folder"] / report["rows"][1]["path"], folder / "own.onnx")
    found = runs.recipe("float", model="own.onnx", weights=None, data=None)
    assert keys(found) == ["simplify", "to_ort"]
    with pytest.raises(WorkbenchError, match="needs calibration samples") as caught:
        runs.recipe("small", **shapes)
    assert caught.value.exit_code == 2
