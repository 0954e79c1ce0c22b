"""Processes are pinned by the command that a device has, which is tried first."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.device.health.doubles import Answers, Here
from workbench.device.health.identity import identify
from workbench.device.health.pinning import allowed_cores, pin_command
from workbench.device.health.prepare import prepare_device
from workbench.device.transport.base import Done
from workbench.errors import DeviceError

STATUS = "Name:\tcat\nCpus_allowed:\t{}\nCpus_allowed_list:\t4-7\n"


def device(answers):
    """One that answers `taskset` by its first argument; anything else is not there."""

    def run(argv):
        at = argv.index("taskset")
        return answers.get(argv[at + 1], Done(127, "", "sh: taskset: not found\n"))

    return Answers(command=run)


def test_without_cores_nothing_is_asked():
    transport = device({})
    assert pin_command(transport, (), 8) == ()
    assert transport.asked == []


def test_the_mask_is_hexadecimal_without_a_prefix():
    transport = device({"f0": Done(0, STATUS.format("f0"), "")})
    assert pin_command(transport, (7, 4, 5, 6, 4), 8) == ("taskset", "f0")
    assert transport.asked[0][-4:] == ("taskset", "f0", "cat", "/proc/self/status")


def test_where_the_mask_is_refused_a_list_is_tried():
    answers = {
        "30": Done(1, "", "usage: taskset -c LIST CMD\n"),
        "-c": Done(0, STATUS.format("30"), ""),
    }
    assert pin_command(device(answers), (4, 5), 8) == ("taskset", "-c", "4,5")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Done(127, "", "sh: taskset: not found\n"), "not found"),
        (Done(1, "", "usage\nfailed to set: Invalid argument\n"), "Invalid argument"),
        (Done(1, "", ""), "exit code 1"),
    ],
)
def test_a_device_that_cannot_pin_says_why(answer, words):
    with pytest.raises(DeviceError, match=words) as caught:
        pin_command(device({"30": answer, "-c": answer}), (4, 5), 8)
    assert "4, 5" in caught.value.what


def test_a_device_that_pins_to_less_is_refused():
    transport = device({"f0": Done(0, STATUS.format("30"), "")})
    with pytest.raises(DeviceError, match="cores 4, 5: its cpusets"):
        pin_command(transport, (4, 5, 6, 7), 8)


def test_cores_that_the_device_has_not_are_refused_unasked():
    transport = device({})
    with pytest.raises(DeviceError, match="numbered 0 to 7"):
        pin_command(transport, (7, 8), 8)
    assert transport.asked == []


@pytest.mark.parametrize(
    ("status", "mask"),
    [
        (STATUS.format("f0"), 0xF0),
        (STATUS.format("00000001,00000000"), 1 << 32),
        ("Cpus_allowed:\t,\n", None),
        ("", None),
    ],
)
def test_masks_of_proc(status, mask):
    assert allowed_cores(status) == mask


def test_a_device_whose_proc_tells_nothing_is_taken_at_its_word():
    assert pin_command(device({"1": Done(0, "Name: cat\n", "")}), (0,), 0) == ("taskset", "1")


@pytest.mark.process
@pytest.mark.skipif(shutil.which("taskset") is None, reason="no taskset")
def test_this_machine_runs_on_the_core_that_was_asked_for():
    here = Here()
    core = max(os.sched_getaffinity(0))
    with prepare_device(here, identify(here), (core,)) as ready:
        done = here.run([*ready.prefix, "cat", "/proc/self/status"])
    assert allowed_cores(done.stdout) == 1 << core
