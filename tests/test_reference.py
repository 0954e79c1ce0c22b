"""docs/reference.md is in step with the code: steps, recipes, commands and devices."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tests import structures
from workbench.cli.app import app

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_its_steps_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("docs_steps", ROOT / "docs" / "steps.py")
    steps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(steps)
    assert steps.page() == REFERENCE, "run: python docs/steps.py"


def test_it_names_every_recipe_device_and_command():
    for path in (ROOT / "recipes").glob("*.py"):
        assert f"| `{path.stem.replace('_', '-')}` |" in REFERENCE, path.stem
    for path in (ROOT / "devices").glob("*.toml"):
        assert f"`{path.stem}`" in REFERENCE, path.stem
    for command in app.registered_commands:
        assert f"`wb {command.callback.__name__}" in REFERENCE, command.callback.__name__


def test_the_matrix_has_every_structure_in_every_recipe():
    matrix = (ROOT / "docs" / "matrix.md").read_text(encoding="utf-8")
    for path in (ROOT / "recipes").glob("*.py"):
        section = matrix.split(f"## {path.stem.replace('_', '-')}\n")[1].split("\n## ")[0]
        for name in structures.STRUCTURES:
            assert f"\n| {name} |" in section, (path.stem, name)
