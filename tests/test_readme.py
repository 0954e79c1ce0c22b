"""README is in step with the project: its lines, its tree, its examples and its dependencies."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_lines_are_there():
    assert re.search(r"^ +pip install \. && wb recipe mobile-int8\b", README, re.M)
    assert re.search(r"^ +pip install '\.\[dev\]' && pytest\b", README, re.M)


def test_the_tree_names_every_file_and_folder():
    tree = README.split("## The tree")[1].split("\n## ")[0]
    entries = [*(ROOT / "workbench").iterdir(), *(ROOT / "recipes").iterdir(),
               *(ROOT / "calibration").iterdir(), *(ROOT / "devices").iterdir()]  # fmt: skip
    for entry in entries:
        if not entry.name.startswith(("_", ".")):
            assert entry.name in tree, f"{entry.name} is not in README's tree"


def test_every_dependency_has_its_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reasons = README.split("## Dependencies")[1].split("\n## ")[0]
    for line in project["dependencies"]:
        name = re.split(r"[<>=;]", line)[0].strip()
        assert re.search(rf"\b{re.escape(name)}\b", reasons), f"{name} has no reason"


def test_its_datasets_are_toml():
    blocks = re.findall(r"```toml\n(.*?)```", README, re.S)
    assert len(blocks) == 3
    for block in blocks:
        assert tomllib.loads(block)
