"""Trials on a local Ray cluster of two nodes, one worker killed in mid-trial; and no cluster."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests import project
from tests.sweep import fakes
from workbench.errors import DependencyError, StepError
from workbench.run.run_options import RunOptions
from workbench.sweep import ray_cluster
from workbench.sweep.ray_cluster import Cluster

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'mobile-workbench[ray]'")
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each, on this machine."""
    from ray.cluster_utils import Cluster as Nodes

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, logging_level="ERROR", log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def collected(executor: Cluster, count: int) -> dict[int, object]:
    found: dict[int, object] = {}
    while len(found) < count:
        found |= dict(executor.wait())
    return found


def test_trials_run_on_both_nodes_and_a_lost_one_is_tried_again(cluster, monkeypatch, tmp_path):
    def made(spec, settings, name, threads, folder):
        import os as own
        import time as clock

        place = Path(spec["folder"]) / f"{settings[0]}-{own.getpid()}"
        place.touch()
        clock.sleep(2)
        return None, b""

    monkeypatch.setattr(ray_cluster, "_make_trial", made)
    told = []
    executor = Cluster("ray", None, told.append)
    assert (executor.jobs, executor.apart, executor.finishes) == (2, False, False)
    with closing(executor):
        for number in range(4):
            executor.submit(number, "make", {"folder": str(tmp_path)}, (str(number),))
        killer = threading.Thread(target=kill_one, args=(tmp_path,))
        killer.start()
        found = collected(executor, 4)
        killer.join()
    assert found == dict.fromkeys(range(4))
    runs = [path.name.split("-") for path in tmp_path.iterdir()]
    assert len(runs) == 5, "each once, and the lost one twice"
    assert len({pid for _, pid in runs}) >= 2
    assert "its worker was lost, and it is tried again" in told[0]


def kill_one(folder: Path) -> None:
    while not (seen := list(folder.iterdir())):
        time.sleep(0.05)
    pid = int(seen[0].name.split("-")[1])
    assert psutil.pid_exists(pid)
    os.kill(pid, signal.SIGKILL)


def test_an_error_there_is_the_trials_own(cluster, monkeypatch):
    def made(spec, settings, name, threads, folder):
        from workbench.errors import StepError, pack

        return pack(StepError("it broke", "there", "")), b""

    monkeypatch.setattr(ray_cluster, "_make_trial", made)
    with closing(Cluster("ray", 1, print)) as executor:
        executor.submit(7, "make", {}, ())
        ((number, error),) = executor.wait()
    assert number == 7
    assert isinstance(error, StepError)
    assert (error.what, error.why) == ("it broke", "there")


def test_a_sweep_on_a_cluster_makes_there_and_finishes_here(cluster, tmp_path):
    here = project.make(tmp_path / "project")
    words = (
        "sweep", "small", *project.UNTIMED, "--vary", "quantize.samples=4,8",
        "--minimise", "size,drop", "--on", "ray", "--json",
    )  # fmt: skip
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        done = project.wb(here, *words)
    finally:
        del os.environ["RAY_ADDRESS"]
    assert done.returncode == 0, done.stderr
    found = project.report(done)
    assert [one["state"] != "failed" for one in found["points"]] == [True, True]
    for one in found["points"]:
        report = json.loads((here / one["folder"] / "report.json").read_text())
        assert report["seconds"] < 10, "it was made again here"


def test_what_a_machine_with_another_cache_made_is_brought_here(cluster, tmp_path, monkeypatch):
    """As on another machine: the task's cache is elsewhere, and its entries come along."""
    here = project.make(tmp_path / "project")
    monkeypatch.chdir(here)
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "cache"))
    run = RunOptions(
        recipe="small", model="net.py:build", weights=Path("weights.pt"), data="data.toml",
        preset="none",
    )  # fmt: skip
    spec = fakes.spec(run=run).to_json()
    real = ray_cluster._make_trial

    def made(*arguments):
        import os as own

        own.environ["WB_CACHE"] = str(tmp_path / "far")
        return real(*arguments)

    monkeypatch.setattr(ray_cluster, "_make_trial", made)
    with closing(Cluster("ray", None, print)) as executor:
        executor.submit(0, "make", spec, ("quantize.samples=4",))
        assert executor.wait() == [(0, None)]
    near, far = (
        {path.name: json.loads((path / "entry.json").read_text())
         for path in (tmp_path / one / "entries").iterdir()}
        for one in ("cache", "far")
    )  # fmt: skip
    assert len(near) >= 4
    assert all(far[name] == one for name, one in near.items())
    # The original's outputs stay: their scores came.
    assert ["outputs" in far[name] for name in far.keys() - near.keys()] == [True]


def test_a_cluster_that_does_not_answer_is_said(tmp_path):
    here = project.make(tmp_path / "project")
    words = ("sweep", "small", *project.UNTIMED, "--vary", "quantize.samples=4", "--minimise",
             "size", "--on", "ray://127.0.0.1:9")  # fmt: skip
    done = project.wb(here, *words)
    assert done.returncode == 5
    assert "the Ray cluster ray://127.0.0.1:9 does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "runs").exists()


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match="--on ray needs Ray"):
        Cluster("ray", None, print)
