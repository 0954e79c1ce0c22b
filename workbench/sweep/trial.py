"""One trial in a process of its own: made, and, where that may be done there, measured."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.cache import Cache, read_json
from workbench.display import Quiet
from workbench.errors import StepError
from workbench.progress import Progress
from workbench.sweep.spec import Spec
from workbench.worker_pool import Pool

_pool: list[Pool] = []  # its workers stay for the process's next trial


class _ProgressLine(Quiet):
    """What a run does, as one line of progress."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def update(self, task: str, fraction: float, note: str = "") -> None:
        self._progress(fraction, f"{task} {note}".strip())


def make(spec: Mapping[str, Any], settings: tuple[str, ...], progress: Progress) -> list[str]:
    """Everything of a trial but its measuring; it is in the cache then, under the keys returned."""
    from workbench.run.recipe_run import make_artifacts

    request, plan = Spec.from_json(spec).request(settings)
    cache = Cache()
    make_artifacts(request, plan, cache, _ProgressLine(progress), _workers())
    return sorted(cache.used)


def finish(
    spec: Mapping[str, Any], settings: tuple[str, ...], folder: str, progress: Progress
) -> dict[str, Any]:
    """A trial's run folder, with what is not in the cache made and measured; its report.

    Raises the StepError of a branch that failed where the point is its file.
    """
    from workbench.run.recipe_run import execute

    request, plan = Spec.from_json(spec).request(settings)
    done = execute(request, plan, Cache(), _ProgressLine(progress), Path(folder), _workers())
    report = read_json(done.folder / "report.json")
    if not isinstance(report, dict):
        raise StepError(f"{done.folder} has no report", "it was removed", "run it again")
    return _without_samples(report)


def _without_samples(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without raw samples, which stay in the run folder."""
    blocks = [
        {
            "device": block["device"],
            "error": block["error"],
            "rows": [
                {key: row[key] for key in ("key", "error", "figures")} for row in block["rows"]
            ],
        }
        for block in (report, *report["devices"])
    ]
    return {**blocks[0], "devices": blocks[1:]}


def _workers() -> Pool:
    if not _pool:
        _pool.append(Pool())
        atexit.register(_pool[0].close)
    return _pool[0]


def thread_settings(count: int) -> dict[str, str]:
    """Settings of a process that has so many cores: others have the rest."""
    return {name: str(count) for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")}
