"""Trials in processes: side by side, tried again where one dies, ended when the sweep is."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from typing import ClassVar

import pytest

from workbench.errors import CrashError
from workbench.sweep import local_executor
from workbench.sweep.local_executor import Local, trials_side_by_side


class Stub:
    """A worker whose calls do what the test says."""

    made: ClassVar[list[Stub]] = []
    calls: ClassVar[list[str]] = []
    answers: ClassVar[list[object]] = []

    def __init__(self, settings):
        self.settings, self.closed = settings, False
        Stub.made.append(self)

    def call(self, job, *arguments):
        Stub.calls.append(job)
        found = Stub.answers.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self):
        self.closed = True


@pytest.fixture
def stub(monkeypatch):
    Stub.made, Stub.calls, Stub.answers = [], [], []
    monkeypatch.setattr(local_executor, "Worker", Stub)
    return Stub


def test_a_trial_whose_process_dies_is_tried_once_more(stub):
    told = []
    stub.answers = [CrashError("a worker process died", "signal SIGKILL"), "made"]
    with closing(Local(1, told.append)) as executor:
        executor.submit(3, "make", 1)
        assert executor.wait() == [(3, "made")]
    assert stub.calls == ["trial_make", "trial_make"]
    assert "trial 3: its process died" in told[0]
    assert [one.closed for one in stub.made] == [True, True]


def test_one_that_dies_twice_is_an_error(stub):
    stub.answers = [CrashError("died")] * 2
    with closing(Local(1, lambda _: None)) as executor:
        executor.submit(0, "make")
        ((number, found),) = executor.wait()
    assert (number, type(found)) == (0, CrashError)


def test_a_process_stays_for_the_next_trial(stub):
    stub.answers = ["a", "b"]
    with closing(Local(1, lambda _: None)) as executor:
        for number in range(2):
            executor.submit(number, "make")
            executor.wait()
    assert len(stub.made) == 1


def test_processes_share_the_cores(stub, monkeypatch):
    monkeypatch.setattr(local_executor, "cores", lambda: 8)
    stub.answers = ["a"]
    with closing(Local(2, lambda _: None)) as executor:
        executor.submit(0, "make")
        executor.wait()
    assert stub.made[0].settings["OMP_NUM_THREADS"] == "4"


def test_room_is_by_cores_and_free_memory(monkeypatch):
    monkeypatch.setattr(local_executor, "cores", lambda: 8)
    monkeypatch.setattr(local_executor, "_free", lambda: 100 << 30)
    assert trials_side_by_side() == 8
    monkeypatch.setattr(local_executor, "_free", lambda: 7 << 30)
    assert trials_side_by_side() == 2
    monkeypatch.setattr(local_executor, "_free", lambda: 0)
    assert trials_side_by_side() == 1
    monkeypatch.undo()
    assert 0 < local_executor._free() < 1 << 50


@pytest.mark.process
def test_ending_ends_what_is_busy():
    executor = Local(1, lambda _: None)
    executor.submit(0, "make", {"bad": "spec"}, ())
    deadline = time.monotonic() + 10
    while not executor._all and time.monotonic() < deadline:
        time.sleep(0.01)
    (worker,) = executor._all
    os.kill(worker._process.pid, signal.SIGSTOP)  # busy for ever
    executor.close()
    assert worker._process.poll() is not None
