"""Which devices `--device` means."""

from __future__ import annotations

import pytest

from workbench.device.profile import load
from workbench.device.selection import local_only, profiles, select_devices
from workbench.errors import ProfileError


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "devices").mkdir()
    texts = {
        "pixel": 'transport = "adb"\nserial = "1"\ntags = ["nightly"]\nclass = "flagship"',
        "galaxy": 'transport = "adb"\nserial = "2"\ntags = ["nightly", "samsung"]\nclass = "mid"',
        "pi": 'transport = "ssh"\nhost = "pi@board"\nclass = "board"',
    }
    for name, text in texts.items():
        (tmp_path / "devices" / f"{name}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)


def names(*words: str) -> list[str]:
    return [one.name for one in select_devices(words)]


def test_names_keep_their_order_and_stand_once():
    assert names("pi", "cpu", "pi") == ["pi", "cpu"]


def test_all_are_those_that_are_elsewhere_and_no_examples():
    assert sorted(names("all")) == ["galaxy", "pi", "pixel"]


def test_tags_and_classes_choose():
    assert sorted(names("tag:nightly")) == ["galaxy", "pixel"]
    assert names("class:board", "tag:samsung") == ["pi", "galaxy"]


@pytest.mark.parametrize(
    ("word", "message"),
    [("tag:nightli", "nightly"), ("class:flagshp", "flagship"), ("pixl", "pixel")],
)
def test_a_word_that_means_none_names_the_nearest(word, message):
    with pytest.raises(ProfileError, match=f"did you mean '{message}'"):
        select_devices([word])


def test_all_without_any_says_how_to_write_one(tmp_path):
    for path in (tmp_path / "devices").iterdir():
        path.unlink()
    with pytest.raises(ProfileError, match="wb devices new"):
        select_devices(["all"])


def test_a_wrong_profile_is_listed_with_its_error(tmp_path):
    (tmp_path / "devices" / "bad.toml").write_text("colour = 1")
    assert isinstance(profiles()["bad"], ProfileError)
    with pytest.raises(ProfileError, match="no key 'colour'"):
        select_devices(["bad"])


def test_what_runs_here_alone_says_so():
    assert local_only(load("cpu"), "wb compare").name == "cpu"
    with pytest.raises(ProfileError, match="wb compare runs in this machine's own processes"):
        local_only(load("pixel"), "wb compare")
