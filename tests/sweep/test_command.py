"""`wb sweep`, `wb front` and `wb recipe --from` as a user types them, and what is typed wrong."""

from __future__ import annotations

import csv
import json
import os
import signal
import time

import pytest

from tests import project

pytestmark = pytest.mark.process

SWEEP = (
    "sweep", "small", *project.UNTIMED, "--vary", "quantize.preset=fast,balanced",
    "--vary", "quantize.samples=4,8", "--minimise", "size,drop",
)  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return project.make(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def killed(here):
    """A sweep that was killed after its first trial, with everything it had started."""
    with project.start(here, *SWEEP) as process:
        for line in process.stderr:
            if line.startswith("trial "):
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while project.workers(here) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not project.workers(here), "processes outlived the sweep that started them"
    (folder,) = (here / "runs").iterdir()
    return folder


@pytest.fixture(scope="module")
def swept(here, killed):
    """The same sweep, gone on with."""
    done = project.wb(here, *SWEEP, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    return killed, project.report(done)


def test_after_a_kill_each_point_is_there_once(swept):
    folder, found = swept
    settings = [tuple(one["settings"]) for one in found["points"]]
    assert len(settings) == len(set(settings)) == 4
    assert sorted(one["trial"] for one in found["points"]) == [0, 1, 2, 3]
    for one in found["points"]:
        assert one["state"] in ("front", "near", "dominated")
        place = folder / "trials" / f"{one['trial']:04}"
        manifest = json.loads((place / "manifest.json").read_text())
        sizes = [path.stat().st_size for path in (place / "artifacts").glob("*.ort")]
        assert one["figures"]["size"]["value"] == pytest.approx(sizes[0] / 1e6, rel=1e-3)
        options = manifest["recipe"]["branches"]["ort"][0]
        assert f"quantize.samples={options['samples']}" in one["settings"]


def test_the_front_is_shown_and_written(here, swept):
    folder, found = swept
    done = project.wb(here, "front", str(folder))
    assert done.returncode == 0, done.stderr
    assert "4 trials of small, grid" in done.stdout
    rows = list(csv.DictReader((folder / "front.csv").open()))
    assert [int(row["trial"]) for row in rows] == [one["trial"] for one in found["points"]]
    assert "<title>trial: " in (folder / "front.svg").read_text()
    page = (folder / "front.html").read_text()
    assert "<script" not in page
    assert page.count('class="dot') == 4
    assert "| front" in (folder / "front.md").read_text()


def test_other_goals_rank_the_same_trials(here, swept):
    folder, _ = swept
    words = ("front", str(folder), "--minimise")
    done = project.wb(here, *words, "size", "--out", "other", "--json")
    found = project.report(done)
    sizes = [one["figures"]["size"]["value"] for one in found["points"]]
    assert sizes == sorted(sizes)
    assert [one["state"] for one in found["points"]].count("front") == 1
    assert (here / "other" / "front.html").is_file()
    wrong = project.wb(here, *words, "latency")
    assert wrong.returncode == 2
    assert "needs a device that is measured" in wrong.stderr


def test_a_point_is_repeated(here, swept):
    folder, found = swept
    point = found["points"][0]
    done = project.wb(
        here, "recipe", "small", "--from", f"{folder}:{point['trial']}", "--no-latency", "--json"
    )
    again = project.report(done)
    assert again["folder"]
    assert not again["folder"].startswith(str(folder))
    bytes_of = {row["key"]: row["figures"]["bytes"] for row in again["rows"]}
    assert bytes_of["ort.to_ort"] / 1e6 == pytest.approx(
        point["figures"]["size"]["value"], rel=1e-3
    )
    wrong = project.wb(here, "recipe", "mobile-int8", "--from", f"{folder}:0", "--no-latency")
    assert wrong.returncode == 2
    assert "is of recipe small, not of mobile-int8" in wrong.stderr
    none = project.wb(here, "recipe", "small", "--from", f"{folder}:99", "--no-latency")
    assert none.returncode == 2
    assert "has no trial 99" in none.stderr


def test_failing_trials_do_not_end_it(here):
    (here / "recipes" / "breaking.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from workbench.errors import StepError\n"
        "from workbench.recipe import Recipe\n"
        "from workbench.steps import Export, Simplify\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Break(Simplify):\n"
        "    when: bool = False\n"
        "    name: ClassVar[str] = 'break'\n"
        "    def run(self, subject, context):\n"
        "        if self.when:\n"
        "            raise StepError('it broke', 'as asked', '')\n"
        "        return super().run(subject, context)\n"
        "recipe = Recipe(Export(), Break())\n"
    )
    done = project.wb(
        here, "sweep", "breaking", *project.UNTIMED, "--vary", "break.when", "--minimise", "size"
    )
    assert done.returncode == 0, done.stderr
    assert "trial 0: failed: break: it broke" in done.stderr
    assert "1 on the front of size, 1 failed" in done.stdout


def test_what_the_goals_ask_for_is_timed_and_no_more(here):
    words = (
        "--vary",
        "quantize.samples=4,8",
        "--minimise",
        "size,latency",
        "--max-latency",
        "1000",
    )
    done = project.wb(
        here, "sweep", "small", *project.OWN, *words, "--max-latency", "1000", "--json"
    )
    found = project.report(done)
    assert len(found["points"]) == 2
    for one in found["points"]:
        latency = one["figures"]["latency@cpu"]
        assert 0 < latency["low"] <= latency["value"] <= latency["high"]
        report = json.loads((here / one["folder"] / "report.json").read_text())
        timed = {row["key"] for row in report["rows"] if row["latency"]}
        assert timed == {"simplify", "ort.to_ort"}
        assert all(row["figures"]["agreement"] is not None for row in report["rows"][1:])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--vary", "quantize.preset=fast", "--minimise", "speed"), "--minimise does not know"),
        (("--vary", "quantize.preset=fast"), "latency needs a device that is measured"),
        (("--vary", "quantize.samples=8:4", "--minimise", "size"), "bounds are reversed"),
        (("--vary", "quantise.samples=4", "--minimise", "size"), "did you mean"),
        (("--minimise", "size"), "a sweep varies nothing"),
        (("--vary", "quantize.preset=fast", "--search", "gird", "--minimise", "size"), "'grid'"),
        (("--vary", "quantize.preset=fast", "--minimise", "size", "--trials", "0"), "--trials"),
        (("--vary", "quantize.preset=fast", "--minimise", "size", "--jobs", "0"), "--jobs"),
        (("--vary", "quantize.preset=fast", "--minimise", "size", "--branch", "x"), "no branch"),
        (("--vary", "quantize.preset=fast", "--minimise", "size", "--on", "spark"), "--on does"),
        (("--vary", "quantize.preset=fast", "--minimise", "size", "--resume"), "no sweep to go on"),
        (
            ("--vary", "quantize.preset=fast", "--minimise", "size", "--out", "bad",
             "--storage", "sqlite:////nowhere/x.db"),
            "does not answer",
        ),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_said_before_any_work(here, words, said):
    done = project.wb(here, "sweep", "small", *project.UNTIMED, *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not project.workers(here)
    assert not (here / "bad").exists()


def test_a_folder_without_a_sweep(here):
    done = project.wb(here, "front", "nowhere")
    assert done.returncode == 2
    assert "there is no folder nowhere" in done.stderr
