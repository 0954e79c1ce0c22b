"""`wb profile --device …` as a user types it, on stand-ins for adb and ssh that go wrong.

A process of its own is for a whole table and for Ctrl-C; the rest is typed in this process, with
one worker process for all, and times two rounds where the preset has six.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import commandline
from tests.device import fakes
from tests.device.transport import standin
from tests.project import KeptPool
from tests.run import report_form
from workbench.artifact import digest
from workbench.measure import remote
from workbench.measure.latency import PRESETS, Preset
from workbench.run import files_profile

pytestmark = pytest.mark.process

DEVICES = {
    "phone": 'transport = "adb"\nserial = "A1"\nrunner = "python"\ntags = ["nightly"]\n',
    "board": 'transport = "ssh"\nhost = "board"\nrunner = "python"\n',
}
# A run takes seconds in Python: one try is enough here.
MORE = f"""
[libraries]
python = {{ path = "{sys.executable}" }}
[limits]
retries = 0
timeout = 60
"""

BRIEF = Preset("quick", processes=2, warmup=1, runs=3, seconds=0.0)


class Project:
    """A user's folder with devices, files, and stand-ins first on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stand = standin.install(folder / "programs")
        (folder / "devices").mkdir()
        for name, text in DEVICES.items():
            (folder / "devices" / f"{name}.toml").write_text(text + MORE)
        self.model = fakes.linear(folder / "a; rm -rf $HOME .onnx")
        self.cache = folder / "cache"

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.stand.folder}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "WB_CACHE": str(self.cache), "HOME": str(self.folder)}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "workbench", *words]

    def wb(self, *words: str, code: int = 0) -> str:
        done = commandline.wb(self.folder, *words, **self.environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def profile(self, *words: str, code: int = 0) -> str:
        return self.wb("profile", str(self.model), "--quick", *words, code=code)

    def kept(self) -> list[str]:
        """What a run left on the stand-in's devices beside whole files under their digests.

        Halves of files that were cut off go with the next run but one, when they are an hour old.
        """
        return [one for one in self.stand.files() if "objects/" not in one and ".part" not in one]

    def damaged(self) -> list[Path]:
        """Files that have the name of another's digest."""
        whole = [one for one in self.stand.root.rglob("objects/*") if ".part" not in one.name]
        return [one for one in whole if not one.name.startswith(digest(one))]


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture(scope="module")
def workers() -> Iterator[KeptPool]:
    pool = KeptPool()
    yield pool
    pool.end()


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch, workers: KeptPool) -> None:
    """--quick in this process: two rounds; and a lost device is looked for again at once."""
    monkeypatch.setattr(files_profile, "Pool", lambda: workers)
    monkeypatch.setitem(PRESETS, "quick", BRIEF)
    monkeypatch.setattr(remote, "BACKOFF", 0.01)


def test_the_host_and_two_devices_stand_in_one_table(project):
    words = ["--device", "phone", "--device", "board", "--device", "cpu"]
    done = subprocess.run(
        project.command("profile", str(project.model), "--quick", *words, "--json"),
        cwd=project.folder, env=project.environment, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    blocks = [report, *report["devices"]]
    assert [one["device"] for one in blocks] == ["phone", "board", "cpu"]
    for one in blocks:
        (row,) = one["rows"]
        assert row["label"] == "a; rm -rf $HOME .onnx"
        assert len(row["latency"]["processes"]) == 6
    for one in blocks[:2]:
        assert float(one["rows"][0]["figures"]["like_host_sqnr"]) > 100
    report_form.check(report, "profile_on_three_devices")
    assert project.kept() == []
    assert Path(project.folder).is_dir()  # nothing ran that was a file's name


@pytest.mark.parametrize(
    ("fault", "device", "words"),
    [
        ({"kind": "offline"}, "phone", ["phone", "offline"]),
        ({"kind": "lost", "on": "push"}, "phone", ["phone"]),
        ({"kind": "lost", "on": "run", "match": "time.plan", "nth": 2}, "phone", ["phone"]),
        ({"kind": "lost", "match": ".plan"}, "board", ["board"]),
        ({"kind": "lost", "on": "pull"}, "phone", ["phone"]),
        ({"kind": "lost", "on": "pull"}, "board", ["board"]),
        ({"kind": "full", "on": "push"}, "phone", ["is full", "free some of its storage"]),
        ({"kind": "full", "on": "push"}, "board", ["is full"]),
        ({"kind": "refused"}, "board", ["board", "Connection refused"]),
        ({"kind": "half", "match": ".plan"}, "board", ["board"]),
    ],
)
def test_a_fault_ends_its_device_and_no_other(project, fault, device, words):
    project.stand.set({**fault, "program": {"phone": "adb", "board": "ssh"}[device]})
    other = {"phone": "board", "board": "phone"}[device]
    out = project.folder / "out"
    text = project.profile("--device", device, "--device", other, "--out", str(out), code=5)
    for word in words:
        assert word in text
    assert "fix:" in text
    report = json.loads((out / "report.json").read_text())
    (stands,) = [one for one in (report, *report["devices"]) if one["device"] == other]
    assert len(stands["rows"][0]["latency"]["processes"]) == BRIEF.processes
    assert stands["rows"][0]["figures"]["like_host_sqnr"] is not None
    project.stand.set()
    assert project.kept() == []
    assert project.damaged() == []


@pytest.mark.parametrize(
    ("fault", "device", "words"),
    [
        ("unauthorized", "phone", "accept the prompt on its screen"),
        ("missing", "phone", "adb devices"),
        ("several", "phone", "set serial in its profile"),
        ("denied", "board", "Permission denied"),
    ],
)
def test_a_device_that_cannot_be_reached_comes_with_advice(project, fault, device, words):
    project.stand.set({"kind": fault})
    text = project.profile("--device", device, code=5)
    assert words in text
    assert "fix:" in text
    assert project.kept() == []


def test_a_device_lost_for_a_moment_comes_back(project):
    for name in DEVICES:
        path = project.folder / "devices" / f"{name}.toml"
        path.write_text(path.read_text().replace("retries = 0", "retries = 2"))
    project.stand.set({"kind": "lost", "on": "run", "match": ".plan", "nth": 2})
    text = project.profile("--device", "phone")
    assert "the connection was lost and came back" in text


def test_a_run_that_was_cut_off_goes_on_with_resume(project, monkeypatch):
    monkeypatch.setitem(PRESETS, "quick", replace(BRIEF, processes=4))
    project.stand.set({"kind": "lost", "on": "run", "match": ".plan", "nth": 3})
    project.profile("--device", "phone", code=5)
    project.stand.set()
    before = len(project.stand.calls())
    project.profile("--device", "phone", "--resume")
    ran = [" ".join(one) for one in project.stand.calls()[before:]]
    # Of four rounds one or two were done; the rest is run now, each process once.
    timings = [one for one in ran if sys.executable in one and "time.plan" in one]
    assert 2 <= len(timings) <= 3


def test_ctrl_c_leaves_nothing_behind(project):
    project.stand.set({"kind": "hang", "on": "run", "match": ".plan", "nth": 1})
    process = subprocess.Popen(
        project.command("profile", str(project.model), "--quick", "--device", "phone"),
        cwd=project.folder, env=project.environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    due = time.monotonic() + 60
    while not any(".plan" in " ".join(one) for one in project.stand.calls()):
        assert time.monotonic() < due
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert project.kept() == []


def test_without_the_programs_the_remedy_is_named(project):
    project.stand.folder.rename(project.folder / "elsewhere")
    path = project.folder / "bin"
    path.mkdir()
    done = subprocess.run(
        project.command("profile", str(project.model), "--quick", "--device", "phone"),
        cwd=project.folder, env={**project.environment, "PATH": str(path)}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "Debian's package adb" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--device", "phnoe"], 2, "did you mean 'phone'"),
        (["--device", "tag:nightyl"], 2, "did you mean 'nightly'"),
        (["--device", "cpu", "--op-profile"], 2, "--op-profile needs a runner"),
        (["--device", "phone", "--samples", "-1"], 2, "--samples"),
    ],
)
def test_wrong_words_are_said_before_any_work(project, words, code, said):
    text = project.profile(*words, code=code)
    assert said in text
    assert not [one for one in project.stand.calls() if "push" in one]


def test_the_devices_are_listed_with_their_state(project):
    project.stand.set(
        {"kind": "refused", "program": "ssh"},
        devices=[{"serial": "A1", "state": "device", "model": "P"},
                 {"serial": "B2", "state": "unauthorized", "model": ""}],
    )  # fmt: skip
    listed = {one["name"]: one for one in json.loads(project.wb("devices", "--json"))}
    assert listed["phone"]["state"] == "ready"
    assert "INT8 as" in listed["phone"]["about"]
    assert listed["board"]["state"] == "unreachable"
    assert "Connection refused" in listed["board"]["about"]
    assert listed["android"]["state"] == "example"
    assert listed["–"]["address"] == "adb B2"
    assert listed["–"]["fix"] == "wb devices new NAME --serial B2"


def test_a_new_profile_says_what_the_device_says(project):
    text = project.wb("devices", "new", "mine", "--serial", "A1")
    assert "wrote devices/mine.toml" in text
    made = (project.folder / "devices" / "mine.toml").read_text()
    assert 'serial = "A1"' in made
    assert "isa = [" in made
    listed = json.loads(project.wb("devices", "--json"))
    assert next(one for one in listed if one["name"] == "mine")["state"] == "ready"
    assert "exists already" in project.wb("devices", "new", "mine", "--serial", "A1", code=2)
    assert "give one of --serial and --host" in project.wb("devices", "new", "x", code=2)
    assert "cannot name a device" in project.wb("devices", "new", "a b", "--serial", "A1", code=2)


def test_a_device_that_does_not_answer_gets_no_profile(project):
    project.stand.set({"kind": "offline"})
    project.wb("devices", "new", "mine", "--serial", "A1", code=5)
    assert sorted(path.name for path in (project.folder / "devices").iterdir()) == [
        "board.toml", "phone.toml",
    ]  # fmt: skip


def test_what_runs_here_alone_refuses_another_machine(project):
    model = str(project.model)
    for words in (["compare", model, model], ["sensitivity", model, "--data", "digits"]):
        assert "own processes" in project.wb(*words, "--device", "phone", code=2)
