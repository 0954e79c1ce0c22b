from __future__ import annotations

from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest

from workbench.doctor import requirements
from workbench.errors import DependencyError


def test_another_projects_file_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    assert requirements._project(path) == {}
    path.write_text('[project]\nname = "other"\ndependencies = ["a"]\n')
    assert requirements._project(path) == {}
    path.write_text('[project]\nname = "mobile-workbench"\ndependencies = ["a"]\n')
    assert requirements._project(path)["dependencies"] == ["a"]
    path.write_text("[project")
    assert requirements._project(path) == {}


def test_metadata_is_split_into_packages_and_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    message = Message()
    message["Requires-Python"] = ">=3.11"
    for text in (
        "numpy>=2.1",
        "onnxsim>=0.5; python_version < '3.0'",
        "timm>=1; extra == 'timm'",
        "pytest; extra == 'dev'",
    ):
        message["Requires-Dist"] = text
    for extra in ("timm", "dev"):
        message["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "metadata", lambda _name: message)
    table = requirements._installed()
    assert table["requires-python"] == ">=3.11"
    assert [one.text for one in requirements._required(table["dependencies"])] == ["numpy>=2.1"]
    extras = table["optional-dependencies"]
    assert [one.text for one in requirements._required(extras["timm"])] == ["timm>=1"]
    assert extras["dev"] == ["pytest; extra == 'dev'"]


def test_a_package_that_is_not_installed_is_a_missing_dependency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requirements, "PROJECT", "no-such-project-at-all")
    with pytest.raises(DependencyError, match="no-such-project-at-all is not installed"):
        requirements._installed()
