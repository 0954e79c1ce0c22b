"""docs/python.md: what it shows is what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(<!-- long -->\n)?^```python\n(.*?)^```$", re.M | re.S)
NAMED = re.compile(r"^`(\w+/\w+\.py)`:\n\n```python\n(.*?)^```$", re.M | re.S)


def run(folder: Path, *, everything: bool) -> None:
    """Run the page's blocks in a folder that has the files it names."""
    for name, text in NAMED.findall(PAGE):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    blocks = [
        text for long, text in BLOCK.findall(PAGE)
        if text.startswith(">>>") and (everything or not long)
    ]  # fmt: skip
    assert len(blocks) == (9 if everything else 5)
    test = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "python.md", None, 0)
    output: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=output.append)
    assert not output, "".join(output)


@pytest.mark.process
def test_its_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, everything=False)


@pytest.mark.matrix
def test_its_long_blocks_run_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, everything=True)
