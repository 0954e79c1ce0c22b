"""The real job on real parts: one table for this machine, adbd and ssh, with outputs that agree.

Two rounds where `--quick` has six: an emulator's times are looked at by nobody. A command that
nothing interrupts is typed in this process.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import commandline, structures
from tests.arm64.target import ADB_PORT, Daemon
from workbench.cache import Cache
from workbench.device.native.libraries import libraries
from workbench.display import Quiet
from workbench.engine.execution import Engine
from workbench.errors import DependencyError
from workbench.measure.latency import PRESETS, Preset
from workbench.run.run_options import RunOptions
from workbench.worker_pool import Pool
from workbench.workspace import Workspace

pytestmark = [pytest.mark.arm64, pytest.mark.process]
FORMATS = ("onnx", "ort", "tflite")
BRIEF = Preset("quick", processes=2, warmup=1, runs=3, seconds=0.0)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> tuple[Path, list[Path]]:
    """FP32 and INT8 files of every format that a runner runs, of a MobileNetV2 of small size."""
    project = structures.write("mobilenet_v2", tmp_path_factory.mktemp("arm64"))
    request, _ = RunOptions(
        recipe="mobile-int8", model=f"{project}/net.py:build", data=f"{project}/data.toml",
        preset="none",
    ).resolve()  # fmt: skip
    with closing(Cache(project / "cache")) as cache, closing(Pool()) as pool:
        outcome = Engine(request, Workspace(cache, pool, Quiet())).run()
    found = [one.artifact.path for one in outcome.table if one.artifact is not None]
    # One with a name that a far shell would run.
    named = [shutil.copy(one, project / f"a; touch here {number}{one.suffix}")
             for number, one in enumerate(found) if one.suffix.lstrip(".") in FORMATS]  # fmt: skip
    assert len(named) == len(found) == 5
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


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "quick", BRIEF)


def profiled(project: Path, *words: str) -> dict:
    done = commandline.wb(project, "profile", *words, "--quick", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
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
            assert len(row["latency"]["processes"]) == BRIEF.processes
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


def kill_during_a_run(daemon: Daemon) -> None:
    while not daemon.running(".plan"):
        time.sleep(0.02)
    daemon.stop()


@pytest.mark.timeout(300)
def test_a_daemon_killed_in_the_middle_ends_its_device_and_resume_goes_on(
    project, artifacts, ssh_target, tmp_path
):
    _, files = artifacts
    model = str(next(one for one in files if one.suffix == ".tflite"))
    path = project / "devices" / "board.toml"
    path.write_text(path.read_text() + "retries = 0\n")
    killer = threading.Thread(target=kill_during_a_run, args=(ssh_target.daemon,), daemon=True)
    killer.start()
    done = commandline.wb(project, "profile", model, "--quick", "--json", "--device", "board")
    killer.join()
    assert done.returncode == 5, done.stderr
    assert "board" in json.loads(done.stdout)["error"]["what"]
    ssh_target.daemon.start()
    report = profiled(project, model, "--device", "board", "--resume")
    assert len(report["rows"][0]["latency"]["processes"]) == BRIEF.processes


@pytest.mark.timeout(300)
def test_the_device_lists_itself(project):
    done = commandline.wb(project, "devices", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in json.loads(done.stdout)}
    for name in ("phone", "board"):
        assert found[name]["state"] == "emulated"
        assert "Cortex-A72" in found[name]["about"]
        assert "INT8 as s8s8" in found[name]["about"]
