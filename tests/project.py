"""A user's project in a folder: a network, its weights, a dataset and a recipe; and runs of it.

`wb` runs the command line, from the start. `Runs` does the same in this process, and keeps worker
processes for the next run: for all that is not about what a user types, sees and interrupts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.cache import Cache
from workbench.display import Quiet
from workbench.measure.latency import PRESETS, Preset
from workbench.process import Worker
from workbench.run.recipe_run import execute
from workbench.run.run_options import RunOptions
from workbench.worker_pool import Pool

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
    """net.py, weights.pt, data.toml (8 for calibration), and the recipes small and plain."""
    import torch

    (folder / "recipes").mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    (folder / "recipes" / "small.py").write_text(RECIPE)
    (folder / "recipes" / "plain.py").write_text(PLAIN)
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


PLAIN = '''"""Export and simplify."""
from workbench.recipe import Recipe
from workbench.steps import Export, Simplify
recipe = Recipe(Export(), Simplify())
'''

UNMEASURED = PRESETS["none"]
ONE_PROCESS = dataclasses.replace(
    PRESETS["quick"], name="one process", processes=1, warmup=1, runs=3, seconds=0.0
)

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
        out, err = process.communicate(timeout=800)
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


def copied(source: Path, folder: Path, *, cache: bool) -> Path:
    """A copy of a project without its runs, and with its cache where that is wanted."""
    left = shutil.ignore_patterns("runs", *([] if cache else ["cache"]))
    return shutil.copytree(source, folder, ignore=left)


class KeptPool(Pool):
    """Workers that outlive the command that would end them, until `end`: its own pool's place."""

    def take(self, like: str) -> Worker:
        """An idle worker that lives: a command that fails ends every worker there is."""
        worker = super().take(like)
        while worker._process.poll() is not None:
            worker = super().take(like)
        return worker

    def close(self) -> None:
        """Nothing yet."""

    def end(self) -> None:
        super().close()


class Runs:
    """Recipe runs of a project in this process, as `wb recipe` would do them in its folder.

    They share worker processes, which keep what they imported: after a user's source file changed,
    ask for `new_workers`, as a run from the shell has them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = Pool()
        self.exit_code = 0  # of the last run

    def recipe(
        self,
        name: str,
        *,
        model: str | None = "net.py:build",
        weights: str | None = "weights.pt",
        data: str | None = "data.toml",
        settings: Sequence[str] = (),
        inputs: Sequence[str] = (),
        devices: Sequence[str] = (),
        samples: int = 64,
        preset: Preset = UNMEASURED,
        out: str | None = None,
    ) -> dict[str, Any]:
        """The run's report.json, and its folder. Raises WorkbenchError as `execute` does."""
        with contextlib.chdir(self.folder):
            request, plan = RunOptions(
                recipe=name, model=model, weights=Path(weights) if weights else None, data=data,
                settings=tuple(settings), inputs=tuple(inputs), devices=tuple(devices),
                samples=samples,
            ).resolve()  # fmt: skip
            with contextlib.closing(Cache(self.folder / "cache")) as cache:
                finished = execute(
                    request, replace(plan, preset=preset), cache, Quiet(),
                    Path(out) if out else None, pool=self.pool,
                )  # fmt: skip
            self.exit_code = finished.report.exit_code
            text = (finished.folder / "report.json").read_text(encoding="utf-8")
        return {"folder": str(finished.folder), **json.loads(text)}

    def new_workers(self) -> None:
        """End the worker processes; the next run starts others."""
        self.pool.close()

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.close()
