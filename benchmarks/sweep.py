"""A sweep against as many runs of its recipe, two workers against one, and its own overhead.

    python benchmarks/sweep.py [--trials 30]

On the embedded digits classifier and the recipe below, whose trials share export and calibration.
The separate runs are processes of their own, as a shell loop would start them: each with a cache of
its own, and once more all with one cache. Every way makes the same artifacts and measures nothing.
One worker has all cores too, and uses them in parts.
The overhead of a trial is that of asking, telling and storing, with trials that do nothing.
Asked: a sweep at most 0.5 of separate runs, two workers 1.6 of one, an overhead under 50 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = '''"""INT8 for ONNX Runtime, of layers left in float by pattern."""
from workbench.recipe import Recipe
from workbench.steps import Export, QuantizeStatic, Simplify, ToOrt
recipe = Recipe(Export(), Simplify(), branches={"ort": (QuantizeStatic(preset="fast"), ToOrt())})
'''
SAMPLES = "quantize.samples"


def wb(folder: Path, cache: Path, *words: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "WB_CACHE": str(cache)}, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def swept(folder: Path, cache: str, values: list[int], jobs: int) -> float:
    listed = ",".join(map(str, values))
    return wb(
        folder, folder / cache, "sweep", "bench", "--vary", f"{SAMPLES}={listed}", "--minimise",
        "size,drop", "--no-latency", "--jobs", str(jobs), "--out", f"sweep-{cache}",
    )  # fmt: skip


def overhead(trials: int) -> float:
    """Seconds a trial where making and measuring take none."""
    from workbench.run.run_options import RunOptions
    from workbench.sweep import loop
    from workbench.sweep.goals import Goal
    from workbench.sweep.space import Dimension
    from workbench.sweep.spec import Spec, SweepRecord, own_storage

    figures: dict[str, Any] = {"bytes": 1000, "delta": {"value": 0.0, "low": -1.0, "high": 1.0}}
    answer = {"device": "cpu", "error": None, "devices": [],
              "rows": [{"key": "ort.to_ort", "error": None, "figures": figures}]}  # fmt: skip

    class Nothing:
        jobs, apart, finishes = 1, False, True

        def __init__(self) -> None:
            self.begun: list[int] = []

        def submit(self, number: int, _job: str, *_arguments: Any) -> None:
            self.begun.append(number)

        def wait(self) -> list[tuple[int, Any]]:
            return [(self.begun.pop(), answer)]

        def close(self) -> None:
            pass

    space = (
        Dimension(name="quantize.samples", low=8, high=128, whole=True),
        Dimension(name="quantize.preset", values=("fast", "balanced", "best")),
    )
    spec = Spec(
        run=RunOptions(recipe="mobile-int8", preset="none"), space=space,
        goals=(Goal("size"), Goal("drop")), limits=(), row="ort.to_ort",
        search="tpe", trials=trials,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        record = SweepRecord(folder=folder, spec=spec, storage=own_storage(folder), study="bench")
        study = loop.prepare_sweep(record, resume=False)
        started = time.perf_counter()
        loop.run_trials(record, study, Nothing(), lambda _trial: None, lambda _text: None)
        return (time.perf_counter() - started) / trials


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--overhead-only", action="store_true")
    words = parser.parse_args()
    print(f"a trial's overhead: {1000 * overhead(words.trials):.1f} ms (under 50 is asked)")
    if words.overhead_only:
        return
    values = [8 + 4 * number for number in range(words.trials)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "recipes").mkdir()
        (folder / "recipes" / "bench.py").write_text(RECIPE)
        two = swept(folder, "two", values, 2)
        one = swept(folder, "one", values, 1)
        front = json.loads((folder / "sweep-two" / "front.json").read_text())
        assert len(front["points"]) == words.trials
        print(f"a sweep of {words.trials}: one worker {one:.1f} s, two {two:.1f} s: "
              f"{one / two:.2f} (1.6 is asked)", flush=True)  # fmt: skip
        for name in ("own", "shared"):
            taken = 0.0
            for value in values:
                cache = folder / (f"own-{value}" if name == "own" else "shared")
                taken += wb(folder, cache, "recipe", "bench", "--set", f"{SAMPLES}={value}",
                            "--no-latency", "--out", f"run-{name}-{value}")  # fmt: skip
            print(f"{words.trials} runs, {name} cache: {taken:.1f} s; sweep / runs: "
                  f"{two / taken:.2f} with two workers, {one / taken:.2f} with one "
                  "(0.5 is asked)", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
