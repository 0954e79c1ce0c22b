"""What a sweep found: its trials with their place to the front; as a table, CSV, JSON, Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.cache import write_json
from workbench.intervals import Estimate
from workbench.report import words
from workbench.sweep.front import Ranked, ranked
from workbench.sweep.goals import Goal
from workbench.sweep.spec import SweepRecord
from workbench.sweep.study import Trial, trials_of

ORDER = {"front": 0, "near": 1, "dominated": 2, "over": 3, "failed": 4, "running": 5}
SAID = {
    "front": "front", "near": "within noise of it", "dominated": "dominated",
    "over": "beyond a limit", "failed": "failed", "running": "not finished",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A trial, its state (see `front.State`, or `failed`, `running`), and whether it is the knee.

    same: numbers of later trials with the same settings.
    """

    trial: Trial
    state: str
    knee: bool
    same: tuple[int, ...] = ()


@dataclass(frozen=True)
class Result:
    """A sweep's record and trials."""

    record: SweepRecord
    trials: tuple[Trial, ...]

    @property
    def goals(self) -> tuple[Goal, ...]:
        return self.record.spec.goals

    @cached_property
    def shown(self) -> tuple[Goal, ...]:
        """The goals, what is limited, and size and drop where they are known."""
        known = {name for trial in self.trials for name in trial.figures}
        wanted = [*self.goals, *(one.goal for one in self.record.spec.limits)]
        extra = [Goal("size"), Goal("drop")]
        found = dict.fromkeys([*wanted, *(one for one in extra if one.name in known)])
        return tuple(found)

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The front first, by its first goal; then the rest."""
        done: dict[tuple[str, ...], list[Trial]] = {}
        for trial in self.trials:
            if trial.state == "done":
                done.setdefault(trial.settings, []).append(trial)
        first = [same[0] for same in done.values()]
        place: Ranked = ranked(
            [[one.figures[goal.name] for goal in self.goals] for one in first],
            [one.holds for one in first],
        )
        found = [
            Point(one, place.states[at], at == place.knee,
                  tuple(other.number for other in done[one.settings][1:]))
            for at, one in enumerate(first)
        ]  # fmt: skip
        found += [Point(one, one.state, False) for one in self.trials if one.state != "done"]

        def order(point: Point) -> Any:
            figure = point.trial.figures.get(self.goals[0].name)
            return ORDER[point.state], figure.value if figure else 0.0, point.trial.number

        return tuple(sorted(found, key=order))

    @property
    def front(self) -> list[Point]:
        return [one for one in self.points if one.state == "front"]

    def headings(self) -> list[str]:
        varied = [one.name for one in self.record.spec.space]
        return ["trial", "state", *(goal.axis for goal in self.shown), *varied]

    def cells(self, point: Point) -> list[str]:
        """A point's line, intervals beside the values that have one."""
        trial = point.trial
        state = SAID[point.state] + (", knee" if point.knee else "")
        values = dict(text.split("=", 1) for text in trial.settings)
        varied = [values.get(one.name, words.NOTHING) for one in self.record.spec.space]
        figures = [figure(goal, trial.figures.get(goal.name)) for goal in self.shown]
        return [str(trial.number), state, *figures, *varied]

    def to_json(self) -> dict[str, Any]:
        spec = self.record.spec
        return {
            "folder": str(self.record.folder),
            "sweep": spec.to_json(),
            "storage": {"study": self.record.study},
            "knee": next((one.trial.number for one in self.points if one.knee), None),
            "points": [
                {
                    "trial": one.trial.number,
                    "state": one.state,
                    "knee": one.knee,
                    "same": list(one.same),
                    "settings": list(one.trial.settings),
                    "figures": {key: f.to_json() for key, f in one.trial.figures.items()},
                    "over": list(one.trial.over),
                    "error": one.trial.error,
                    "seconds": one.trial.seconds,
                    "folder": str(self.record.trial(one.trial.number)),
                }
                for one in self.points
            ],
        }


def figure(goal: Goal, found: Estimate | None) -> str:
    """A figure in its goal's unit: milliseconds to three digits, points to two decimals."""
    if found is None:
        return words.NOTHING
    text = {
        "points": f"{found.value:.2f}", "MB": f"{found.value:.4g}",
        "ms": words.milliseconds(found.value),
    }[goal.unit]  # fmt: skip
    if found.low == found.high:
        return text
    places = len(text.partition(".")[2])
    return f"{text} {words.interval(found, places)}"


def summary(result: Result) -> list[str]:
    """What the sweep came to, in sentences."""
    points = result.points
    counts = {state: sum(one.state == state for one in points) for state in ORDER}
    goals = " and ".join(goal.name for goal in result.goals)
    repeated = sum(len(one.same) for one in points)
    lines = [
        f"{len(result.trials)} trials of {Path(result.record.spec.run.recipe).stem}, "
        f"{result.record.spec.search}: {counts['front']} on the front of {goals}"
        + (f", {counts['near']} within noise of it" if counts["near"] else "")
        + (f", {counts['over']} beyond a limit" if counts["over"] else "")
        + (f", {counts['failed']} failed" if counts["failed"] else "")
        + (f", {repeated} repeated another's settings" if repeated else "")
    ]
    for limit in result.record.spec.limits:
        lines.append(f"limit: {limit.goal.axis} at most {limit.high:g}")
    knee = next((one for one in points if one.knee), None)
    if knee is not None and counts["front"] > 2:
        lines.append(f"knee: trial {knee.trial.number}, {' '.join(knee.trial.settings)}")
    elif not counts["front"]:
        lines.append("no trial holds the limits: the nearest are listed")
    return lines


def loaded(record: SweepRecord) -> Result:
    return Result(record, tuple(trials_of(record.storage, record.study)))


def as_csv(result: Result) -> str:
    """A line a trial: values and both ends of their intervals in columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    varied = [one.name for one in result.record.spec.space]
    ends = [f"{goal.name}{end}" for goal in result.shown for end in ("", "_low", "_high")]
    writer.writerow(["trial", "state", "knee", *varied, *ends, "seconds", "error"])
    for point in result.points:
        trial = point.trial
        values = dict(text.split("=", 1) for text in trial.settings)
        figures: list[Any] = []
        for goal in result.shown:
            found = trial.figures.get(goal.name)
            figures += ["", "", ""] if found is None else [found.value, found.low, found.high]
        writer.writerow(
            [trial.number, point.state, int(point.knee), *(values.get(n, "") for n in varied),
             *figures, trial.seconds, trial.error.replace("\n", " ")]
        )  # fmt: skip
    return out.getvalue()


def as_markdown(result: Result) -> str:
    lines = [f"# {result.record.folder.name}", ""]
    lines += [f"- {line}" for line in summary(result)]
    lines += ["", "![the front](front.svg)", ""]
    lines += _rows([result.headings(), *(result.cells(one) for one in result.points)])
    failed = [one.trial for one in result.points if one.state == "failed"]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- trial {one.number}: {one.error.replace(chr(10), ' ')}" for one in failed]
    return "\n".join(lines) + "\n"


def _rows(cells: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def write(result: Result, folder: Path) -> None:
    """`front.csv`, `.json`, `.md`, `.svg` and `.html`."""
    from workbench.sweep import page, plot

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "front.csv": as_csv(result),
        "front.md": as_markdown(result),
        "front.html": page.render(result),
        "front.svg": plot.picture(result),
    }
    for name, text in texts.items():
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
    write_json(folder / "front.json", result.to_json())
