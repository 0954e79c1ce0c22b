"""The result of a sweep: its trials, and how they stand to the front."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.intervals import Estimate
from workbench.notebook import data_frame, html_lines, html_table
from workbench.report import words
from workbench.sweep.front import rank
from workbench.sweep.goals import Goal
from workbench.sweep.spec import Spec, SweepRecord, read
from workbench.sweep.study import Trial, trials_of

ORDER = {"front": 0, "near": 1, "dominated": 2, "over": 3, "failed": 4, "running": 5}
SAID = {
    "front": "front", "near": "within noise of it", "dominated": "dominated",
    "over": "beyond a limit", "failed": "failed", "running": "not finished",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A trial, and how it stands to the front.

    Attributes:
        state: see `front.State`, or `failed`, `running`.
        knee: whether it is the front's knee.
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
        """What the sweep makes small."""
        return self.record.spec.goals

    @cached_property
    def shown(self) -> tuple[Goal, ...]:
        """The goals, what is limited, and size and drop where they are known."""
        names = {name for trial in self.trials for name in trial.figures}
        extra = [goal for goal in (Goal("size"), Goal("drop")) if goal.name in names]
        limited = [limit.goal for limit in self.record.spec.limits]
        return tuple(dict.fromkeys([*self.goals, *limited, *extra]))

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """The front first, by its first goal; then the rest."""
        done: dict[tuple[str, ...], list[Trial]] = {}
        for trial in self.trials:
            if trial.state == "done":
                done.setdefault(trial.settings, []).append(trial)
        first = [same[0] for same in done.values()]
        ranking = rank(
            [[trial.figures[goal.name] for goal in self.goals] for trial in first],
            [trial.holds for trial in first],
        )
        points = [
            Point(trial, ranking.states[number], number == ranking.knee,
                  tuple(other.number for other in done[trial.settings][1:]))
            for number, trial in enumerate(first)
        ]  # fmt: skip
        points += [
            Point(trial, trial.state, False) for trial in self.trials if trial.state != "done"
        ]

        def order(point: Point) -> Any:
            figure = point.trial.figures.get(self.goals[0].name)
            return ORDER[point.state], figure.value if figure else 0.0, point.trial.number

        return tuple(sorted(points, key=order))

    @property
    def front(self) -> list[Point]:
        """The points that none is better than."""
        return [point for point in self.points if point.state == "front"]

    def headings(self) -> list[str]:
        """The columns of the table: the trial, its figures and its options."""
        varied = [dimension.name for dimension in self.record.spec.space]
        return ["trial", "state", *(goal.axis for goal in self.shown), *varied]

    def cells(self, point: Point) -> list[str]:
        """A point's line, intervals beside the values that have one."""
        trial = point.trial
        state = SAID[point.state] + (", knee" if point.knee else "")
        values = dict(text.split("=", 1) for text in trial.settings)
        varied = [values.get(dimension.name, words.NOTHING) for dimension in self.record.spec.space]
        figures = [format_figure(goal, trial.figures.get(goal.name)) for goal in self.shown]
        return [str(trial.number), state, *figures, *varied]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row for each trial: its options, figures and state.

        Raises DependencyError where pandas is not installed.
        """
        return data_frame(
            [
                {
                    "trial": point.trial.number,
                    "state": point.state,
                    "knee": point.knee,
                    **dict(text.split("=", 1) for text in point.trial.settings),
                    **{goal.name: point.trial.figures.get(goal.name) for goal in self.shown},
                    "seconds": point.trial.seconds,
                    "error": point.trial.error,
                    "folder": str(self.record.trial(point.trial.number)),
                }
                for point in self.points
            ]
        )

    def _repr_html_(self) -> str:
        """What a notebook's cell shows."""
        rows = [self.cells(point) for point in self.points]
        return html_table(self.headings(), rows) + html_lines(summary(self))

    def to_json(self) -> dict[str, Any]:
        """The content of `front.json`."""
        spec = self.record.spec
        return {
            "folder": str(self.record.folder),
            "sweep": spec.to_json(),
            "storage": {"study": self.record.study},
            "knee": next((point.trial.number for point in self.points if point.knee), None),
            "points": [
                {
                    "trial": point.trial.number,
                    "state": point.state,
                    "knee": point.knee,
                    "same": list(point.same),
                    "settings": list(point.trial.settings),
                    "figures": {key: f.to_json() for key, f in point.trial.figures.items()},
                    "over": list(point.trial.over),
                    "error": point.trial.error,
                    "seconds": point.trial.seconds,
                    "folder": str(self.record.trial(point.trial.number)),
                }
                for point in self.points
            ],
        }


def format_figure(goal: Goal, estimate: Estimate | None) -> str:
    """A figure in its goal's unit: milliseconds to three digits, points to two decimals."""
    if estimate is None:
        return words.NOTHING
    text = {
        "points": f"{estimate.value:.2f}", "MB": f"{estimate.value:.4g}",
        "ms": words.milliseconds(estimate.value),
    }[goal.unit]  # fmt: skip
    if estimate.low == estimate.high:
        return text
    places = len(text.partition(".")[2])
    return f"{text} {words.interval(estimate, places)}"


def summary(result: Result) -> list[str]:
    """What the sweep came to, in sentences."""
    points = result.points
    counts = {state: sum(point.state == state for point in points) for state in ORDER}
    goals = " and ".join(goal.name for goal in result.goals)
    repeated = sum(len(point.same) for point in points)
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
    knee = next((point for point in points if point.knee), None)
    if knee is not None and counts["front"] > 2:
        lines.append(f"knee: trial {knee.trial.number}, {' '.join(knee.trial.settings)}")
    elif not counts["front"]:
        lines.append("no trial holds the limits: the nearest are listed")
    return lines


def load_result(record: SweepRecord) -> Result:
    """The sweep's trials as its storage has them now. Raises InputError where it has none."""
    return Result(record, tuple(trials_of(record.storage, record.study)))


def settings_of_trial(point: str) -> tuple[Spec, tuple[str, ...]]:
    """The sweep and the settings of `RUN:TRIAL`. Raises InputError where there is none such."""
    folder, colon, number = point.rpartition(":")
    if not colon or not number.isdecimal():
        raise InputError(
            f"--from does not understand '{point}'", "", "write RUN:TRIAL, as 'wb front RUN' lists"
        )
    record = read(Path(folder))
    trials = {trial.number: trial for trial in trials_of(record.storage, record.study)}
    if int(number) not in trials or not trials[int(number)].settings:
        numbers = ", ".join(str(trial) for trial in trials)
        raise InputError(f"{folder} has no trial {number}", "", f"it has {numbers or 'none yet'}")
    return record.spec, trials[int(number)].settings
