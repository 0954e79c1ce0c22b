"""Recipes for a device elsewhere: made for its CPU, measured there, scored here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import project
from tests.device.transport import standin
from tests.run import report_form

pytestmark = pytest.mark.process

PROFILE = f"""
transport = "adb"
serial = "A1"
runner = "python"
[libraries]
python = {{ path = "{sys.executable}" }}
[limits]
retries = 0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A project with a phone, which says that it is an ARM."""
    folder = project.make(tmp_path_factory.mktemp("devices") / "project")
    (folder / "devices").mkdir()
    (folder / "devices" / "phone.toml").write_text(
        'architecture = "arm"\nisa = ["asimddp"]\n' + PROFILE
    )
    return folder


@pytest.fixture(scope="module")
def stand(place):
    return standin.install(place / "programs")


def wb(place, *words, code=0):
    path = f"{place / 'programs'}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "recipe", "small", *words], cwd=place, text=True,
        env={**project.environment(place), "PATH": path}, capture_output=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def report(place, stand):
    words = (*project.OWN, "--device", "phone", "--device", "cpu", "--out", "run", "--json")
    return json.loads(wb(place, *words))


def test_the_files_are_made_for_the_first_device(report, place):
    # An ARM's dot products are signed; this machine's are not.
    notes = " ".join(note for row in report["rows"] for note in row["notes"])
    assert "s8s8" in notes
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    assert manifest["device"]["architecture"] == "arm"


def test_each_device_has_a_block_with_its_own_figures(report):
    blocks = [report, *report["devices"]]
    assert [one["device"] for one in blocks] == ["phone", "cpu"]
    for one in blocks:
        rows = {row["key"]: row for row in one["rows"]}
        assert list(rows) == ["eager", "simplify", "ort.quantize", "ort.to_ort"]
        assert len(rows["ort.to_ort"]["latency"]["processes"]) == 6
        assert rows["ort.to_ort"]["figures"]["than_onnx"] is not None
    assert report["rows"][0]["latency"] is None  # PyTorch runs on no phone
    assert report["devices"][0]["rows"][0]["latency"] is not None


def test_the_form_of_the_report_stays(report, place):
    written = json.loads((place / "run" / "report.json").read_text())
    assert list(report) == ["folder", *written]
    report_form.check(written, "recipe_on_two_devices")


def test_the_devices_own_outputs_are_scored(report):
    rows = {row["key"]: row for row in report["rows"]}
    here = {row["key"]: row for row in report["devices"][0]["rows"]}
    assert report["samples"] == 16
    for key in ("simplify", "ort.quantize", "ort.to_ort"):
        figures = rows[key]["figures"]
        assert figures["like_host"] == 100
        # The stand-in is this machine: the same outputs, and so the same scores.
        assert figures["accuracy"] == here[key]["figures"]["accuracy"]
        assert figures["sqnr"] == pytest.approx(here[key]["figures"]["sqnr"], abs=0.01)


def test_the_run_folder_has_every_device(report, place):
    text = (place / "run" / "report.md").read_text()
    assert "## On cpu" in text
    assert "as on this machine" in text
    assert "On cpu" in (place / "run" / "report.html").read_text()


def test_again_it_measures_nothing(report, place, stand):
    before = len(stand.calls())
    again = json.loads(
        wb(place, *project.OWN, "--device", "phone", "--out", "again", "--json", "--samples", "4")
    )
    ran = [" ".join(one) for one in stand.calls()[before:]]
    assert not [one for one in ran if "time.plan" in one and sys.executable in one]
    assert again["samples"] == 4
    assert again["rows"][2]["latency"] == report["rows"][2]["latency"]


def test_a_device_that_does_not_answer_ends_the_run_before_any_work(place, stand):
    stand.set({"kind": "unauthorized"})
    try:
        text = wb(place, *project.OWN, "--device", "phone", "--out", "none", code=5)
    finally:
        stand.set()
    assert "accept the prompt on its screen" in text
    assert not (place / "none").exists()


def test_a_device_that_is_lost_later_leaves_the_files_and_the_other_device(place, stand):
    stand.set({"kind": "lost", "on": "push"})
    try:
        text = wb(
            place, *project.OWN, "--device", "phone", "--device", "cpu", "--out", "lost",
            "--no-cache", code=5,
        )  # fmt: skip
    finally:
        stand.set()
    assert "phone" in text
    assert (place / "lost" / "artifacts" / "ort.model.int8.ort").is_file()
    found = json.loads((place / "lost" / "report.json").read_text())
    assert found["error"]["what"]
    assert found["devices"][0]["rows"][3]["latency"] is not None


def test_layers_are_not_timed_here_for_another_machine(place, stand):
    words = ("--set", "quantize.optimize=latency", "--device", "phone")
    text = wb(place, *project.OWN, *words, code=2)
    assert "does not go with --device phone" in text


def test_a_dry_run_asks_no_device(place, stand):
    before = len(stand.calls())
    text = wb(place, *project.OWN, "--device", "phone", "--dry-run")
    assert "INT8 as s8s8" in text
    assert len(stand.calls()) == before
