"""Cores and features, of the texts of several kernels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.device.health import texts
from workbench.device.health import cpuinfo


def test_clusters_of_a_phone_have_their_names_and_clocks():
    speeds = {at: 2000 if at < 4 else 2600 for at in range(8)}
    found = cpuinfo.parse(texts.DIMENSITY_CPUINFO, speeds)
    assert found.clusters == (("Cortex-A55", 4, 2000), ("Cortex-A78", 4, 2600))
    assert found.cores == 8
    assert found.isa == ("asimddp", "asimdhp", "fphp")


def test_one_kind_of_core_at_two_clocks_is_two_clusters():
    found = cpuinfo.parse(texts.PI5_CPUINFO, {0: 1800, 1: 1800, 2: 2400, 3: 2400})
    assert found.clusters == (("Cortex-A76", 2, 1800), ("Cortex-A76", 2, 2400))
    assert found.hardware == "Raspberry Pi 5 Model B Rev 1.0"


def test_a_cluster_whose_numbers_are_apart_stays_in_the_order_of_the_cores():
    found = cpuinfo.parse(texts.TX2_CPUINFO)
    assert found.clusters == (
        ("Cortex-A57", 1, None), ("Denver 2", 2, None), ("Cortex-A57", 3, None),
    )  # fmt: skip


def test_old_kernels_say_the_part_once_for_all_cores():
    found = cpuinfo.parse(texts.NEXUS5_CPUINFO)
    assert found.clusters == (("Krait", 4, None),)
    assert found.hardware.startswith("Qualcomm MSM 8974")
    assert found.isa == ()


def test_a_pc_is_named_by_its_model_not_its_number_of_model():
    found = cpuinfo.parse(texts.EPYC_CPUINFO)
    assert found.clusters == (("AMD EPYC", 2, None),)
    assert found.isa == ("avx2", "avx512f", "avx512_vnni", "avx_vnni")
    assert found.hardware == ""


def test_an_unknown_part_is_its_number():
    text = texts.PI5_CPUINFO.replace("0xd0b", "0xeee")
    assert cpuinfo.parse(text).clusters == (("0x41:0xeee", 4, None),)


def test_cores_that_are_offline_keep_their_numbers():
    blocks = texts.DIMENSITY_CPUINFO.split("\n\n")
    text = "\n\n".join(block for at, block in enumerate(blocks) if at not in (4, 5))
    assert cpuinfo.parse(text).clusters == (
        ("Cortex-A55", 4, None), (cpuinfo.OFFLINE, 2, None), ("Cortex-A78", 2, None),
    )  # fmt: skip


def test_a_feature_counts_that_every_core_has():
    text = texts.DIMENSITY_CPUINFO.replace("asimddp", "asimddp i8mm", 1)
    assert "i8mm" not in cpuinfo.parse(text).isa
    assert "i8mm" in cpuinfo.parse(texts.DIMENSITY_CPUINFO.replace("asimddp", "asimddp i8mm")).isa


def test_nothing_said_is_nothing_found():
    assert cpuinfo.parse("") == ((), 0, (), "", frozenset())


def test_a_core_with_an_absurd_number_fills_no_memory():
    assert cpuinfo.parse("processor: 999999999999\n\nprocessor: 4096\n").cores == 0


KEYS = ["processor", "Features", "flags", "CPU implementer", "CPU part", "model name", "Hardware"]
LINES = st.builds(
    lambda key, value: f"{key}\t: {value}",
    st.sampled_from(KEYS),
    st.one_of(st.integers().map(str), st.integers(0, 9).map(str), st.text(max_size=12)),
)


@given(st.lists(st.one_of(LINES, st.just(""), st.text(max_size=20))).map("\n".join))
def test_any_text_gives_as_many_cores_as_its_clusters_count(text):
    found = cpuinfo.parse(text)
    assert sum(count for _, count, _ in found.clusters) == found.cores
    assert set(found.isa) <= set(cpuinfo.RELEVANT)
