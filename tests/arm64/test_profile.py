"""The real job on real parts: one table for this machine, adbd and ssh, with outputs that agree."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import structures
from tests.arm64.target import ADB_PORT
from workbench.device.native.libraries import libraries
from workbench.errors import DependencyError

pytestmark = [pytest.mark.arm64, pytest.mark.process]
FORMATS = ("onnx", "ort", "tflite")


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> tuple[Path, list[Path]]:
    """FP32 and INT8 files of every format that a runner runs, of a MobileNetV2 of small size."""
    project = structures.write("mobilenet_v2", tmp_path_factory.mktemp("arm64"))
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "recipe", "mobile-int8", "--model",
         f"{project}/net.py:build", "--data", f"{project}/data.toml", "--no-latency",
         "--out", f"{project}/run"],
        capture_output=True, text=True, check=False, cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sorted((project / "run" / "artifacts").iterdir())
    # One with a name that a far shell would run.
    named = [shutil.copy(one, project / f"a; touch here {one.name}") for one in found
             if one.suffix.lstrip(".") in FORMATS]  # fmt: skip
    assert {Path(one).suffix.lstrip(".") for one in named} == set(FORMATS)
    return project, [Path(one) for one in named]


@pytest.fixture
def project(artifacts, adb_target, ssh_target, tmp_path, monkeypatch) -> Path:
    """A folder with profiles of the two targets; their clients are first on PATH."""
    try:
        libraries("aarch64-linux")
    except DependencyError as error:
        pytest.skip(str(error))
    folder = tmp_path / "project"
    (folder / "devices").mkdir(parents=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "adb").symlink_to(adb_target.programs / "adb")
    ssh = shlex.join([str(ssh_target.programs / "ssh"), "-F", str(ssh_target.config)])
    (folder / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {ssh} "$@"\n')
    (folder / "bin" / "ssh").chmod(0o755)
    profiles = {
        "phone": f'transport = "adb"\nserial = "127.0.0.1:{ADB_PORT}"\n',
        "board": 'transport = "ssh"\nhost = "board"\ncores = [0]\n',
    }
    for name, text in profiles.items():
        (folder / "devices" / f"{name}.toml").write_text(text + "[limits]\ntimeout = 200\n")
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def profiled(project: Path, *words: str, code: int = 0) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "profile", *words, "--quick", "--json"],
        capture_output=True, text=True, check=False, cwd=project, timeout=280,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.timeout(600)
def test_host_phone_and_board_give_the_same_outputs_in_one_table(project, artifacts):
    source, files = artifacts
    report = profiled(
        project, *map(str, files), "--device", "cpu-native", "--device", "phone", "--device",
        "board", "--data", f"{source}/data.toml", "--samples", "4",
    )  # fmt: skip
    blocks = {one["device"]: one for one in (report, *report["devices"])}
    assert list(blocks) == ["cpu-native", "phone", "board"]
    for name, block in blocks.items():
        assert [row["error"] for row in block["rows"]] == [None] * len(files)
        for row in block["rows"]:
            figures = row["figures"]
            assert len(row["latency"]["processes"]) == 6
            assert figures["like_host"] == 100
            least = 90 if row["precision"] == "float32" else 30
            assert float(figures["like_host_sqnr"]) > least, (name, row["label"])
            # Times of an emulator are compared with nothing.
            assert name == "cpu-native" or figures["than_onnx"] is None
    for name in ("phone", "board"):
        assert blocks[name]["emulated"]
        assert blocks[name]["host"]["INT8"] == "s8s8"
        assert "qemu" in blocks[name]["host"]["emulated"]
    assert not blocks["cpu-native"]["emulated"]


@pytest.mark.timeout(300)
def test_a_daemon_killed_in_the_middle_ends_its_device_and_resume_goes_on(
    project, artifacts, ssh_target, tmp_path
):
    _, files = artifacts
    model = str(next(one for one in files if one.suffix == ".tflite"))
    path = project / "devices" / "board.toml"
    path.write_text(path.read_text() + "retries = 0\n")
    words = ["profile", model, "--quick", "--json", "--device", "board"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *words], cwd=project, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not ssh_target.daemon.running(".plan"):
        assert process.poll() is None, process.communicate()
    ssh_target.daemon.stop()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 5
    assert "board" in json.loads(out)["error"]["what"]
    ssh_target.daemon.start()
    report = profiled(project, model, "--device", "board", "--resume")
    assert len(report["rows"][0]["latency"]["processes"]) == 6


@pytest.mark.timeout(300)
def test_the_device_lists_itself(project):
    done = subprocess.run(
        [sys.executable, "-m", "workbench", "devices", "--json"], capture_output=True, text=True,
        check=True, cwd=project,
    )  # fmt: skip
    found = {one["name"]: one for one in json.loads(done.stdout)}
    for name in ("phone", "board"):
        assert found[name]["state"] == "emulated"
        assert "Cortex-A72" in found[name]["about"]
        assert "INT8 as s8s8" in found[name]["about"]
