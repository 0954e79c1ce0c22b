from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests import nets
from workbench import process, worker_pool
from workbench.artifact import TensorSpec
from workbench.device.profile import Device
from workbench.engine.facts import ModelFacts
from workbench.errors import CrashError, ModelError, StepError
from workbench.model import ModelSource
from workbench.process import Worker
from workbench.worker_pool import Pool

pytestmark = pytest.mark.process

SPECS = (TensorSpec(name="x", dtype="float32", shape=(None, 8)),)
HEAD = "import os, signal, subprocess, sys, time\nfrom torch import nn\n"


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for the tests that it survives."""
    with Worker() as one:
        yield one


def factory(folder: Path, body: str) -> ModelSource:
    """A user's model whose factory does what `body` says."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / "net.py").write_text(f"{HEAD}\ndef build():\n{lines}\n    return nn.Linear(8, 3)\n")
    return ModelSource(spec="net.py:build", folder=folder)


def describe(worker: Worker | Pool, source: ModelSource, **more: Any) -> ModelFacts:
    facts: ModelFacts
    facts, _ = worker.call("describe_model", source, SPECS, Path(), **more)
    return facts


def test_a_job_gives_its_result(worker: Worker, tmp_path: Path) -> None:
    found = describe(worker, factory(tmp_path, "pass"))
    assert found.parameters == 8 * 3 + 3
    assert found.classes == 3


def test_an_error_crosses_with_its_class_and_texts(worker: Worker, tmp_path: Path) -> None:
    source = factory(tmp_path, "raise LookupError('no such width')")
    with pytest.raises(ModelError) as caught:
        describe(worker, source)
    assert (caught.value.what, caught.value.why) == (
        "net.py:build failed", "LookupError: no such width"
    )  # fmt: skip
    assert caught.value.exit_code == 2


def test_a_worker_goes_on_after_a_jobs_error(worker: Worker, tmp_path: Path) -> None:
    before = worker._process.pid
    with pytest.raises(ModelError):
        worker.call("describe_model", ModelSource(spec="absent.py:b", folder=tmp_path), SPECS, "")
    assert describe(worker, factory(tmp_path, "pass")).parameters == 27
    assert worker._process.pid == before


def test_libraries_that_print_or_read_do_not_break_the_protocol(
    worker: Worker, tmp_path: Path
) -> None:
    body = """print('printed', flush=True)
os.write(1, b'written to 1, with no newline')
sys.stderr.write('to stderr\\n')
subprocess.run(['echo', 'from a child'], check=True)
assert sys.stdin.read() == ''
assert subprocess.run(['cat'], capture_output=True).stdout == b''"""
    assert describe(worker, factory(tmp_path, body)).parameters == 27
    said = worker.log.read_text()
    for text in ("printed", "written to 1", "to stderr", "from a child"):
        assert text in said


def test_much_printing_does_not_block(worker: Worker, tmp_path: Path) -> None:
    body = "for _ in range(3000): print('x' * 1000)"
    assert describe(worker, factory(tmp_path, body)).parameters == 27


@pytest.mark.parametrize("way", ["raise SystemExit('enough')", "raise KeyboardInterrupt('enough')"])
def test_a_job_that_wants_to_leave_python_is_an_error_with_its_log(
    way: str, tmp_path: Path
) -> None:
    with Worker() as worker:
        with pytest.raises(StepError, match=r"unexpected (SystemExit|KeyboardInterrupt)") as caught:
            describe(worker, factory(tmp_path, way))
        assert caught.value.why == "enough"
        assert str(worker.log) in caught.value.fix
        # Another folder: a file that was imported once is not read again.
        (tmp_path / "next").mkdir()
        assert describe(worker, factory(tmp_path / "next", "pass")).parameters == 27
    assert "in build" in worker.log.read_text()
    worker.log.unlink()


@pytest.mark.parametrize(
    ("how", "ending"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"), ("os.abort()", "signal SIGABRT"),
     ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, as the kernel does when memory runs out"),
     ("os._exit(7)", "exit code 7")],
)  # fmt: skip
def test_a_crash_names_its_signal_and_quotes_the_last_lines(
    how: str, ending: str, tmp_path: Path
) -> None:
    body = f"for n in range(9): print('line', n, flush=True)\n{how}"
    with Worker() as worker, pytest.raises(CrashError, match="a worker process died") as caught:
        describe(worker, factory(tmp_path, body))
    assert ending in caught.value.why
    assert caught.value.why.endswith("line 6 | line 7 | line 8")
    assert caught.value.exit_code == 5
    assert not worker.log.exists()


def test_a_worker_killed_while_idle_is_a_crash_too(tmp_path: Path) -> None:
    with Worker() as worker:
        describe(worker, factory(tmp_path, "pass"))
        os.kill(worker._process.pid, signal.SIGSEGV)
        worker._process.wait()
        with pytest.raises(CrashError, match="died"):
            describe(worker, factory(tmp_path, "pass"))


def running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(pid)


def started(file: Path) -> int:
    """The process id that a child wrote."""
    deadline = time.monotonic() + 60
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int(file.read_text())


@pytest.mark.parametrize("work", ["time.sleep(60)", "while True: pass"])
def test_a_worker_ends_when_its_parent_is_killed(work: str, tmp_path: Path) -> None:
    factory(tmp_path, f"open('pid.part', 'w').write(str(os.getpid()))\n"
            f"os.rename('pid.part', 'pid')\n{work}")  # fmt: skip
    script = f"""
from pathlib import Path
from tests.test_process import SPECS
from workbench.model import ModelSource
from workbench.process import Worker
worker = Worker()
worker.call("describe_model", ModelSource(spec="net.py:build", folder=Path({str(tmp_path)!r})),
            SPECS, Path())
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment)
    try:
        pid = started(tmp_path / "pid")
        assert running(pid)
        parent.kill()
        parent.wait()
        assert gone(pid)
    finally:
        parent.kill()
        parent.wait()


def test_close_ends_a_busy_worker_and_what_it_started(tmp_path: Path) -> None:
    body = (
        f"child = subprocess.Popen(['sleep', '60'])\n"
        f"open({str(tmp_path / 'part')!r}, 'w').write(str(child.pid))\n"
        f"os.rename({str(tmp_path / 'part')!r}, {str(tmp_path / 'pid')!r})\n"
        "time.sleep(60)"
    )
    with Worker() as worker:
        worker.start("describe_model", factory(tmp_path, body), SPECS, Path())
        child, own = started(tmp_path / "pid"), worker._process.pid
        assert running(child)
    assert gone(own)
    assert gone(child)
    assert not worker.log.exists()


def test_close_all_ends_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its own register: other tests' workers must live on.
    monkeypatch.setattr(process, "_alive", weakref.WeakSet())
    workers = [Worker(), Worker()]
    process.close_all()
    assert not any(running(one._process.pid) for one in workers)


def test_a_pool_reuses_a_worker_that_succeeded_and_drops_one_that_failed(tmp_path: Path) -> None:
    body = f"open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}} ')"
    pool = Pool()
    try:
        for seed in range(2):
            given = ModelSource(**{**vars(factory(tmp_path, body)), "seed": seed})
            describe(pool, given)
        (first,) = {int(one) for one in (tmp_path / "pids").read_text().split()}
        with pytest.raises(ModelError):
            describe(pool, ModelSource(spec="absent.py:b", folder=tmp_path))
        assert gone(first)
        describe(pool, factory(tmp_path, body))
        pids = [int(one) for one in (tmp_path / "pids").read_text().split()]
        assert pids[:2] == [first, first]
        assert pids[2] != first
    finally:
        pool.close()
    assert gone(pids[2])


def test_a_lent_worker_is_kept_after_an_error_and_replaced_after_a_crash(tmp_path: Path) -> None:
    with contextlib.closing(Pool()) as pool:
        with pool.lend() as worker:
            worker.call("warm", ("json",))
            first = worker._worker
            with pytest.raises(StepError):
                worker.call("warm", ("no_such_module_at_all",))
            assert worker._worker is first
            assert first is not None
            first._process.kill()
            with pytest.raises(CrashError):
                worker.call("warm", ("json",))
            worker.call("warm", ("json",))
            second = worker._worker
            assert second is not first
        assert pool._idle == [second]
        pool.trim(0)
        assert pool._idle == []


def test_a_kept_worker_serves_again_until_a_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_kept", {})
    monkeypatch.setattr(worker_pool, "SERVES", 3)
    with worker_pool.kept_worker("x") as first:
        first.call("warm", ("json",))
    with worker_pool.kept_worker("x") as again:
        assert again is first
    with worker_pool.kept_worker("y") as other:
        assert other is not first
    with pytest.raises(StepError), worker_pool.kept_worker("x") as again:
        assert again is first
        again.call("warm", ("no_such_module_at_all",))
    assert gone(first._process.pid)
    for number in range(3):
        with worker_pool.kept_worker("x") as second:
            pass
        assert ("x" in worker_pool._kept) == (number < 2)  # it has served three times
    assert gone(second._process.pid)
    worker_pool.end_kept_workers()
    assert gone(other._process.pid)


def test_a_pool_takes_who_has_done_the_like() -> None:
    with contextlib.closing(Pool()) as pool:
        first, second = pool.take("warm"), pool.take("warm")
        pool.give(first)
        pool.call("warm", ("json",), like="step a")
        pool.give(second)
        pool.call("warm", ("json",), like="step b")
        assert pool.take("step a") is first
        assert pool.take("step b") is second


@pytest.mark.parametrize(("runs", "seconds"), [(25, 0.0), (3, 0.3)])
def test_latency_runs_at_least_as_often_and_as_long_as_asked(
    runs: int, seconds: float, worker: Worker, tmp_path: Path
) -> None:
    made = nets.exported(tmp_path, nets.build(), nets.images())
    inputs = {"image": nets.normal(1, 3, 32, 32)}
    found = worker.call("latency", made, inputs, Device(name="testing"), 2, runs, seconds)
    samples = np.array(found["samples_ns"])
    assert len(samples) >= runs
    if seconds:
        assert seconds * 0.8 < samples.sum() / 1e9 < seconds + 2
    else:
        assert len(samples) == runs
    assert (samples > 1000).all()
    assert np.median(samples) < 1e9
    assert found["load_ns"] > np.median(samples)
    assert found["first_ns"] > 0
    assert 0 <= found["peak_bytes"] < 500e6


def test_progress_reaches_the_caller(tmp_path: Path) -> None:
    said: list[tuple[float, str]] = []
    (tmp_path / "once.py").write_text(
        '"""Simplify alone."""\nfrom workbench.recipe import Recipe\n'
        "from workbench.steps import Simplify\nrecipe = Recipe(Simplify())\n"
    )
    made = nets.exported(
        tmp_path / "in", nets.build(nets.Mlp), nets.dataset_of(x=nets.normal(8, 8))
    )
    (tmp_path / "out").mkdir()
    with Worker() as worker:
        worker.call(
            "step", (str(tmp_path / "once.py"), ()), "simplify", made, SPECS,
            Device(name="testing"), tmp_path / "out", tmp_path / "work", 0,
            progress=lambda fraction, note: said.append((fraction, note)),
        )  # fmt: skip
    assert said == [(0.7, "comparing on real samples")]
