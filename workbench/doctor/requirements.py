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
class RequiredPackage:
    """One package with the versions that do."""

    name: str
    specifier: SpecifierSet

    @property
    def text(self) -> str:
        """As pip takes it: `numpy>=2.1`."""
        return f"{self.name}{self.specifier}"

    def satisfied_by(self, version: str | None) -> bool:
        """Whether an installed version does; None where the package is not installed."""
        return version is not None and self.specifier.contains(version, prereleases=True)


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What the workbench needs.

    Attributes:
        python: the versions of Python that do.
        packages: what is always needed.
        extras: what is needed for more, by the extra's name; the developers' is left out.
    """

    python: SpecifierSet
    packages: tuple[RequiredPackage, ...]
    extras: Mapping[str, tuple[RequiredPackage, ...]]


@cache
def declared_requirements() -> Requirements:
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
        name: tuple(_required(texts))
        for name, texts in table.get("optional-dependencies", {}).items()
        if name != "dev"
    }
    return Requirements(
        python=SpecifierSet(table.get("requires-python", "")),
        packages=tuple(_required(table.get("dependencies", []))),
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
        fields = metadata.metadata(PROJECT)
    except metadata.PackageNotFoundError as error:
        raise DependencyError(
            f"{PROJECT} is not installed",
            "its code is here, what it needs is not known",
            "pip install . in its checkout",
        ) from error
    texts = fields.get_all("Requires-Dist") or []
    extras = fields.get_all("Provides-Extra") or []
    return {
        "requires-python": (fields.get_all("Requires-Python") or [""])[0],
        "dependencies": [text for text in texts if "extra ==" not in text],
        "optional-dependencies": {
            extra: [text for text in texts if _is_of_extra(text, extra)] for extra in extras
        },
    }


def _is_of_extra(text: str, extra: str) -> bool:
    marker = _requirement(text).marker
    return marker is not None and "extra ==" in text and marker.evaluate({"extra": extra})


def _requirement(text: str) -> Requirement:
    from packaging.requirements import Requirement

    return Requirement(text)


def _required(texts: list[str]) -> list[RequiredPackage]:
    """The requirements that apply to this Python and system."""
    requirements = [_requirement(text) for text in texts]
    return [
        RequiredPackage(name=required.name, specifier=required.specifier)
        for required in requirements
        if required.marker is None or "extra" in str(required.marker) or required.marker.evaluate()
    ]
