"""Many devices at once: side by side, each its own failures, locks, quarantine and resumption."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from tests.device import fakes
from tests.device.fakes import Far
from workbench.cache import Cache
from workbench.device.quarantine import FAILURES, Quarantine
from workbench.device.transport.base import Unreachable
from workbench.display import Quiet
from workbench.measure import fleet, remote
from workbench.measure.fleet import run_on_devices

pytestmark = pytest.mark.process


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def models(tmp_path):
    return [fakes.linear(tmp_path / "one.onnx")]


@pytest.fixture
def fars(monkeypatch):
    """The transports of the devices by name, made when they are asked for."""
    made = {}
    monkeypatch.setattr(fleet, "transport_of", lambda one: made.setdefault(one.name, Far(one.name)))
    monkeypatch.setattr(remote, "BACKOFF", 0.0)
    return made


def private(folder):
    """What a run would leave of its own on a device."""
    return [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "objects"]


def offline(far: Far) -> None:
    def gone(_argv, timeout=60):
        raise Unreachable(f"{far.name} is offline", "adb says so", "plug it in")

    far.run = gone


def test_one_that_is_lost_leaves_the_others_untouched(tmp_path, models, cache, fars):
    fars["b"] = Far("b")
    offline(fars["b"])
    devices = [fakes.device(tmp_path, name) for name in "abc"]
    found = run_on_devices(devices, fakes.wanted(models), cache, Quiet(), resume=False)
    assert list(found) == ["a", "b", "c"]
    assert found["b"].error is not None
    assert found["b"].error.what == "b is offline"
    for name in "ac":
        assert found[name].error is None
        assert len(found[name].latencies()["one.onnx"].processes) == 3


def test_devices_are_measured_side_by_side(tmp_path, models, cache, fars):
    together = threading.Barrier(3, timeout=30)

    def first(number):
        if number == 0:
            together.wait()

    for name in "abc":
        fars[name] = Far(name)
        fars[name].before = first
    devices = [fakes.device(tmp_path, name) for name in "abc"]
    found = run_on_devices(devices, fakes.wanted(models), cache, Quiet(), resume=False)
    assert not [one.error for one in found.values() if one.error]  # else the barrier broke


def test_one_device_under_two_names_is_measured_in_turns(tmp_path, models, cache, fars):
    running, most = [0], [0]

    def counted(_number):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        running[0] -= 1

    for name in "ab":
        fars[name] = Far(name)
        fars[name].before = counted
    devices = [fakes.device(tmp_path, name, serial="same") for name in "ab"]
    found = run_on_devices(devices, fakes.wanted(models), cache, Quiet(), resume=False)
    assert most == [1]
    assert not [one.error for one in found.values() if one.error]


def test_this_machine_comes_after_the_others(tmp_path, models, cache, fars):
    order = []
    for name in ("far", "here"):
        fars[name] = Far(name)
        fars[name].before = partial(lambda name, _number: order.append(name), name)
    devices = [
        fakes.device(tmp_path, "here", transport="local", serial="", runner="native"),
        fakes.device(tmp_path, "far"),
    ]
    run_on_devices(devices, fakes.wanted(models), cache, Quiet(), resume=False)
    assert order == sorted(order)
    assert order


def test_resume_keeps_finished_rounds(tmp_path, models, cache, fars):
    fars["a"] = Far("a")

    def lost(number):
        if number >= 2:
            raise Unreachable("a is offline")

    fars["a"].before = lost
    one = [fakes.device(tmp_path, "a")]
    wanted = fakes.wanted(models)
    first = run_on_devices(one, wanted, cache, Quiet(), resume=False)["a"]
    assert first.error is not None
    assert len(first.rounds) == 2
    fars["a"].before = lambda _number: None
    fars["a"].processes.clear()
    again = run_on_devices(one, wanted, cache, Quiet(), resume=True)["a"]
    assert again.error is None
    assert again.rounds[:2] == first.rounds
    assert len(again.rounds) == 3
    assert len(fars["a"].processes) == 1 + 1  # the last round, and the outputs
    fars["a"].processes.clear()
    run_on_devices(one, wanted, cache, Quiet(), resume=False)
    assert len(fars["a"].processes) == 3 + 1


def test_another_file_or_setting_resumes_nothing(tmp_path, models, cache, fars):
    wanted = fakes.wanted(models)
    run_on_devices([fakes.device(tmp_path, "a")], wanted, cache, Quiet(), resume=False)
    fars["a"].processes.clear()
    run_on_devices([fakes.device(tmp_path, "a", threads=2)], wanted, cache, Quiet(), resume=True)
    assert len(fars["a"].processes) == 3 + 1


def test_failure_after_failure_ends_in_quarantine_until_a_probe_succeeds(
    tmp_path, models, cache, fars
):
    fars["a"] = Far("a")
    good = fars["a"].run
    offline(fars["a"])
    one = fakes.device(tmp_path, "a")
    wanted = fakes.wanted(models)
    for _ in range(FAILURES):
        run_on_devices([one], wanted, cache, Quiet(), resume=False)
    assert Quarantine(cache.folder).record(one).quarantined
    fars["a"].reconnects = 0
    found = run_on_devices([one], wanted, cache, Quiet(), resume=False)["a"]
    assert "in quarantine" in found.error.what
    assert "failed runs since" in found.error.why
    assert fars["a"].reconnects == 0  # one probe, and no second try
    fars["a"].run = good
    assert run_on_devices([one], wanted, cache, Quiet(), resume=False)["a"].error is None
    assert not Quarantine(cache.folder).record(one).quarantined


def test_ctrl_c_ends_every_device_and_clears_up(tmp_path, models, cache, fars, monkeypatch):
    for name in "ab":
        fars[name] = Far(name)
    started = threading.Event()

    def hang(_number):
        started.set()
        fars["a"].run(["sleep", "30"])

    fars["a"].before = hang
    real = fleet.wait

    def interrupted(*given):
        if started.is_set():
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(fleet, "wait", interrupted)
    began = time.monotonic()
    devices = [fakes.device(tmp_path, name) for name in "ab"]
    with pytest.raises(KeyboardInterrupt):
        run_on_devices(devices, fakes.wanted(models), cache, Quiet(), resume=False)
    assert time.monotonic() - began < 15
    assert fars["a"].resumed
    assert not private(tmp_path / "a")
    assert not Quarantine(cache.folder).record(devices[0]).failures  # it was not its fault


def test_an_error_that_is_no_devices_is_not_hidden(tmp_path, models, cache, fars):
    fars["a"] = Far("a")

    def broken(_number):
        raise RuntimeError("a fault of ours")

    fars["a"].before = broken
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run_on_devices(
            [fakes.device(tmp_path, "a")], fakes.wanted(models), cache, Quiet(), resume=False
        )


def test_no_device_is_no_work(cache):
    assert run_on_devices([], None, cache, Quiet(), resume=False) == {}
