"""A user's project in a folder: a network, its weights, a dataset and a recipe; and `wb` on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

NET = """
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
"""

RECIPE = '''"""Small: what tests run in seconds."""
from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify, ToOrt
recipe = Recipe(Export(), Simplify(), branches={"ort": (QuantizeStatic(), ToOrt())})
'''


def make(folder: Path, *, samples: int = 24, seed: int = 0) -> Path:
    """net.py, weights.pt, data.toml (calibration 8, evaluation the rest) and recipes/small.py."""
    import torch

    (folder / "recipes").mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    (folder / "recipes" / "small.py").write_text(RECIPE)
    space: dict[str, Any] = {}
    exec(NET, space)
    torch.manual_seed(seed)
    torch.save(space["build"]().state_dict(), folder / "weights.pt")
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((samples, 3, 32, 32)).astype(np.float32)
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", generator.integers(0, 10, samples))
    (folder / "data.toml").write_text(
        'source = "numpy"\npath = "x.npy"\nlabels = "y.npy"\n[split]\ncalibration = 8\n'
    )
    return folder


MODEL = ("--model", "net.py:build", "--weights", "weights.pt", "--data", "data.toml")
OWN = (*MODEL, "--quick")
UNTIMED = (*MODEL, "--no-latency")


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "WB_CACHE": str(folder / "cache"), "COLUMNS": "200"}


def start(folder: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """`wb` begun in the project's folder, with a cache of the project's own."""
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *words],
        cwd=folder, env=environment(folder), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def wb(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`wb` run to its end in the project's folder."""
    with start(folder, *words) as process:
        out, err = process.communicate(timeout=280)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """What `--json` printed."""
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def manifest(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The manifest of the run that a report is of."""
    read: dict[str, Any] = json.loads((folder / found["folder"] / "manifest.json").read_text())
    return read


def workers(folder: Path) -> set[int]:
    """Process ids of the workers that runs in this project's folder have started and not ended."""
    own = f"WB_CACHE={folder / 'cache'}".encode()
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            worker = b"workbench.jobs.worker" in (place / "cmdline").read_bytes()
            if worker and own in (place / "environ").read_bytes().split(b"\0"):
                found.add(int(place.name))
        except OSError:
            continue
    return found
