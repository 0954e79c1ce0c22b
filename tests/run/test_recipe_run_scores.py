"""Scores of a second run: the reference's outputs are kept, not inferred again."""

from __future__ import annotations

import shutil

import pytest

from tests import project

pytestmark = pytest.mark.process

# Dies where it is asked for outputs, once it may: what a run needs of it must be kept by then.
MORTAL_NET = (
    project.NET
    + """
import os
class Mortal(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = inner()
    def forward(self, x):
        if os.environ.get("MORTAL"):
            raise SystemExit("asked again")
        return self.inner(x)
inner, build = build, Mortal
"""
)


def test_another_artifact_is_scored_without_the_reference(tmp_path, monkeypatch):
    folder = project.make(tmp_path / "project")
    (folder / "net.py").write_text(MORTAL_NET)
    words = {"name": "small", "weights": None}
    other = {**words, "settings": ["quantize.samples=4"]}
    with project.Runs(folder) as runs:
        runs.recipe(**words)
        runs.new_workers()
        monkeypatch.setenv("MORTAL", "1")
        kept = runs.recipe(**other)
        runs.new_workers()
        monkeypatch.delenv("MORTAL")
        shutil.rmtree(folder / "cache")
        anew = runs.recipe(**other)
    for one, two in zip(kept["rows"], anew["rows"], strict=True):
        assert one["error"] is None
        for name in ("accuracy", "agreement", "sqnr", "delta"):
            assert one["figures"][name] == two["figures"][name], (one["key"], name)
