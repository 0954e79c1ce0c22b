"""One script, whose answer comes back in parts."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health.doubles import Answers, Here, rendered
from workbench.device.health import sections
from workbench.device.transport.base import Done
from workbench.errors import DeviceError


@pytest.mark.process
def test_parts_that_fail_hang_on_input_or_end_without_a_line_are_told_apart():
    text = sections.script(
        ("first", "printf 'no end of line'"),
        ("fails", "cat /no/such/file"),
        ("reads", "cat"),
        ("missing", "no-such-program-at-all"),
        ("nulls", "printf 'a\\0b\\0'"),
        ("argument", 'printf %s "$1"'),
    )
    here = Here()
    found = sections.ask(here, text, "it's $HOME")
    assert found == {
        "first": "no end of line", "fails": "", "reads": "", "missing": "", "nulls": "a\nb",
        "argument": "it's $HOME", "end": "",
    }  # fmt: skip
    assert here.asked == 1


@pytest.mark.process
def test_nothing_waits_for_the_terminal_that_wb_runs_in():
    reading, writing = os.pipe()  # it stays open, as a terminal does
    try:
        done = subprocess.run(
            ["sh", "-c", sections.script(("reads", "cat"))],
            stdin=reading, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert sections.split(done.stdout) == {"reads": "", "end": ""}


def test_windows_ends_of_line_say_the_same():
    parts = {"a": "1\n2", "b": ""}
    assert sections.split(rendered(parts, "\r\n")) == sections.split(rendered(parts))


def test_a_device_without_a_shell_is_an_error_with_its_own_words():
    silent = Answers(command=lambda argv: Done(127, "", "sh: inaccessible or not found\n"))
    with pytest.raises(DeviceError, match="inaccessible or not found") as caught:
        sections.ask(silent, "exit 0")
    assert caught.value.fix


def test_an_answer_that_breaks_off_is_an_error():
    whole = rendered({"a": "1"})
    cut = Answers(command=lambda argv: Done(0, whole[: whole.index("end")], ""))
    with pytest.raises(DeviceError):
        sections.ask(cut, "exit 0")


@given(st.text())
def test_any_text_is_numbers_or_none(text):
    sections.split(text)
    for read in (sections.number, sections.whole, sections.megahertz):
        value = read(text)
        assert value is None or isinstance(value, (int, float))


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "", "1 2", "9" * 5000 + "x"])
def test_what_is_no_finite_number_is_none(text):
    assert sections.number(text) is None
    assert sections.whole(text) is None


def test_megahertz_are_those_of_processors():
    assert sections.megahertz("2841600") == 2841
    assert sections.megahertz("0") is None
    assert sections.megahertz("-2") is None
    assert sections.megahertz(str(10**12)) is None
