"""Tables of users' TOML files, read key by key; every mistake is named by its file and key.

What a key takes is an annotation, as in `workbench.options`, whose words are in the messages.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from workbench.errors import InputError, did_you_mean, shown
from workbench.options import Between, accepts, describe

_PLURALS = {str: "texts", int: "whole numbers"}


def read_table(path: Path, error: type[InputError]) -> dict[str, Any]:
    """A TOML file's top level. Raises `error` where it is none, OSError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as cause:  # TOMLDecodeError, bad UTF-8, a huge number
        raise error(f"{path} is not valid TOML", str(cause)) from cause


@dataclass(frozen=True, kw_only=True)
class Keys:
    """One table of a file. Raises `error` where it has a key that it may not have.

    Attributes:
        table: the keys with their values.
        path: the file.
        names: the keys that the table may have; None for any.
        error: what a mistake raises.
        prefix: stands before a key in a message: `limits.`, '' at the file's top level.
        section: stands behind the file's name where a key is unknown, as ` [split]`; the prefix
            is left out then.
    """

    table: Mapping[str, Any]
    path: Path
    names: Iterable[str] | None
    error: type[InputError]
    prefix: str = ""
    section: str = ""

    def __post_init__(self) -> None:
        if self.names is None:
            return
        for key in self.table:
            if key not in self.names:
                name = key if self.section else f"{self.prefix}{key}"
                raise self.error(
                    f"{self.path.name}{self.section}: no key '{name}'",
                    "",
                    did_you_mean(key, self.names),
                )

    def __contains__(self, key: str) -> bool:
        return key in self.table

    def value(self, key: str, annotation: Any, default: Any = None) -> Any:
        """The value of a key, which its annotation accepts; the default where it is absent.

        A list is a tuple. Text holds no null character, which no path may have.
        """
        if key not in self.table:
            return default
        value = self.table[key]
        plain = not isinstance(value, str) or "\0" not in value
        # TOML's integers have 64 bits, and numpy's.
        small = not isinstance(value, int) or -(2**63) <= value < 2**63
        if not (plain and small and accepts(annotation, value)):
            raise self.wrong(key, describe(annotation))
        return value

    def number(self, key: str, least: float, most: float, default: Any = None) -> Any:
        """A number between two, both included, as a float."""
        value = self.value(key, Annotated[float, Between(least, most)], default)
        return None if value is None else float(value)

    def text(self, key: str, default: str = "") -> str:
        """A text without null characters."""
        return str(self.value(key, str, default))

    def values(self, key: str, kind: type) -> tuple[Any, ...]:
        """A list of texts or of whole numbers, empty where it is absent."""
        items = self.table.get(key, [])
        if not isinstance(items, list) or not all(type(item) is kind for item in items):
            raise self.wrong(key, f"a list of {_PLURALS[kind]}")
        return tuple(items)

    def one_of(self, key: str, choices: Iterable[str], default: str = "", listing: str = "") -> str:
        """One of the choices. `listing` is what a message says of them, `A or B` by default."""
        value = self.table.get(key, default)
        if value not in choices:
            raise self.refusal(key, why=f"it is {listing or ' or '.join(choices)}")
        return str(value)

    def nearest_of(self, key: str, choices: Iterable[str], default: str = "") -> str:
        """One of many choices: a message names the nearest."""
        value = self.table.get(key, default)
        if not isinstance(value, str) or value not in choices:
            near = did_you_mean(value[:80] if isinstance(value, str) else "", choices)
            raise self.refusal(key, fix=near)
        return value

    def inner(self, key: str, names: Iterable[str] | None = None, *, section: bool = False) -> Keys:
        """A table within this one, empty where it is absent."""
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table")
        return replace(
            self,
            table=value,
            names=names,
            prefix=f"{self.prefix}{key}.",
            section=f" [{self.prefix}{key}]" if section else "",
        )

    def wrong(self, key: str, right: str) -> InputError:
        """The error for a value that should be something else, for the caller to raise."""
        return self.error(
            f"{self.path.name}: {self.prefix}{key} must be {right}, not {shown(self.table[key])}"
        )

    def refusal(self, key: str, why: str = "", fix: str = "") -> InputError:
        """The error for a value of the right type that is none of those allowed."""
        value = shown(self.table.get(key))
        return self.error(f"{self.path.name}: {self.prefix}{key} cannot be {value}", why, fix)
