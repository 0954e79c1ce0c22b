"""What a live object would do: another digest for each thing that decides it, one at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import project
from workbench.identity import digest_of
from workbench.usercode import resolve

NET = """
import functools
import helper
import numpy as np
import torch
from torch import nn

FACTOR = 2.0
OFFSETS = [1.0, 2.0]

def scaled(factor):
    return lambda x: x * factor

def twice(x, times=2):
    return x * times * FACTOR

class Block(nn.Module):
    def __init__(self, stride=1):
        super().__init__()
        self.stride = stride

class Net(nn.Module):
    kind = "plain"

    def __init__(self, export=False):
        super().__init__()
        self.export = export
        self.eps = 1e-5
        self.pool = functools.partial(torch.mean, dim=(2, 3))
        self.act = scaled(3.0)
        self.after = twice
        self.table = np.arange(4.0)
        self.parts = [Block()]  # not registered
        self.loose = [nn.Parameter(torch.ones(2))]
        self.conv = nn.Conv2d(1, 2, 3)
        with torch.no_grad():
            self.conv.weight.fill_(0.5)
            self.conv.bias.fill_(0.5)
        self.register_buffer("mask", torch.zeros(3), persistent=False)

    def forward(self, x):
        return helper.shift(self.after(self.act(self.pool(self.conv(x))))) + OFFSETS[0] + self.eps

def build():
    return Net()

def export():
    return Net(export=True)
"""
HELPER = "STEP = 1\ndef shift(x):\n    return x + STEP\n"
CHANGES = [
    ("export=False", "export=True"),
    ('kind = "plain"', 'kind = "other"'),
    ("self.eps = 1e-5", "self.eps = 1e-3"),
    ("dim=(2, 3)", "dim=(3, 2)"),
    ("scaled(3.0)", "scaled(4.0)"),
    ("lambda x: x * factor", "lambda x: x + factor"),
    ("times=2", "times=3"),
    ("x * times * FACTOR", "x / times * FACTOR"),
    ("FACTOR = 2.0", "FACTOR = 2.5"),
    ("OFFSETS = [1.0, 2.0]", "OFFSETS = [1.5, 2.0]"),
    ("np.arange(4.0)", "np.arange(4.0) + 1"),
    ("stride=1", "stride=2"),
    ("torch.ones(2)", "torch.zeros(2)"),
    ("weight.fill_(0.5)", "weight.fill_(0.6)"),
    ("mask\", torch.zeros(3)", "mask\", torch.ones(3)"),
    ("STEP = 1", "STEP = 2"),
    ("x + STEP", "x - STEP"),
]  # fmt: skip


def digest_in(folder: Path, change: tuple[str, str] = ("", ""), factory: str = "build") -> str:
    """The digest of a factory's module, after a change of the sources."""
    folder.mkdir()
    assert change[0] in NET + HELPER
    (folder / "net.py").write_text(NET.replace(*change) if change[0] else NET)
    (folder / "helper.py").write_text(HELPER.replace(*change) if change[0] else HELPER)
    sys.modules.pop("helper", None)
    try:
        return digest_of(resolve(f"net.py:{factory}", folder)())
    finally:
        sys.path.remove(str(folder))


def test_the_same_again_has_the_same_digest(tmp_path: Path) -> None:
    digests = [digest_in(tmp_path / name) for name in "ab"]
    assert digests[0] == digests[1]
    assert digest_in(tmp_path / "c", factory="export") != digests[0]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change[1])
def test_each_thing_that_decides_counts(
    tmp_path: Path, change: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # One path for both, as for a user who edits a file.
    first = digest_in(tmp_path / "net")
    (tmp_path / "net").rename(tmp_path / "before")
    for name in [name for name in sys.modules if name.startswith("workbench_user")]:
        monkeypatch.delitem(sys.modules, name)
    assert digest_in(tmp_path / "net", change) != first


@pytest.mark.process
def test_another_process_gives_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "helper.py").write_text(HELPER)
    text = (
        "from pathlib import Path; from workbench.identity import digest_of;"
        "from workbench.usercode import resolve;"
        "print(digest_of(resolve('net.py:build', Path())(), {'a', 'b', 'c'}, object()))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


class Odd:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_whatever_an_object_is_it_has_a_digest() -> None:
    loop: list[Any] = [1, object(), sys.stdin, Odd(), NotImplemented, iter(()), {1: {2}}]
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    assert len(digest_of(loop, deep)) == 64


@pytest.mark.process
def test_two_factories_of_a_file_are_two_models(tmp_path: Path) -> None:
    project.make(tmp_path / "project")
    net = tmp_path / "project" / "net.py"
    net.write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    export = False\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return y.softmax(1) if self.export else y\n"
        + project.NET.replace("nn.Sequential(", "Net(")
        + "\ndef export():\n    net = build()\n    net.export = True\n    return net\n"
    )
    with project.Runs(tmp_path / "project") as runs:
        first, second = (runs.recipe("plain", model=f"net.py:{name}") for name in
                         ("build", "export"))  # fmt: skip
    assert first["rows"][1]["sha256"] != second["rows"][1]["sha256"]
    assert second["rows"][1]["figures"]["sqnr"] > 100
