"""The loop over trials: each once, failures kept, what was begun before a kill run again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sweep import fakes
from workbench.errors import CrashError, DiskFullError, InputError, ModelError, StepError
from workbench.sweep import loop
from workbench.sweep.result import load_result

SIZES = {"fast": 3.0, "balanced": 2.0, "best": 1.0}


def answer(settings):
    return fakes.report(SIZES[settings["quantize.preset"]], int(settings["quantize.samples"]) / 8)


def sweep(record, executor, resume=False):
    told = []
    study = loop.prepare_sweep(record, resume=resume)
    with loop.hold_folder(record):
        loop.run_trials(record, study, executor, told.append, print)
    return told


def test_a_grid_runs_each_point_once(tmp_path):
    record, executor = fakes.record(tmp_path / "s"), fakes.Fake(answer)
    told = sweep(record, executor)
    settings = [one[2] for one in executor.begun]
    assert len(settings) == len(set(settings)) == 6
    assert {one[1] for one in executor.begun} == {"finish"}
    assert [one.number for one in told] == list(range(6))
    found = load_result(record)
    best = [(one.trial.settings, one.knee) for one in found.front]
    assert best == [(("quantize.preset=best", "quantize.samples=8"), True)]


def test_a_failing_trial_is_recorded_and_the_rest_go_on(tmp_path):
    def broken(settings):
        if settings["quantize.preset"] == "fast":
            return StepError("it broke", "by itself", "")
        return answer(settings)

    record = fakes.record(tmp_path / "s")
    told = sweep(record, fakes.Fake(broken))
    assert [one.state for one in told].count("failed") == 2
    assert [one.state for one in told].count("done") == 4
    failed = next(one for one in load_result(record).points if one.state == "failed")
    assert failed.trial.error == "it broke\n  why: by itself"


def test_an_error_that_every_trial_has_ends_it(tmp_path):
    executor = fakes.Fake(lambda _: ModelError("there is no file net.pt"), jobs=1)
    with pytest.raises(ModelError, match="no file net"):
        sweep(fakes.record(tmp_path / "s"), executor)
    assert len(executor.begun) == loop.ALIKE


def test_a_full_disk_ends_it_and_its_trial_is_run_again(tmp_path):
    full = [True]

    def filling(settings):
        if settings == {"quantize.preset": "balanced", "quantize.samples": "8"} and full:
            return DiskFullError("the disk is full")
        return answer(settings)

    record = fakes.record(tmp_path / "s")
    with pytest.raises(DiskFullError):
        sweep(record, fakes.Fake(filling, jobs=1))
    full.clear()
    executor = fakes.Fake(filling, jobs=1)
    sweep(record, executor, resume=True)
    assert executor.begun[0][0] == 2
    assert [one.state for one in load_result(record).trials] == ["done"] * 6


@pytest.mark.parametrize("search", ["grid", "random", "tpe", "nsga2"])
def test_after_a_kill_nothing_is_lost_or_counted_twice(tmp_path, search):
    class Killed(BaseException):
        pass

    count = [0]

    def killing(settings):
        count[0] += 1
        if count[0] == 4:
            raise Killed
        return answer(settings)

    record = fakes.record(tmp_path / "s", fakes.spec(search=search, trials=6))
    first = fakes.Fake(killing)
    with pytest.raises(Killed):
        sweep(record, first)
    before = {number: settings for number, _, settings in first.begun}
    again = fakes.Fake(answer)
    sweep(record, again, resume=True)
    trials = load_result(record).trials
    assert [one.number for one in trials] == list(range(6))
    assert {one.state for one in trials} == {"done"}
    for number, _, settings in again.begun:
        assert before.get(number, settings) == settings, "a trial that was begun has other options"
    assert len(first.begun) + len(again.begun) < 6 + 3, "what was finished ran again"


def test_more_trials_extend_a_sweep(tmp_path):
    record = fakes.record(tmp_path / "s", fakes.spec(search="random", trials=2))
    sweep(record, fakes.Fake(answer))
    more = fakes.record(tmp_path / "s", fakes.spec(search="random", trials=5))
    executor = fakes.Fake(answer)
    sweep(more, executor, resume=True)
    assert [one[0] for one in executor.begun] == [2, 3, 4]


def test_limits_steer_and_mark(tmp_path):
    limited = fakes.spec(limits=(fakes.limit("drop", 1.0), fakes.limit("size", 2.5)))
    record = fakes.record(tmp_path / "s", limited)
    sweep(record, fakes.Fake(answer))
    found = {one.trial.settings: one.state for one in load_result(record).points}
    assert found[("quantize.preset=best", "quantize.samples=8")] == "front"
    assert found[("quantize.preset=fast", "quantize.samples=8")] == "over"
    assert found[("quantize.preset=best", "quantize.samples=16")] == "over"


def test_a_search_learns_from_what_it_was_told(tmp_path):
    """TPE comes to the good half of a range more often than chance."""
    from workbench.sweep.space import Dimension

    space = (Dimension(name="quantize.samples", low=1, high=1000, whole=True),)

    def nearer(settings):
        return fakes.report(1.0, abs(int(settings["quantize.samples"]) - 800) / 10)

    record = fakes.record(
        tmp_path / "s", fakes.spec(search="tpe", trials=30, space=space)
    )  # fmt: skip
    sweep(record, fakes.Fake(nearer, jobs=1))
    late = [one.figures["drop"].value for one in load_result(record).trials[15:]]
    # Drawn evenly, they would lie 34 away on average, give or take 6.
    assert sum(late) / len(late) < 22


def test_what_is_made_elsewhere_is_finished_here(tmp_path, monkeypatch):
    finished = []

    class Here(fakes.Fake):
        def __init__(self, jobs, told):
            super().__init__(answer, jobs)
            finished.append(self)

    monkeypatch.setattr(loop, "Local", Here)
    far = fakes.Fake(lambda _: None, finishes=False)
    record = fakes.record(tmp_path / "s")
    sweep(record, far)
    assert {one[1] for one in far.begun} == {"make"}
    assert {one[1] for one in finished[0].begun} == {"finish"}
    assert {one.state for one in load_result(record).trials} == {"done"}


def test_what_is_measured_here_waits_for_what_is_made_here(tmp_path, monkeypatch):
    making = []

    class Here(fakes.Fake):
        def __init__(self, jobs, told):
            super().__init__(answer, jobs)

        def submit(self, number, job, *arguments):
            assert not making[0].open, "measured beside a trial that is being made"
            super().submit(number, job, *arguments)

    monkeypatch.setattr(loop, "Local", Here)
    making.append(fakes.Fake(lambda _: None))
    record = fakes.record(tmp_path / "s", fakes.spec(run=replace(fakes.RUN, preset="quick")))
    sweep(record, making[0])
    assert {one.state for one in load_result(record).trials} == {"done"}


def test_folders_that_are_not_as_asked(tmp_path):
    record = fakes.record(tmp_path / "s")
    with pytest.raises(InputError, match="no folder"):
        loop.prepare_sweep(record, resume=True)
    loop.prepare_sweep(record, resume=False)
    with pytest.raises(InputError, match="--resume goes on with a sweep"):
        loop.prepare_sweep(record, resume=False)
    with pytest.raises(InputError, match="another sweep"):
        other = fakes.record(tmp_path / "s", fakes.spec(row="tflite.to_tflite"))
        loop.prepare_sweep(other, resume=True)
    with (
        loop.hold_folder(record),
        pytest.raises(InputError, match="by another process"),
        loop.hold_folder(record),
    ):
        pass


def test_a_lost_worker_is_a_failed_trial(tmp_path):
    lost = fakes.Fake(
        lambda one: CrashError("a worker process died", "signal SIGKILL")
        if one["quantize.preset"] == "fast" else answer(one)
    )  # fmt: skip
    told = sweep(fakes.record(tmp_path / "s"), lost)
    assert [one.state for one in told].count("failed") == 2
