"""What phones, boards and PCs are, and whether they are emulated."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from tests.device.health.doubles import Answers, Here
from workbench.codec import from_plain, to_plain
from workbench.device import probe
from workbench.device.health import identity
from workbench.device.health.identity import Identity, identify
from workbench.errors import DeviceError

ARM = "Linux\naarch64\n6.1.75-android14-11"
FREQUENCIES = "\n".join(f"{at} {1803000 if at < 4 else 2900000}" for at in (0, 10, 1, 2, 3, 4, 5))


def test_a_pixel():
    parts = {
        "uname": ARM, "properties": texts.PIXEL_PROPERTIES, "cpuinfo": texts.DIMENSITY_CPUINFO,
        "memory": "MemTotal:       11899684 kB", "interpreter": "sh\n-c",
        "frequencies": "\n".join(f"{at} {1704000 if at < 4 else 2367000}" for at in range(8)),
    }  # fmt: skip
    transport = Answers(parts)
    assert identify(transport) == Identity(
        system="android",
        model="Google Pixel 8 Pro",
        soc="Google Tensor G3",
        cpus=(("Cortex-A55", 4, 1704), ("Cortex-A78", 4, 2367)),
        cores=8,
        architecture="arm",
        isa=("asimddp", "asimdhp", "fphp"),
        memory_bytes=11899684 * 1024,
        release="14 (API 34)",
    )
    assert len(transport.asked) == 1


@pytest.mark.parametrize(
    ("properties", "model", "soc"),
    [
        (texts.SAMSUNG_PROPERTIES, "samsung SM-M307F", "exynos9611"),
        (texts.XIAOMI_PROPERTIES, "Xiaomi 12 Pro", "QTI SM8450"),
    ],
)
def test_makers_name_their_phones_differently(properties, model, soc):
    found = identity.parse({"uname": ARM, "properties": properties})
    assert (found.model, found.soc, found.emulated) == (model, soc, False)


def test_an_old_phones_processor_is_its_kernels_hardware():
    said = "[ro.build.version.release]: [6.0.1]\n[ro.board.platform]: [msm8974]\n"
    found = identity.parse({"properties": said, "cpuinfo": texts.NEXUS5_CPUINFO})
    assert found.soc.startswith("Qualcomm MSM 8974")
    assert found.release == "6.0.1"


def test_a_raspberry_pi():
    found = identity.parse(
        {
            "uname": "Linux\naarch64\n6.12.25+rpt-rpi-2712",
            "cpuinfo": texts.PI5_CPUINFO,
            "board": "Raspberry Pi 5 Model B Rev 1.0\n",
            "compatible": "raspberrypi,5-model-b\nbrcm,bcm2712\n",
            "frequencies": "\n".join(f"{at} 2400000" for at in range(4)),
        }
    )
    assert found.system == "linux"
    assert found.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.soc == "bcm2712"
    assert found.cpus == (("Cortex-A76", 4, 2400),)
    assert found.release == "6.12.25+rpt-rpi-2712"


@pytest.mark.parametrize(
    ("dmi", "model"),
    [
        ("LENOVO\n21CBCTO1WW", "LENOVO 21CBCTO1WW"),
        ("To Be Filled By O.E.M.\nTo Be Filled By O.E.M.", "AMD EPYC"),
        ("ACME\nACME", "ACME"),
        ("", "AMD EPYC"),
    ],
)
def test_a_pc_is_what_its_maker_filled_in_or_its_processor(dmi, model):
    parts = {"uname": "Linux\nx86_64\n6.1", "cpuinfo": texts.EPYC_CPUINFO, "dmi": dmi}
    assert identity.parse(parts).model == model


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"properties": texts.EMULATOR_PROPERTIES}, "ro.kernel.qemu"),
        ({"properties": "[ro.boot.qemu]: [1]\n"}, "ro.boot.qemu"),
        ({"properties": "[ro.hardware]: [cutf_cvm]\n"}, "cutf_cvm"),
        ({"properties": "[ro.hardware]: [ranchu]\n"}, "ranchu"),
        ({"properties": "[ro.build.characteristics]: [nosdcard,emulator]\n"}, "characteristics"),
        # As read in this project's arm64 target (proot, qemu-user), and as binfmt_misc starts it.
        ({"interpreter": "/usr/bin/qemu-aarch64-static\n-U\nLD_LIBRARY_PATH"}, "qemu-aarch64"),
        ({"interpreter": "/usr/libexec/qemu-binfmt/aarch64-binfmt-P\n/bin/sh"}, "binfmt"),
        ({"interpreter": "/run/rosetta/rosetta\n/bin/sh"}, "rosetta"),
        ({"cpuinfo": "processor: 0\nmodel name: QEMU Virtual CPU version 2.5+\n"}, "QEMU"),
        ({"cpuinfo": "processor: 0\nmodel name: QEMU TCG CPU version 2.5+\n"}, "QEMU"),
        (
            {"cpuinfo": "processor: 0\nCPU implementer: 0x00\nCPU part: 0x051\n"},
            "QEMU",
        ),
    ],
)
def test_what_is_emulated_says_why(parts, why):
    found = identity.parse({"uname": ARM, **parts})
    assert found.emulated
    assert why in found.emulator


@pytest.mark.parametrize(
    "parts",
    [
        {"interpreter": "sh\n-c\necho qemu-aarch64-static"},
        {"interpreter": "/bin/busybox\nsh"},
        {"properties": texts.PIXEL_PROPERTIES, "interpreter": "/system/bin/sh"},
        {"properties": "[ro.kernel.qemu]: [0]\n[ro.hardware]: [qcom]\n"},
        {"cpuinfo": texts.EPYC_CPUINFO},  # a virtual machine runs on hardware
    ],
)
def test_what_is_not_emulated_is_not_said_to_be(parts):
    found = identity.parse({"uname": ARM, **parts})
    assert (found.emulated, found.emulator) == (False, "")


@pytest.mark.parametrize("uname", ["Darwin\narm64\n24.6.0", ""])
def test_other_systems_are_refused_by_name(uname):
    with pytest.raises(DeviceError, match=r"Darwin|unknown system") as caught:
        identify(Answers({"uname": uname}))
    assert "desk" in caught.value.what


def test_numbers_of_cores_are_numbers_not_words():
    assert identity.frequencies(FREQUENCIES) == {
        0: 1803, 1: 1803, 2: 1803, 3: 1803, 4: 2900, 5: 2900, 10: 2900,
    }  # fmt: skip
    assert identity.frequencies("0\n1 \nx 5\n-1 1803000\n2 -7") == {}


@pytest.mark.parametrize(
    ("machine", "architecture"),
    [("x86_64", "x86"), ("i686", "x86"), ("aarch64", "arm"), ("armv8l", "arm"),
     ("riscv64", "riscv64"), ("", "")],
)  # fmt: skip
def test_machines_are_named_by_architecture(machine, architecture):
    assert identity.architecture(machine) == architecture


def test_an_identity_goes_through_json():
    found = identity.parse({"uname": ARM, "cpuinfo": texts.TX2_CPUINFO})
    assert from_plain(json.loads(json.dumps(to_plain(found))), Identity) == found


PART = st.one_of(st.text(), st.sampled_from([texts.PIXEL_PROPERTIES, texts.TX2_CPUINFO]))
NAMES = ["uname", "properties", "cpuinfo", "memory", "frequencies", "board", "compatible", "dmi",
         "interpreter"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), PART))
def test_any_text_is_an_identity(parts):
    found = identity.parse(parts)
    assert from_plain(json.loads(json.dumps(to_plain(found))), Identity) == found


@pytest.mark.process
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no /proc/cpuinfo")
@pytest.mark.parametrize("shell", [(), ("bash", "-c", '"$@"', "bash")])
def test_this_machine_is_what_python_says_it_is(shell):
    here = Here(*shell)
    found = identify(here)
    assert here.asked == 1
    assert found.system == "linux"
    assert found.release == platform.release()
    assert found.architecture == probe.architecture()
    assert found.cores == os.cpu_count()
    assert set(probe.isa()) <= set(found.isa)
    assert found.memory_bytes == pytest.approx(probe.memory_bytes(), rel=0.01)
    assert found.model
    assert platform.node() not in json.dumps(to_plain(found))
