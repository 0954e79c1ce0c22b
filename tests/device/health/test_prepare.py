"""A phone is restored to what it was: after success, failure, Ctrl-C, and a process that died."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from tests.device.health.doubles import Answers
from tests.device.health.phone import FILE, Phone
from workbench.device.health import identity, prepare
from workbench.device.health.prepare import FIXED, STAY_ON, Prepared, prepare_device
from workbench.device.transport.base import Done, Interrupted, TimedOut, Unreachable
from workbench.errors import DeviceError

PIXEL = identity.parse({"uname": "Linux\naarch64\n6.1", "properties": texts.PIXEL_PROPERTIES})
OLD = replace(PIXEL, release="10 (API 29)")
LINUX = replace(PIXEL, system="linux", release="6.1")

FIXED_ON = "cmd power set-fixed-performance-mode-enabled true"
FIXED_OFF = "cmd power set-fixed-performance-mode-enabled false"
PUT_BACK = f"settings put global {STAY_ON} 3"
SET = [
    f"read {FILE}", f"settings get global {STAY_ON}",
    f"write {STAY_ON}=3\n{FIXED}=false {FILE}", FIXED_ON, "svc power stayon true",
    "input keyevent KEYCODE_WAKEUP",
]  # fmt: skip
RESTORED = [PUT_BACK, FIXED_OFF, f"rm -f {FILE}"]


def test_the_commands_their_order_and_what_is_set_meanwhile():
    phone = Phone()
    before = phone.state()
    with prepare_device(phone, PIXEL) as ready:
        assert ready == Prepared()
        assert phone.commands == SET
        assert phone.state() == ("15", True, {FILE: f"{STAY_ON}=3\n{FIXED}=false\n"})
    assert phone.commands == SET + RESTORED
    assert phone.state() == before


@pytest.mark.parametrize("value", ["0", "7", "null"])
def test_the_setting_gets_exactly_the_value_that_it_had(value):
    phone = Phone(stay_on=value)
    with prepare_device(phone, PIXEL):
        assert phone.settings[STAY_ON] == "15"
    assert phone.state() == (value, False, {})
    assert (STAY_ON in phone.settings) == (value != "null")  # `put null` would write a word


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(2)])
def test_it_is_restored_after_whatever_ends_the_body(error):
    phone = Phone()
    with pytest.raises(type(error)) as caught, prepare_device(phone, PIXEL):
        raise error
    assert caught.value is error
    assert not getattr(error, "__notes__", [])
    assert phone.state() == ("3", False, {})


def test_it_is_restored_after_an_interrupt_that_stops_all_commands():
    phone = Phone()
    with pytest.raises(Interrupted), prepare_device(phone, PIXEL):
        phone.interrupt()
        phone.run(["id"])
    assert phone.state() == ("3", False, {})


@pytest.mark.parametrize("at", range(len(SET)))
@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimedOut("slow"), Interrupted("ended")])
def test_it_is_restored_where_preparing_breaks_off(at, error):
    phone = Phone()
    body = []

    def fail(command):
        if command == SET[at] and len(phone.commands) == at + 1:
            phone.interrupted = isinstance(error, Interrupted)
            raise error
        return

    phone.break_at = fail
    with pytest.raises(type(error)), prepare_device(phone, PIXEL):
        body.append("ran")
    assert body == []
    assert phone.state() == ("3", False, {})


def test_one_that_fails_does_not_keep_the_others_from_being_restored():
    phone = Phone()
    phone.break_at = lambda command: Done(1, "", "no such\nx") if command == PUT_BACK else None
    with pytest.raises(DeviceError, match="not restored") as caught, prepare_device(phone, PIXEL):
        pass
    assert not phone.fixed
    assert f"{PUT_BACK} (no such)" in caught.value.why
    assert FIXED_OFF not in caught.value.why
    assert FILE in phone.files  # for the next run


def test_what_is_not_restored_after_an_error_is_a_note_on_it():
    phone = Phone()
    phone.break_at = lambda command: Done(1, "", "") if command in RESTORED[:2] else None
    with pytest.raises(ValueError, match="mine") as caught, prepare_device(phone, PIXEL):
        raise ValueError("mine")
    (note,) = caught.value.__notes__
    assert PUT_BACK in note
    assert FIXED_OFF in note


def test_a_device_that_is_back_is_restored_and_waited_for_once():
    phone = Phone()
    lost = []

    def once(command):
        if command == PUT_BACK and not lost:
            lost.append(command)
            raise Unreachable("unplugged")
        return

    phone.break_at = once
    with prepare_device(phone, PIXEL):
        pass
    assert phone.reconnects == 1
    assert phone.state() == ("3", False, {})


def test_a_device_that_stays_away_is_waited_for_once():
    phone = Phone()
    with pytest.raises(Unreachable, match="in the body") as caught, prepare_device(phone, PIXEL):

        def gone(command):
            raise Unreachable("unplugged")

        phone.break_at = gone
        raise Unreachable("in the body")
    assert phone.reconnects == 1
    assert "unplugged" in caught.value.__notes__[0]


def test_the_next_run_restores_what_a_process_that_died_left():
    phone = Phone()
    dead = prepare_device(phone, PIXEL)
    dead.__enter__()
    gone = phone.state()
    assert gone[:2] == ("15", True)
    phone.commands.clear()
    with prepare_device(phone, PIXEL) as ready:
        assert phone.commands == [SET[0], PUT_BACK, FIXED_OFF, f"rm -f {FILE}", *SET[1:]]
        assert any("earlier run" in note for note in ready.notes)
        phone.fixed = True
    assert phone.state() == ("3", False, {})
    dead.gen.close()  # its own restoring comes too late to matter here


def test_an_original_value_that_cannot_be_put_back_is_not_overwritten():
    phone = Phone(stay_on="15")
    phone.files[FILE] = f"{STAY_ON}=0\n"
    phone.break_at = lambda command: Done(1, "", "no") if "settings put" in command else None
    with pytest.raises(DeviceError, match="not restored"), prepare_device(phone, PIXEL):
        pass
    assert phone.files[FILE] == f"{STAY_ON}=0\n"
    assert not any(command.startswith("write") for command in phone.commands)


def test_a_mode_that_an_earlier_run_could_not_set_keeps_nobody_from_measuring():
    phone = Phone(fixed_mode=False)
    phone.files[FILE] = f"{STAY_ON}=0\n{FIXED}=false\n"
    with prepare_device(phone, PIXEL) as ready:
        assert any(FIXED_OFF in note for note in ready.notes)
    assert phone.state() == ("0", False, {})


@pytest.mark.parametrize(
    "left", ["", "rm -rf /\n", f"{STAY_ON}=0; reboot\n", f"{FIXED}=true\n", "x=1\n", "\0\0"]
)
def test_a_record_that_no_run_wrote_restores_nothing(left):
    phone = Phone()
    phone.files[FILE] = left
    with prepare_device(phone, PIXEL):
        pass
    assert phone.commands == SET + RESTORED


@given(st.text())
def test_any_record_holds_known_settings_alone(text):
    found = prepare.parse_record(f"{text}\n{STAY_ON}=3\r\n")
    assert set(found) <= {STAY_ON, FIXED}
    assert found[STAY_ON] == "3"


def test_a_phone_without_the_mode_is_noted_and_not_asked_to_leave_it():
    phone = Phone(fixed_mode=False)
    with prepare_device(phone, PIXEL) as ready:
        assert ready.notes == ("no fixed performance mode: Failed to set FIXED_PERFORMANCE mode",)
        assert phone.files == {FILE: f"{STAY_ON}=3\n"}
    assert FIXED_OFF not in phone.commands
    assert phone.state() == ("3", False, {})


def test_a_power_service_without_commands_is_noted_though_its_code_is_0():
    phone = Phone()
    phone.break_at = lambda command: (
        Done(0, "", "No shell command implementation.\n") if command == FIXED_ON else None
    )
    with prepare_device(phone, PIXEL) as ready:
        assert ready.notes == ("no fixed performance mode: No shell command implementation.",)


def test_android_10_is_not_asked_for_what_came_later():
    phone = Phone()
    with prepare_device(phone, OLD) as ready:
        assert "since version 11" in ready.notes[0]
    assert FIXED_ON not in phone.commands
    assert phone.state() == ("3", False, {})


def test_a_screen_that_cannot_be_kept_on_is_noted():
    phone = Phone()
    refused = ("settings get", "svc", "input")
    phone.break_at = lambda command: Done(1, "", "no") if command.startswith(refused) else None
    with prepare_device(phone, PIXEL) as ready:
        assert sum("screen" in note for note in ready.notes) == 2
    assert "svc power stayon true" not in phone.commands  # it could not be restored
    assert PUT_BACK not in phone.commands
    assert phone.state() == ("3", False, {})


def test_nothing_is_set_where_the_record_cannot_be_written():
    phone = Phone()
    phone.break_at = lambda command: (
        Done(1, "", "No space left on device") if command.startswith("write") else None
    )
    with pytest.raises(DeviceError, match="No space left"), prepare_device(phone, PIXEL):
        pass
    assert FIXED_ON not in phone.commands
    assert phone.state() == ("3", False, {})


def test_the_record_may_lie_elsewhere():
    phone = Phone()
    with prepare_device(phone, PIXEL, folder="/data/local/tmp/wb/"):
        assert list(phone.files) == [f"/data/local/tmp/wb/{prepare.RECORD}"]


def test_linux_is_asked_nothing_and_set_nothing():
    silent = Answers(command=lambda argv: pytest.fail(f"ran {argv}"))
    with prepare_device(silent, LINUX) as ready:
        assert ready == Prepared()


def test_a_phone_that_cannot_pin_is_left_as_it_is():
    phone = Phone()
    with pytest.raises(DeviceError, match="taskset"), prepare_device(phone, PIXEL, (4, 5)):
        pass
    assert phone.state() == ("3", False, {})
    assert all(command.startswith("read taskset") for command in phone.commands)
