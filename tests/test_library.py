"""Recipes, datasets and devices by name: the working directory's first, then the shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import library
from workbench.errors import InputError

SHIPPED = Path(library.__file__).parent.parent


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, kind: str, name: str) -> Path:
    path = folder / kind / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    return path


@pytest.mark.parametrize(
    ("kind", "name", "file"),
    [
        ("recipes", "mobile-int8", "recipes/mobile_int8.py"),
        ("calibration", "digits", "calibration/digits.toml"),
        ("devices", "cpu", "devices/cpu.toml"),
    ],
)
def test_what_is_shipped_is_found_from_any_folder(here, kind, name, file):
    assert library.find(kind, name) == SHIPPED / file


def test_the_working_directory_comes_before_the_shipped(here):
    mine = put(here, "devices", "cpu.toml")
    assert library.find("devices", "cpu") == mine
    assert library.entries("devices")["cpu"] == mine


def test_underscores_and_hyphens_are_one_name(here):
    mine = put(here, "recipes", "my_own.py")
    assert library.find("recipes", "my-own") == library.find("recipes", "my_own") == mine
    assert "my-own" in library.entries("recipes")


def test_private_hidden_and_other_files_are_no_entries(here):
    for name in ("_shared.py", ".draft.py", "notes.txt"):
        put(here, "recipes", name)
    assert not {"-shared", ".draft", "notes"} & set(library.entries("recipes"))


def test_a_path_is_taken_as_it_is(here):
    mine = put(here, "elsewhere", "mine.py")
    assert library.find("recipes", "elsewhere/mine.py") == mine
    assert library.find("recipes", str(mine)) == mine
    assert library.find("recipes", str(mine)).is_absolute()


@pytest.mark.parametrize(
    "name", ["absent.toml", "./cpu", "no/such.toml", "a\0/b", "~nobody-here/x"]
)
def test_a_path_without_a_file_is_an_error(here, name):
    with pytest.raises(InputError) as caught:
        library.find("devices", name)
    assert caught.value.what == f"there is no device file {name}"


def test_an_unknown_name_says_where_it_looked_and_the_nearest(here):
    put(here, "calibration", "kitchen.toml")
    with pytest.raises(InputError) as caught:
        library.find("calibration", "kitchn")
    assert caught.value.what == "there is no dataset named 'kitchn'"
    assert str(here / "calibration") in caught.value.why
    assert caught.value.fix.startswith("did you mean 'kitchen'?")
    assert "digits" in caught.value.fix
