"""Temperatures and throttling, of the thermal services and zones of several makers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from workbench.device.health import thermal
from workbench.device.health.thermal import BATTERY, CPU, IGNORED, OTHER, SKIN


@pytest.mark.parametrize(
    ("text", "status", "cpu", "skin", "battery"),
    [
        (texts.PIXEL_THERMAL, 0, 46.0, 31.8, 28.1),
        (texts.SAMSUNG_THERMAL, 0, 25.6, 24.9, 23.8),
        (texts.SAMSUNG_10_THERMAL, 0, 44.0, 25.3, 34.4),
        (texts.XIAOMI_THERMAL, 3, 57.9, 34.4, None),
        (texts.QUALCOMM_THERMAL, 1, 44.1, 30.1, 28.0),
        (texts.NO_HAL_THERMAL, 0, None, None, None),
        (texts.NO_SERVICE, None, None, None, None),
        ("", None, None, None, None),
    ],
)
def test_makers_thermal_services_say_what_is_so_now(text, status, cpu, skin, battery):
    found = thermal.service(text)
    assert found.status == status
    assert thermal.hottest(found.readings, CPU) == cpu
    assert thermal.hottest(found.readings, SKIN) == skin
    assert thermal.hottest(found.readings, BATTERY) == battery


def test_lines_that_lost_their_indentation_are_read():
    flat = "\n".join(line.strip() for line in texts.PIXEL_THERMAL.splitlines())
    assert thermal.service(flat) == thermal.service(texts.PIXEL_THERMAL)


def test_a_status_that_a_command_set_is_not_the_devices():
    text = texts.XIAOMI_THERMAL.replace("IsStatusOverride: false", "IsStatusOverride: true")
    assert thermal.service(text).status is None


@pytest.mark.parametrize(
    "value", ["NaN", "0.0", "-99.9", "-274.0", "8900.0", "127.0", "x", "1e999"]
)
def test_values_that_no_sensor_has_are_ignored(value):
    text = f"Current temperatures from HAL:\n Temperature{{mValue={value}, mType=0, mName=CPU, "
    assert thermal.service(text + "mStatus=0}").readings == ()


# A Qualcomm phone's zones in the layout that the script prints, and a Raspberry Pi's; names and
# units as github.com reports of thermal_zone*/type show them.
ZONES = """37000 battery
33999 pm8998_tz
46100 cpu-0-0-usr
48300 cpu-1-3-usr
41500 gpu-usr
82 soc
4000 vbat
-274000 cpu-broken
0 cpu-off
36 msm_therm
32401 skin-msm-therm
"""


def test_zones_of_a_phone_are_told_apart():
    readings = thermal.zones(ZONES)
    assert thermal.hottest(readings, CPU) == 48.3
    assert thermal.hottest(readings, SKIN) == 32.4
    assert thermal.hottest(readings, BATTERY) == 37.0
    assert thermal.hottest(readings, OTHER) == 41.5


@pytest.mark.parametrize(
    ("line", "celsius"),
    [("45277 cpu-thermal", 45.3), ("46 cpu_thermal", 46.0), ("462 mtktscpu", 46.2),
     ("-5000 cpu", -5.0)],
)  # fmt: skip
def test_units_are_told_by_size(line, celsius):
    assert thermal.hottest(thermal.zones(line), CPU) == celsius


@pytest.mark.parametrize(
    "line",
    ["0 cpu", "-274000 cpu", "127000 cpu", "-40000 cpu", "201000 cpu", " cpu", "x cpu", "45000",
     "9" * 30 + " cpu"],
)  # fmt: skip
def test_zones_that_say_nothing_are_ignored(line):
    assert thermal.zones(line) == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cpu-thermal", CPU), ("cpu_thermal", CPU), ("CPU-therm", CPU), ("cpuss-0-usr", CPU),
        ("tsens_tz_sensor5", CPU), ("mtktscpu", CPU), ("BIG", CPU), ("LITTLE", CPU), ("MID", CPU),
        ("soc-thermal", CPU), ("bigcore0-thermal", CPU), ("x86_pkg_temp", CPU),
        ("tj-thermal", CPU), ("AP", CPU), ("battery", BATTERY), ("mtktsbattery", BATTERY),
        ("charger_therm0", BATTERY), ("bms", BATTERY), ("skin_therm1", SKIN),
        ("VIRTUAL-SKIN", SKIN), ("gpu-usr", OTHER), ("acpitz", OTHER), ("soc", IGNORED),
        ("pm8998_bcl_lvl0", IGNORED), ("vbat", IGNORED), ("", IGNORED),
    ],
)  # fmt: skip
def test_zones_are_known_by_their_names(name, kind):
    assert thermal.zone_kind(name) == kind


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("throttled=0x0\n", 0), ("throttled=0x50000\n", 0x50000), ("throttled=0xa0002", 0xA0002),
        ("50005\n", 0x50005), ("VCHI initialization failed\n", None), ("", None),
        ("vcgencmd: not found", None),
    ],
)  # fmt: skip
def test_a_raspberry_pis_bits(text, bits):
    assert thermal.firmware(text) == bits


READING = st.builds(
    lambda value, kind, name: f"\tTemperature{{mValue={value}, mType={kind}, mName={name}, m=0}}",
    st.one_of(st.floats().map(str), st.text(max_size=8)),
    st.integers(-9, 9999),
    st.text(max_size=8),
)
HEADERS = st.sampled_from(["Current temperatures from HAL:", "Cached temperatures:", "Thermal:"])


@given(st.lists(st.one_of(READING, HEADERS, st.text(max_size=30))).map("\n".join))
def test_any_text_gives_plausible_temperatures(text):
    found = thermal.service(text)
    assert found.status is None or 0 <= found.status <= 6
    for _, celsius in (*found.readings, *thermal.zones(text)):
        assert -40 < celsius < 125
    thermal.firmware(text)


@given(st.lists(st.tuples(st.integers(), st.text(max_size=12))))
def test_any_zones_give_plausible_temperatures(zones):
    text = "\n".join(f"{value} {name}" for value, name in zones)
    assert all(-40 < celsius < 125 for _, celsius in thermal.zones(text))
