"""How devices are doing, and when their times cannot be used."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from tests.device.health.doubles import Answers, Here
from workbench.codec import from_plain, to_plain
from workbench.device.health import state
from workbench.device.health.state import Health, health, problem, ready
from workbench.device.profile import Limits

DF = """Filesystem     1024-blocks     Used Available Capacity Mounted on
/dev/block/dm-45 118552576 61234176  55318400      53% /data
"""
FREQUENCIES = "0|1804800|1804800|576000\n10|2841600|2419200|844800\n1|1804800|1804800|1804800"


def test_a_phone_in_one_round_trip():
    transport = Answers(
        {
            "thermalservice": texts.PIXEL_THERMAL,
            "battery": texts.BATTERY,
            "zones": "61000 BIG\n82 soc",
            "load": "2.31 1.98 1.77 3/4011 12345",
            "frequencies": FREQUENCIES,
            "space": DF,
        }
    )
    assert health(transport, "/data/local/tmp/wb") == Health(
        temperature_c=31.8,
        temperature_of="skin",
        throttling=0,
        throttled=False,
        battery_percent=82.0,
        battery_c=29.5,
        charging=True,
        load_1min=2.31,
        frequencies_mhz=(576, 1804, 844),
        limits_mhz=(1804, 1804, 2419),
        limited=True,
        free_bytes=55318400 * 1024,
    )
    assert len(transport.asked) == 1
    assert transport.asked[0][-1] == "/data/local/tmp/wb"


def test_a_raspberry_pi():
    found = state.parse(
        {
            "zones": "71277 cpu-thermal",
            "firmware": "throttled=0x80008",
            "load": "0.10 0.02 0.00 1/170 901",
            "frequencies": "0|1800000|1800000|1500000",
        }
    )
    assert found.temperature_c == 71.3
    assert found.temperature_of == "cpu"
    assert (found.throttled, found.throttling) == (True, None)
    assert (found.limited, found.battery_percent) == (False, None)


@pytest.mark.parametrize(
    ("parts", "temperature"),
    [
        (
            {"thermalservice": texts.NO_HAL_THERMAL, "zones": "46000 cpu-0\n33000 skin"},
            (33.0, "skin"),
        ),
        ({"thermalservice": texts.SAMSUNG_THERMAL, "zones": "50000 cpu-0"}, (24.9, "skin")),
        ({"zones": "46000 cpu-0", "battery": texts.BATTERY}, (46.0, "cpu")),
        ({"battery": texts.BATTERY}, (29.5, "battery")),
        ({"zones": "40000 acpitz"}, (40.0, "board")),
        ({"zones": ""}, (None, "")),
    ],
)  # fmt: skip
def test_the_temperature_that_decides(parts, temperature):
    found = state.parse(parts)
    assert (found.temperature_c, found.temperature_of) == temperature


@pytest.mark.parametrize(
    ("parts", "throttled"),
    [
        ({"thermalservice": "Thermal Status: 1"}, False),
        ({"thermalservice": "Thermal Status: 2"}, True),
        ({"firmware": "throttled=0x0"}, False),
        ({"firmware": "throttled=0x50001"}, False),  # it was, and the voltage alone is low
        ({"firmware": "throttled=0x4"}, True),
        ({}, None),
    ],
)
def test_whether_it_is_slowed_down_now(parts, throttled):
    assert state.parse(parts).throttled is throttled


def test_a_device_that_says_nothing_is_no_error():
    assert state.parse({}) == Health()


@pytest.mark.parametrize(
    ("text", "free"),
    [
        (DF, 55318400 * 1024),
        ("Filesystem 1K-blocks Used Available Use% On\nnas:/a 9 4 5 44% /mnt/a 1 2 3 4% b", 5120),
        ("Filesystem 1K-blocks Used Available Use% On\n/dev/very-long\n  9 4 5 44% /", 5120),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on\nproc 0 0 0 - /proc", 0),
        ("df: /none: No such file or directory", None),
        ("", None),
    ],
)  # fmt: skip
def test_free_space(text, free):
    assert state.space(text) == free


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (Health(), ()),
        (Health(temperature_c=40.0, battery_percent=30.0), ()),
        (Health(throttling=1), ()),
        (Health(temperature_c=40.1, temperature_of="skin"), ("skin", "40.1 °C", "40 °C")),
        (Health(throttling=3, throttled=True), ("thermal status 3, severe",)),
        (Health(throttled=True, firmware=0x50005), ("voltage", "0x50005")),
        (Health(throttled=True, firmware=0x80008), ("heat", "0x80008")),
        (Health(battery_percent=29.0), ("29 %", "30 %", "does not charge")),
        (Health(battery_percent=29.0, charging=False), ("29 %",)),
        (Health(battery_percent=29.0, charging=True), ()),
    ],
)
def test_readiness_says_why_not(now, words):
    why = ready(now, 40, 30)
    assert bool(why) == bool(words)
    assert all(word in why for word in words), why


def test_without_limits_heat_and_battery_are_not_judged():
    assert ready(Health(temperature_c=90.0, battery_percent=1.0)) == ""
    assert ready(Health(throttling=2)) != ""


GOOD = Health(
    temperature_c=35.0, temperature_of="skin", throttling=0, throttled=False, firmware=0,
    limits_mhz=(1800, 2400), limited=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {}, ()),
        ({}, {"temperature_c": 39.9}, ()),
        ({"firmware": 0x50000}, {"firmware": 0x50000}, ()),  # long before
        ({"limits_mhz": (1000, 2000)}, {"limits_mhz": (1800, 2400)}, ()),
        ({"throttling": 1}, {"throttling": 1}, ()),
        ({"throttling": 1}, {"throttling": 0}, ()),
        ({}, {"throttling": None, "limits_mhz": (), "temperature_c": None}, ()),
        ({}, {"temperature_c": 90.0, "temperature_of": "cpu"}, ()),
        ({}, {"temperature_c": 40.5}, ("skin", "40.5 °C", "40 °C")),
        ({}, {"throttling": 1}, ("rose from 0 to 1, light",)),
        ({}, {"throttling": 2}, ("status 2, moderate", "ended")),
        ({"throttling": 4}, {"throttling": 0}, ("critical", "began")),
        ({}, {"throttled": True, "firmware": 0x40004}, ("get_throttled: 0x40004", "heat")),
        ({}, {"firmware": 0x80000}, ("for a while", "0x80000")),
        ({}, {"limits_mhz": (1800, 1900)}, ("core 1 from 2400 to 1900 MHz",)),
        ({}, {"limits_mhz": (1800,)}, ("1 of its cores went offline",)),
    ],
)
def test_a_measurement_is_valid_or_says_why_not(before, after, words):
    why = problem(replace(GOOD, **before), replace(GOOD, **after), Limits(temperature=40))
    assert bool(why) == bool(words), why
    assert all(word in why for word in words), why


def test_without_a_limit_of_temperature_only_its_effects_count():
    assert problem(GOOD, Health(temperature_c=80.0, temperature_of="skin"), Limits()) == ""


def test_health_goes_through_json():
    assert from_plain(json.loads(json.dumps(to_plain(GOOD))), Health) == GOOD


NAMES = ["thermalservice", "battery", "zones", "supplies", "firmware", "load", "frequencies",
         "space"]  # fmt: skip
PART = st.one_of(
    st.text(), st.sampled_from([texts.PIXEL_THERMAL, texts.BATTERY, FREQUENCIES, DF, "nan", "7|0"])
)


@given(st.dictionaries(st.sampled_from(NAMES), PART))
def test_any_text_is_a_health(parts):
    found = state.parse(parts)
    assert from_plain(json.loads(json.dumps(to_plain(found))), Health) == found
    assert isinstance(problem(found, found, Limits(temperature=40)), str)
    assert isinstance(ready(found, 40, 30), str)


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="no /proc/loadavg")
def test_this_machine(tmp_path):
    here = Here()
    folder = tmp_path / "it's a $HOME"
    folder.mkdir()
    found = health(here, str(folder))
    assert here.asked == 1
    assert found.free_bytes == pytest.approx(shutil.disk_usage(folder).free, rel=0.1, abs=10**9)
    assert found.load_1min == pytest.approx(os.getloadavg()[0], abs=1)
    assert found.throttling is None
