"""What the workbench declares that it needs, from its own pyproject.toml or its metadata."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import DependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

PROJECT = "mobile-workbench"


@dataclass(frozen=True, kw_only=True)
class Needed:
    """One package with the versions that do."""

    name: str
    specifier: SpecifierSet

    @property
    def text(self) -> str:
        """The requirement as pip takes it."""
        return f"{self.name}{self.specifier}"

    def satisfied_by(self, version: str | None) -> bool:
        """Whether a version is one of those; None where the package is absent."""
        return version is not None and self.specifier.contains(version, prereleases=True)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The Python versions, the packages, and by name the extras, developers' left out."""

    python: SpecifierSet
    packages: tuple[Needed, ...]
    extras: Mapping[str, tuple[Needed, ...]]


@cache
def declared() -> Declared:
    """What this workbench declares. Raises DependencyError where nothing can be read."""
    try:
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError as error:
        raise DependencyError(
            "packaging is missing", "versions are compared with it", "pip install packaging"
        ) from error
    # In a checkout the metadata is as old as the last installation.
    table = _project(Path(__file__).parents[2] / "pyproject.toml") or _installed()
    optional = {
        name: tuple(_needed(texts))
        for name, texts in table.get("optional-dependencies", {}).items()
        if name != "dev"
    }
    return Declared(
        python=SpecifierSet(table.get("requires-python", "")),
        packages=tuple(_needed(table.get("dependencies", []))),
        extras=optional,
    )


def _project(path: Path) -> dict[str, Any]:
    """The project table of a checkout's pyproject.toml; empty where it is not the workbench's."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return {}
    return table if table.get("name") == PROJECT else {}


def _installed() -> dict[str, Any]:
    """The same from an installed package's metadata."""
    try:
        found = metadata.metadata(PROJECT)
    except metadata.PackageNotFoundError as error:
        raise DependencyError(
            f"{PROJECT} is not installed",
            "its code is here, what it needs is not known",
            "pip install . in its checkout",
        ) from error
    texts = found.get_all("Requires-Dist") or []
    extras = found.get_all("Provides-Extra") or []
    return {
        "requires-python": (found.get_all("Requires-Python") or [""])[0],
        "dependencies": [text for text in texts if "extra ==" not in text],
        "optional-dependencies": {
            extra: [text for text in texts if _of(text, extra)] for extra in extras
        },
    }


def _of(text: str, extra: str) -> bool:
    marker = _parsed(text).marker
    return marker is not None and "extra ==" in text and marker.evaluate({"extra": extra})


def _parsed(text: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(text)


def _needed(texts: list[str]) -> list[Needed]:
    """The requirements that apply to this Python and system."""
    every = [_parsed(text) for text in texts]
    return [
        Needed(name=one.name, specifier=one.specifier)
        for one in every
        if one.marker is None or "extra" in str(one.marker) or one.marker.evaluate()
    ]
