"""Keys of a TOML file: each is read by its type, and a mistake names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest

from workbench.errors import DatasetError, ProfileError
from workbench.options import Between
from workbench.toml_keys import Keys, read_table

NAMES = ("text", "count", "share", "flag", "list", "inner", "choice")


def keys(**table: Any) -> Keys:
    return Keys(table=table, path=Path("folder/mine.toml"), names=NAMES, error=ProfileError)


def test_values_are_those_of_the_file_or_the_defaults():
    full = keys(text="a", count=3, share=1, flag=True, list=[1, 2], choice="b", inner={"x": 0})
    assert full.text("text") == "a"
    assert full.value("count", int) == 3
    assert isinstance(full.number("share", 0, 1), float)
    assert full.value("flag", bool) is True
    assert full.values("list", int) == (1, 2)
    assert full.one_of("choice", ("a", "b")) == full.nearest_of("choice", ("a", "b")) == "b"
    assert full.inner("inner").table == {"x": 0}
    empty = keys()
    assert "text" not in empty
    assert (empty.text("text", "d"), empty.value("count", int, 7)) == ("d", 7)
    assert (empty.number("share", 0, 1), empty.values("list", str)) == (None, ())
    assert empty.one_of("choice", ("a",), "a") == "a"
    assert empty.inner("inner", ("x",)).table == {}


@pytest.mark.parametrize(
    ("table", "read", "what"),
    [
        ({"text": 3}, lambda k: k.text("text"), "text must be text, not 3"),
        ({"text": "\0"}, lambda k: k.text("text"), r"text must be text, not '\x00'"),
        ({"count": True}, lambda k: k.value("count", int), "count must be a whole number"),
        ({"count": 2**63}, lambda k: k.value("count", int), "count must be a whole number, not 9"),
        (
            {"count": 0},
            lambda k: k.value("count", Annotated[int, Between(1)]),
            "count must be a whole number, at least 1, not 0",
        ),
        (
            {"count": 0},
            lambda k: k.value("count", Annotated[int, Between(1, 1 << 20)]),
            "count must be a whole number, 1 to 1048576, not 0",
        ),
        ({"share": 2}, lambda k: k.number("share", 0, 1), "share must be a number, 0 to 1, not 2"),
        ({"share": float("nan")}, lambda k: k.number("share", 0, 1), "share must be a number"),
        ({"flag": "yes"}, lambda k: k.value("flag", bool), "flag must be true or false, not 'yes'"),
        ({"list": [True]}, lambda k: k.values("list", int), "list must be a list of whole numbers"),
        ({"list": "a"}, lambda k: k.values("list", str), "list must be a list of texts, not 'a'"),
        ({"choice": "c"}, lambda k: k.one_of("choice", ("a", "b")), "choice cannot be 'c'"),
        ({"choice": [1]}, lambda k: k.nearest_of("choice", {"a": 1}), "choice cannot be [1]"),
        ({"inner": 3}, lambda k: k.inner("inner"), "inner must be a table, not 3"),
        ({"inner": {"y": 1}}, lambda k: k.inner("inner", ("x",)), "no key 'inner.y'"),
        ({"inner": {"x": 1}}, lambda k: k.inner("inner", ("x",)).text("x"), "inner.x must be text"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_file_the_key_and_what_is_right(table, read, what):
    with pytest.raises(ProfileError) as caught:
        read(keys(**table))
    assert caught.value.what.startswith(f"mine.toml: {what}")


def test_an_unknown_key_is_named_by_its_section_where_it_has_one():
    with pytest.raises(ProfileError, match=r"^mine.toml: no key 'txet'") as caught:
        keys(txet=1)
    assert "did you mean 'text'?" in caught.value.fix
    with pytest.raises(ProfileError, match=r"^mine.toml \[inner\]: no key 'y'"):
        keys(inner={"y": 1}).inner("inner", ("x",), section=True)


def test_choices_are_listed_and_the_nearest_of_many_is_named():
    with pytest.raises(ProfileError) as caught:
        keys(choice="c").one_of("choice", ("a", "b"))
    assert caught.value.why == "it is a or b"
    with pytest.raises(ProfileError) as caught:
        keys(choice="cudo").nearest_of("choice", ("cuda", "cpu"))
    assert "did you mean 'cuda'?" in caught.value.fix


@pytest.mark.parametrize("content", [b"a = ", b"a = '\xff'", b"a = " + b"[" * 5000])
def test_what_is_no_toml_is_said_as_the_caller_wants(tmp_path, content):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="is not valid TOML"):
        read_table(path, DatasetError)
    with pytest.raises(FileNotFoundError):
        read_table(tmp_path / "absent.toml", DatasetError)
