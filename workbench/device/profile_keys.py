"""The keys of a device profile, read by their types; every mistake named by file and key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.device.providers import PROVIDERS
from workbench.errors import ProfileError, did_you_mean, shown


@dataclass(frozen=True)
class Keys:
    """A table of a profile. Raises ProfileError for a key that is not known.

    prefix: the table's own name with a dot, '' of the file's top level.
    """

    table: Mapping[str, Any]
    path: Path
    known: Sequence[str]
    prefix: str = ""

    def __post_init__(self) -> None:
        for key in self.table:
            if key not in self.known:
                raise ProfileError(
                    f"{self.file}: no key '{self.prefix}{key}'", "", did_you_mean(key, self.known)
                )

    @property
    def file(self) -> str:
        return self.path.name

    def text(self, key: str, default: str = "") -> str:
        value = self.table.get(key, default)
        if not isinstance(value, str) or "\0" in value:
            raise self._wrong(key, "a text", value)
        return value

    def flag(self, key: str) -> bool:
        value = self.table.get(key, False)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def one_of(self, key: str, known: Sequence[str], default: str) -> str:
        value = self.table.get(key, default)
        if value not in known:
            raise ProfileError(
                f"{self.file}: {self.prefix}{key} cannot be {shown(value)}",
                f"it is {' or '.join(known)}",
            )
        return str(value)

    def whole(self, key: str, default: int | None, least: int, most: int) -> int | None:
        if key not in self.table:
            return default
        value = self.table[key]
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ProfileError(
                f"{self.file}: {self.prefix}{key} must be a whole number, {least} to {most}"
            )
        return value

    def number(self, key: str, default: float | None, least: float, most: float) -> float | None:
        if key not in self.table:
            return default
        value = self.table[key]
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not least <= value <= most:
            raise ProfileError(
                f"{self.file}: {self.prefix}{key} must be a number, {least:g} to {most:g}"
            )
        return float(value)

    def texts(self, key: str) -> tuple[str, ...]:
        return self._list(key, str, "texts")

    def numbers(self, key: str) -> tuple[int, ...]:
        return self._list(key, int, "whole numbers")

    def table_in(self, key: str, known: Sequence[str]) -> Keys:
        value = self.table.get(key, {})
        if not isinstance(value, dict):
            raise self._wrong(key, "a table", value)
        return Keys(value, self.path, known, f"{self.prefix}{key}.")

    def options(self, provider: str) -> dict[str, str]:
        """A provider's options as the texts that ONNX Runtime takes."""
        given = self.table.get("options", {})
        if not isinstance(given, dict):
            raise self._wrong("options", "a table", given)
        if given and provider == "cpu":
            raise ProfileError(
                f"{self.file}: options are given without a provider",
                "ONNX Runtime's CPU has none that are kept here",
                f"add provider = …, one of {', '.join(PROVIDERS)}",
            )
        found = {}
        for key, value in given.items():
            if isinstance(value, bool):
                # CoreML's source compares with "1"; the others understand True, TensorRT nothing
                # else.
                text = str(int(value)) if provider == "coreml" else str(value)
            elif isinstance(value, str) or (isinstance(value, int) and abs(value) < 1 << 63):
                text = str(value)
            else:
                raise ProfileError(
                    f"{self.file}: option {shown(key)} cannot be {shown(value)}",
                    "ONNX Runtime takes texts, whole numbers, true and false",
                )
            if "\0" in key + text:
                raise ProfileError(f"{self.file}: option {shown(key)} holds a null character")
            found[key] = text
        return found

    def _list(self, key: str, kind: type, things: str) -> tuple[Any, ...]:
        value = self.table.get(key, [])
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            raise self._wrong(key, f"a list of {things}", value)
        return tuple(value)

    def _wrong(self, key: str, wanted: str, value: object) -> ProfileError:
        return ProfileError(f"{self.file}: {self.prefix}{key} must be {wanted}, not {shown(value)}")
