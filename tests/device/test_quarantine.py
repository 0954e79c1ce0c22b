"""Devices that fail again and again are remembered by their address."""

from __future__ import annotations

from workbench.device.profile import Device
from workbench.device.quarantine import FAILURES, FailureRecord, Quarantine

PHONE = Device(name="phone", transport="adb", serial="A1")


def test_failures_in_a_row_end_in_quarantine_and_one_success_ends_it(tmp_path):
    known = Quarantine(tmp_path)
    for count in range(1, FAILURES + 1):
        assert not known.record(PHONE).quarantined
        assert known.failed(PHONE, f"reason {count}").failures == count
    found = known.record(PHONE)
    assert found.quarantined
    assert f"reason {FAILURES}" in str(found)
    known.succeeded(PHONE)
    assert known.record(PHONE) == FailureRecord()


def test_a_profile_of_another_name_is_the_same_device(tmp_path):
    known = Quarantine(tmp_path)
    known.failed(PHONE, "offline")
    assert known.record(Device(name="mine", transport="adb", serial="A1")).failures == 1
    assert known.record(Device(name="phone", transport="adb", serial="B2")).failures == 0


def test_a_damaged_record_is_none(tmp_path):
    known = Quarantine(tmp_path)
    known.failed(PHONE, "offline")
    for path in (tmp_path / "devices").iterdir():
        path.write_text('{"failures": "many"}')
    assert known.record(PHONE) == FailureRecord()
