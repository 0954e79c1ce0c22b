"""Users' callables by name, and the files that they read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from workbench.errors import InputError
from workbench.usercode import Dependencies, resolve, watch_files


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder of the user's; what resolving adds to the interpreter is taken away afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_function_of_a_file_is_found_relative_to_the_folder_given(here):
    put(here, "sub/model.py", "def build(): return 'sub'")
    assert resolve("sub/model.py:build", here)() == "sub"
    assert resolve("model.py:build", here / "sub")() == "sub"
    assert resolve(f"{here}/sub/model.py:build", Path("/"))() == "sub"


def test_two_files_of_one_name_are_two_modules(here):
    for folder in ("one", "other"):
        put(here, f"{folder}/model.py", f"def build(): return '{folder}'")
    assert resolve("one/model.py:build", here)() == "one"
    assert resolve("other/model.py:build", here)() == "other"


def test_a_file_imports_its_neighbours(here):
    put(here, "sub/neighbour_of_model.py", "value = 5")
    put(here, "sub/model.py", "from neighbour_of_model import value\ndef build(): return value")
    assert resolve("sub/model.py:build", here)() == 5


def test_a_function_of_a_package_in_the_working_directory_is_found(here):
    put(here, "kitchen_tools/__init__.py", "")
    put(here, "kitchen_tools/nets.py", "def build(): return 7")
    assert resolve("kitchen_tools.nets:build", Path("/"))() == 7


@pytest.mark.parametrize("spec", ["", "model.py", ":build", "model.py:", ":"])
def test_a_spec_without_a_function_is_an_error(here, spec):
    with pytest.raises(InputError, match="names no function") as caught:
        resolve(spec, here)
    assert "file.py:function" in caught.value.fix


def test_an_absent_file_is_named(here):
    with pytest.raises(InputError, match=f"there is no file {here}/gone.py"):
        resolve("gone.py:build", here)


def test_a_folder_of_an_unknown_user_is_an_absent_file(here):
    with pytest.raises(InputError, match="there is no file"):
        resolve("~nobody-here/model.py:build", here)


def test_an_absent_module_says_what_to_do(here):
    with pytest.raises(InputError, match=r"there is no module no_such\.module") as caught:
        resolve("no_such.module:build", here)
    assert "install it" in caught.value.fix


@pytest.mark.parametrize("place", [".relative", "..", "a b", "\u00e9\ud800"])
def test_an_odd_module_name_is_an_input_error(here, place):
    with pytest.raises(InputError):
        resolve(f"{place}:build", here)


def test_an_absent_name_offers_the_nearest_callable(here):
    put(here, "model.py", "def build(): pass\ndef _hidden(): pass\nNUMBER = 3")
    with pytest.raises(InputError, match=r"model\.py has no 'biuld'") as caught:
        resolve("model.py:biuld", here)
    assert caught.value.fix == "did you mean 'build'? (known: build)"


def test_what_is_not_callable_is_refused(here):
    put(here, "model.py", "build = 3")
    with pytest.raises(InputError, match="is a int, not a function"):
        resolve("model.py:build", here)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import no_such_thing", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def build(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
@pytest.mark.parametrize("spec", ["failing_one.py:build", "failing_one:build"])
def test_code_that_fails_when_imported_is_an_input_error_each_time(here, text, words, spec):
    put(here, "failing_one.py", text)
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            resolve(spec, here)
        assert words in caught.value.why


def own(seen, folder):
    """What was recorded in a folder, apart from the modules that other tests have loaded."""
    resolved = {path.resolve() for path in seen.paths}
    assert not any("site-packages" in str(path) for path in resolved)
    return {path for path in resolved if path.is_relative_to(folder)}


def test_the_users_files_that_are_read_and_imported_are_recorded(here):
    data, other = put(here, "data.txt", "3"), put(here, "other.txt", "4")
    helper = put(here, "helper_of_watched.py", "value = 1")
    model = put(
        here,
        "model.py",
        "import colorsys, helper_of_watched\n"
        "def build(): return open('data.txt').read() + open('new.txt', 'w').name",
    )
    seen = Dependencies()
    with watch_files(seen):
        resolve("model.py:build", here)()
    other.read_text()
    assert own(seen, here) == {model, helper, data}
    again = Dependencies()
    with watch_files(again):  # what is loaded already is not read again, but rested on all the same
        resolve("model.py:build", here)
    assert own(again, here) == {model, helper}


def test_watching_records_what_was_read_before_a_failure(here):
    data = put(here, "data.txt", "3")
    seen = Dependencies()
    with pytest.raises(ZeroDivisionError), watch_files(seen):
        data.read_bytes()
        1 / 0  # noqa: B018
    assert own(seen, here) == {data}
