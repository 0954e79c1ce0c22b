"""One device measured through its runner: what it gives, and every way it may fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.device import fakes
from tests.device.fakes import Far, Recorder
from tests.measure.test_fleet import private
from workbench.device.profile import Library, Limits
from workbench.device.transport.base import Done, Interrupted, TimedOut, Unreachable
from workbench.errors import CrashError, DeviceError
from workbench.measure import device_session
from workbench.measure.remote import measure

pytestmark = pytest.mark.process

TWO_ROUNDS = replace(fakes.BRIEF, processes=2)
LOST = Unreachable("far is offline", "the cable", "plug it in")


@pytest.fixture
def models(tmp_path):
    return [fakes.linear(tmp_path / "one.onnx"), fakes.linear(tmp_path / "two.onnx", 3.0)]


@pytest.fixture
def far():
    return Far()


def run(tmp_path, models, far, recorder=None, found=None, wanted=None, **changes):
    found = found or fakes.found(fakes.device(tmp_path, **changes))
    wanted = wanted or fakes.wanted(models)
    measure(far, found, wanted, (recorder or Recorder()).watch())
    return found


def test_every_round_runs_every_artifact_once_in_turns(tmp_path, models, far):
    recorder = Recorder()
    found = run(tmp_path, models, far, recorder)
    assert [list(one) for one in found.rounds] == [["one.onnx", "two.onnx"]] * 3
    assert recorder.saved == [1, 2, 3]
    timed = found.latencies()
    assert [len(one.processes) for one in timed.values()] == [3, 3]
    assert all(
        len(p.samples_ns) >= 3 and p.first_ns and p.load_ns for p in timed["one.onnx"].processes
    )
    assert found.identity is not None
    assert found.device.architecture == found.identity.architecture
    assert found.before is not None
    assert found.after is not None


def test_outputs_come_back_for_every_sample(tmp_path, models, far, monkeypatch):
    monkeypatch.setattr(device_session, "BYTES", 2 * 8 * 4)  # two samples a process
    wanted = fakes.wanted(models, samples=5)
    found = run(tmp_path, models, far, wanted=wanted)
    x = wanted.samples["one.onnx"]["x"]
    weights = (np.arange(32, dtype=np.float32).reshape(8, 4) % 5) - 2
    assert np.allclose(found.outputs["one.onnx"][0], x @ weights, atol=1e-5)
    assert np.allclose(found.outputs["two.onnx"][0], 3 * (x @ weights), atol=1e-4)
    assert len(far.processes) == 6 + 2 * 3


def test_what_was_pushed_stays_and_what_was_private_goes(tmp_path, models, far):
    run(tmp_path, models, far)
    folder = tmp_path / "far"
    kept = [path.suffix for path in (folder / "objects").iterdir()]
    assert kept.count(".onnx") == 2
    assert not private(folder)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Done(139, "", "boom"), CrashError, ["died", "SIGSEGV", "boom", "another version"]),
        (Done(132, "", ""), CrashError, ["SIGILL", "instructions that this CPU lacks"]),
        (Done(137, "", ""), CrashError, ["SIGKILL", "memory runs out"]),
        (Done(142, "", ""), TimedOut, ["took longer than", "limits.timeout"]),
        (Done(127, "", "sh: not found"), DeviceError, ["does not start", "build-runner"]),
        (Done(126, "", "Exec format error"), DeviceError, ["Exec format error"]),
        (Done(9, "", "odd"), DeviceError, ["exit code 9", "odd"]),
        (Done(0, "garbage\x1b[0m", ""), DeviceError, ["did not answer as a runner does"]),
        (Done(0, '{"wb": 1, "version": "1", "load', ""), DeviceError, ["did not answer"]),
        (Done(0, "", ""), DeviceError, ["it printed nothing"]),
        (Done(3, '{"wb": 1, "error": "no such model"}', ""), DeviceError, ["no such model"]),
        (
            Done(0, '{"wb": 1, "version": "1", "load_ns": 1, "first_ns": 1, "samples_ns": [0], '
                 '"peak_bytes": 1}', ""),
            DeviceError, ["cannot be true"],
        ),
        (
            Done(0, '{"wb": 1, "version": "1", "load_ns": 1, "first_ns": 1, "samples_ns": [-5], '
                 '"peak_bytes": 1}', ""),
            DeviceError, ["its clock went back"],
        ),
    ],
)  # fmt: skip
def test_a_runner_that_fails_on_one_artifact_leaves_the_others(
    tmp_path, models, far, answer, error, words
):
    far.before = lambda number: answer if number == 2 else None  # "one.onnx", in the second round
    found = run(tmp_path, models, far, wanted=fakes.wanted(models, preset=TWO_ROUNDS))
    caught = found.failed["one.onnx"]
    assert isinstance(caught, error)
    for word in words:
        assert word in str(caught)
    assert list(found.latencies()) == ["two.onnx"]
    assert list(found.outputs) == ["two.onnx"]


def test_outputs_that_are_cut_off_are_no_outputs(tmp_path, models, far):
    def cut(number):
        if number == 6:  # the outputs of "one.onnx"
            done = far_run(far, far.processes[-1])
            for path in (tmp_path / "far").rglob("*.outputs"):
                path.write_bytes(path.read_bytes()[:-3])
            return done
        return None

    far.before = cut
    found = run(tmp_path, models, far)
    assert "not whole" in found.failed["one.onnx"].what
    assert "two.onnx" in found.outputs


def far_run(far: Far, argv) -> Done:
    from workbench.device.transport.local import LocalTransport

    return LocalTransport.run(far, argv)


def test_a_device_that_comes_back_loses_no_round(tmp_path, models, far):
    def lost(number):
        if number == 3:
            raise LOST

    far.before = lost
    recorder = Recorder()
    found = run(tmp_path, models, far, recorder)
    assert len(found.rounds) == 3
    assert far.reconnects == 1
    # The broken round was run anew: a process was lost, and the one before it repeated.
    assert len(far.processes) == 3 * 2 + 2 + 2
    assert any("trying again" in one for one in recorder.messages)
    assert any("came back" in one for one in found.notes)


def test_a_device_that_stays_away_keeps_what_it_gave(tmp_path, models, far):
    def lost(number):
        if number >= 2:
            raise LOST

    far.before = lost
    recorder = Recorder()
    found = fakes.found(fakes.device(tmp_path))
    with pytest.raises(Unreachable, match="far is offline"):
        run(tmp_path, models, far, recorder, found)
    assert len(found.rounds) == 1
    assert recorder.slept[-2:] == [2.0, 4.0]  # growing pauses, as often as limits.retries


def test_a_run_that_goes_on_measures_what_is_missing(tmp_path, models, far):
    first = run(tmp_path, models, far)
    again = fakes.found(fakes.device(tmp_path))
    again.rounds = first.rounds[:2]
    far.processes.clear()
    run(tmp_path, models, far, found=again)
    assert len(again.rounds) == 3
    assert again.rounds[:2] == first.rounds[:2]
    assert len(far.processes) == 2 + 2  # a round, and the outputs


def test_a_throttled_round_is_repeated_and_said(tmp_path, models, far, monkeypatch):
    said = iter(["its thermal status rose from 0 to 2", "", "", ""])
    monkeypatch.setattr(device_session, "problem", lambda *_: next(said))
    recorder = Recorder()
    found = run(tmp_path, models, far, recorder)
    assert len(found.rounds) == 3
    assert len(far.processes) == 4 * 2 + 2
    assert found.notes == ["a round was repeated: its thermal status rose from 0 to 2"]
    assert device_session.COOLING in recorder.slept


def test_a_device_that_always_throttles_is_marked(tmp_path, models, far, monkeypatch):
    monkeypatch.setattr(device_session, "problem", lambda *_: "it is hot")
    found = run(tmp_path, models, far, limits=Limits(retries=1))
    assert len(found.rounds) == 3
    assert any(one.startswith("THROTTLED: it is hot") for one in found.notes)


def test_a_hot_device_is_waited_for_and_then_given_up(tmp_path, models, far, monkeypatch):
    monkeypatch.setattr(device_session, "ready", lambda *_: "skin is at 47.0 °C")
    with pytest.raises(DeviceError, match="not ready") as caught:
        run(tmp_path, models, far, limits=Limits(wait=12))
    assert "47.0" in caught.value.why
    assert not far.processes


def test_cool_down_lies_between_processes(tmp_path, models, far):
    recorder = Recorder()
    run(tmp_path, models, far, recorder, limits=Limits(cool_down=1.5))
    assert recorder.slept.count(1.5) == 6


def test_another_device_under_the_address_is_no_continuation(tmp_path, models, far, monkeypatch):
    found = fakes.found(fakes.device(tmp_path))
    found.identity = replace(device_session.identify(far), model="Another Phone")
    with pytest.raises(DeviceError, match="another device than before"):
        run(tmp_path, models, far, found=found)


def test_the_end_of_the_run_ends_it_and_clears_up(tmp_path, models, far):
    recorder = Recorder()

    def stop(number):
        if number == 1:
            far.interrupt()
            recorder.stop.set()

    far.before = stop
    with pytest.raises(Interrupted):
        run(tmp_path, models, far, recorder)
    assert far.resumed
    assert not private(tmp_path / "far")


def test_operators_are_asked_of_the_runtime(tmp_path, models, far):
    from workbench.measure.operator_times import operator_times

    wanted = fakes.wanted(models[:1], operators=True)
    found = run(tmp_path, models, far, wanted=wanted)
    assert "MatMul" in operator_times(found.operators["one.onnx"])


def test_a_format_that_no_runner_runs_is_its_rows_error(tmp_path, models, far):
    from workbench.artifact import Format

    wanted = fakes.wanted(models)
    targets = dict(wanted.targets)
    targets["one.onnx"] = replace(targets["one.onnx"], format=Format.PT2)
    found = run(tmp_path, models, far, wanted=replace(wanted, targets=targets))
    assert "no runner on a device runs pt2 files" in found.failed["one.onnx"].what
    assert "two.onnx" in found.latencies()


def test_a_library_with_another_digest_is_not_used(tmp_path, models, far):
    from workbench.errors import ProfileError

    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\n")
    libraries = {"python": Library(path=str(fake), pushed=True, sha256="0" * 64)}
    with pytest.raises(ProfileError, match="is not the file that the profile names"):
        run(tmp_path, models, far, libraries=libraries)
