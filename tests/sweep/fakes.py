"""A sweep without models: an executor that answers at once, and reports of made-up figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.run.run_options import RunOptions
from workbench.sweep.goals import Goal, Limit
from workbench.sweep.space import Dimension
from workbench.sweep.spec import Spec, SweepRecord, own_storage

RUN = RunOptions(recipe="mobile-int8", preset="none")
SPACE = (
    Dimension(name="quantize.preset", values=("fast", "balanced", "best")),
    Dimension(name="quantize.samples", values=("8", "16")),
)


def spec(**changes: Any) -> Spec:
    known: dict[str, Any] = {
        "run": RUN, "space": SPACE, "goals": (Goal("size"), Goal("drop")), "limits": (),
        "row": "ort.to_ort", "search": "grid", "trials": 6,
    }  # fmt: skip
    return Spec(**{**known, **changes})


def record(folder: Any, one: Spec | None = None) -> SweepRecord:
    one = one or spec()
    return SweepRecord(folder=folder, spec=one, storage=own_storage(folder), study="study")


def limit(kind: str, high: float) -> Limit:
    return Limit(kind, "", high)


def report(size: float, drop: float, row: str = "ort.to_ort") -> dict[str, Any]:
    figures = {
        "bytes": size * 1e6, "load_ms": 1.0, "peak_bytes": 1, "median": None, "agreement": 99.0,
        "delta": {"value": -drop, "low": -drop - 0.1, "high": -drop + 0.1},
    }  # fmt: skip
    return {
        "device": "cpu", "error": None, "devices": [],
        "rows": [{"key": row, "error": None, "figures": figures}],
    }  # fmt: skip


class Fake:
    """Answers each job by a function of its settings; `answer` may give an exception."""

    apart = False

    def __init__(
        self, answer: Callable[[dict[str, str]], Any], jobs: int = 2, finishes: bool = True
    ) -> None:
        self.answer, self.jobs, self.finishes = answer, jobs, finishes
        self.begun: list[tuple[int, str, tuple[str, ...]]] = []
        self.open: list[tuple[int, Any]] = []

    def submit(self, number: int, job: str, *arguments: Any) -> None:
        settings = arguments[1]
        self.begun.append((number, job, settings))
        self.open.append((number, self.answer(dict(one.split("=") for one in settings))))

    def wait(self) -> list[tuple[int, Any]]:
        assert self.open, "nothing was begun, and it would wait for ever"
        return [self.open.pop(0)]

    def close(self) -> None:
        pass
