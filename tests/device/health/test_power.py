"""Batteries of phones and laptops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from workbench.device.health import power
from workbench.device.health.power import Battery


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        (texts.BATTERY, Battery(82.0, True, 29.5)),
        (texts.SAMSUNG_BATTERY, Battery(100.0, True, 30.9)),
        # A cable that gives less than the phone takes.
        (texts.BATTERY.replace("status: 2", "status: 3"), Battery(82.0, False, 29.5)),
        # The status is unknown: the plugs count.
        (texts.BATTERY.replace("status: 2", "status: 1"), Battery(82.0, True, 29.5)),
        (
            texts.BATTERY.replace("status: 2", "status: 1").replace("USB powered: true", ""),
            Battery(82.0, False, 29.5),
        ),
        (texts.BATTERY.replace("scale: 100", "scale: 200"), Battery(41.0, True, 29.5)),
        (texts.BATTERY.replace("scale: 100", "scale: 0"), Battery(None, True, 29.5)),
        (texts.BATTERY.replace("295", "0"), Battery(82.0, True, None)),
        # A board that runs Android has none.
        (texts.BATTERY.replace("present: true", "present: false"), Battery()),
        ("Can't find service: battery\n", Battery()),
        ("", Battery()),
    ],
)
def test_what_makers_batteries_say(text, battery):
    assert power.service(text) == battery


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        ("Mains|||\nBattery|System|76|Discharging\n", Battery(76.0, False)),
        ("Battery||100|Full\n", Battery(100.0, True)),
        ("Battery||50|Not charging\n", Battery(50.0, False)),
        ("Battery||50|Unknown\n", Battery(50.0, None)),
        ("Battery||90|Charging\nBattery||20|Discharging\n", Battery(20.0, False)),
        ("Battery|Device|5|Discharging\n", Battery()),  # a mouse
        ("Battery||400|Charging\n||||\n|||", Battery()),
        ("", Battery()),
    ],
)
def test_what_the_kernels_supplies_say(text, battery):
    assert power.supplies(text) == battery


KEYS = ["level", "scale", "status", "temperature", "AC powered", "present"]
LINES = st.builds(
    lambda key, value: f"  {key}: {value}",
    st.sampled_from(KEYS),
    st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=8)),
)


@given(st.lists(st.one_of(LINES, st.text(max_size=20))).map("\n".join))
def test_any_text_gives_a_plausible_battery(text):
    for found in (power.service(text), power.supplies(text.replace(":", "|"))):
        assert found.percent is None or 0 <= found.percent <= 100
        assert found.celsius is None or -100 < found.celsius < 100
