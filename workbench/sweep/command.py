"""`wb sweep` and `wb front`: a sweep from the command's words, and its result."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import InputError, did_you_mean
from workbench.run.run_options import RunOptions
from workbench.sweep import goals, space
from workbench.sweep.front_files import write_front
from workbench.sweep.local_executor import Executor, Local, trials_side_by_side
from workbench.sweep.loop import hold_folder, prepare_sweep, run_trials
from workbench.sweep.result import Result, format_figure, load_result, settings_of_trial
from workbench.sweep.spec import Spec, SweepRecord, own_storage, read, row_of

if TYPE_CHECKING:
    from workbench.display import Display
    from workbench.sweep.study import Trial

SEARCHES = ("grid", "random", "nsga2", "tpe")
TRIALS = 40  # where the space has no end and none are asked for
GENERATIONS = 200  # trials from which a genetic search has some


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What a sweep is asked for beside its run, in the words of `wb sweep`.

    Attributes:
        vary: STEP.OPTION=VALUES of each option that is varied: a list A,B,C, a range LOW:HIGH,
            LOW:HIGH:STEP or LOW:HIGH:log, or all that it takes where there are no values.
        minimise: goals, with commas between: size, latency, drop, load, memory; latency@DEVICE.
        max_drop: points of accuracy that a trial may lose.
        max_size: of the file: 500kB, 1.5MB.
        max_latency: DEVICE=MS of each device, of the median.
        branch: the branch whose last file is the point; the recipe's first where there is none.
        search: grid, random, nsga2 or tpe; grid where it fits `trials`, where there is none.
        trials: how many; 40, or all of a grid, where there is none.
        seed: of the search.
    """

    vary: tuple[str, ...]
    minimise: str = "size,latency"
    max_drop: float | None = None
    max_size: str | None = None
    max_latency: tuple[str, ...] = ()
    branch: str | None = None
    search: str | None = None
    trials: int | None = None
    seed: int = 0


def specify_sweep(run: RunOptions, sweep: SweepOptions) -> Spec:
    """The sweep that the options say, checked as far as words can be. Raises InputError."""
    request, plan = run.resolve()
    search, trials = sweep.search, sweep.trials
    dimensions = space.parse(sweep.vary, request.recipe)
    devices = [device.name for device in plan.devices]
    timed = run.preset != "none"
    if search is not None and search not in SEARCHES:
        raise InputError(f"--search does not know '{search}'", "", did_you_mean(search, SEARCHES))
    if trials is not None and trials < 1:
        raise InputError(f"--trials cannot be {trials}", "", "give 1 or more")
    points = 1.0
    for dimension in dimensions:
        points *= dimension.count
    count = trials if trials is not None else int(min(points, TRIALS))
    search = search or ("grid" if points <= count else "tpe" if count < GENERATIONS else "nsga2")
    if search == "grid":
        for dimension in dimensions:
            _ = dimension.grid  # a range without steps is said here
        count = int(min(points, count)) if trials is not None else int(points)
    return Spec(
        run=run,
        space=dimensions,
        goals=goals.parse_goals(sweep.minimise, devices, timed),
        limits=goals.parse_limits(
            sweep.max_drop, sweep.max_size, sweep.max_latency, devices, timed
        ),
        row=row_of(request.recipe, sweep.branch),
        search=search,
        trials=count,
        seed=sweep.seed,
    )


def run_sweep(
    spec: Spec,
    *,
    out: Path | None,
    storage: str | None,
    resume: bool,
    jobs: int | None,
    on: str | None,
    display: Display,
) -> Result:
    """Run a sweep, and write its front. Raises InputError before any work where words are wrong."""
    folder = out.expanduser() if out is not None else Path("runs") / spec.name
    record = SweepRecord(
        folder=folder, spec=spec, storage=storage or own_storage(folder), study=spec.name
    )
    if resume and out is None and not folder.is_dir():
        raise InputError(
            f"there is no sweep to go on with in {folder}",
            "its folder is named after its options, and none has these",
            "repeat the command that began it with --resume, or leave --resume out",
        )
    say = _sayer(display)
    executor = _executor(jobs, on, say)
    with closing(executor):
        study = prepare_sweep(record, resume=resume)
        with hold_folder(record):
            say(f"{spec.trials} trials, {spec.search}, {executor.jobs} side by side: {folder}")
            run_trials(record, study, executor, _teller(record, display, say), say)
            result = load_result(record)
            write_front(result, folder)
    display.done("sweep")
    return result


def _executor(jobs: int | None, on: str | None, say: Callable[[str], None]) -> Executor:
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs cannot be {jobs}", "", "give 1 or more")
    if on is None:
        return Local(jobs or trials_side_by_side(), say)
    if on != "ray" and not on.startswith("ray://"):
        raise InputError(f"--on does not know '{on}'", "", "write --on ray or --on ray://HOST:PORT")
    from workbench.sweep.ray_cluster import Cluster

    return Cluster(on, jobs, say)


def _sayer(display: Display) -> Callable[[str], None]:
    """Lines above the live display, or on stderr where there is none."""

    def say(text: str) -> None:
        display.message(text)
        if not sys.stderr.isatty():
            print(text, file=sys.stderr, flush=True)

    return say


def _teller(
    record: SweepRecord, display: Display, say: Callable[[str], None]
) -> Callable[[Trial], None]:
    ended = [0]
    display.plan({"sweep": 60.0 * record.spec.trials})
    display.update("sweep", 0.0)

    def report_trial(trial: Trial) -> None:
        ended[0] += 1
        if trial.state == "done":
            outcome = ", ".join(
                f"{goal.name} {format_figure(goal, trial.figures[goal.name])}"
                for goal in record.spec.goals
            )
            outcome += "" if trial.holds else ", beyond a limit"
        else:
            outcome = f"failed: {trial.error.splitlines()[0]}"
        say(f"trial {trial.number}: {outcome}  ({' '.join(trial.settings)})")
        display.update(
            "sweep", min(1.0, ended[0] / record.spec.trials), f"{ended[0]} of {record.spec.trials}"
        )

    return report_trial


def rank_again(folder: Path, out: Path | None, minimise: str | None = None) -> Result:
    """A sweep's result as far as it went; its files written anew.

    minimise: other goals than the sweep's, of what its trials know. Raises InputError.
    """
    record = read(folder)
    if minimise is not None:
        _, plan = record.spec.request(())
        devices = [device.name for device in plan.devices]
        other_goals = goals.parse_goals(minimise, devices, record.spec.timed)
        record = replace(record, spec=replace(record.spec, goals=other_goals))
    result = load_result(record)
    names = {name for trial in result.trials for name in trial.figures}
    unknown = [goal.name for goal in result.goals if names and goal.name not in names]
    if unknown:
        raise InputError(
            f"the trials of {folder} do not know {', '.join(unknown)}",
            f"they know {', '.join(sorted(names))}",
            "sweep with it as a goal",
        )
    write_front(result, out or folder)
    return result


def repeat_trial(point: str, run: RunOptions) -> RunOptions:
    """The run of `wb recipe NAME --from RUN:TRIAL`: the sweep's options where `run` has none.

    Settings of `run` come last, and how long is measured is its own. Raises InputError where the
    point is of another recipe.
    """
    from workbench import recipe as recipes

    spec, settings = settings_of_trial(point)
    swept = spec.run
    recipe, asked = recipes.load(swept.recipe), recipes.load(run.recipe)
    if recipe.name != asked.name:
        raise InputError(
            f"{point} is of recipe {recipe.name}, not of {asked.name}",
            "",
            f"wb recipe {recipe.name} --from {point}",
        )
    if run.model:  # another model: its weights and data are its own too
        swept = replace(swept, weights=None, sha256=None)
    return replace(
        run,
        model=run.model or swept.model,
        weights=run.weights or swept.weights,
        task=run.task or swept.task,
        sha256=run.sha256 or swept.sha256,
        seed=run.seed or swept.seed,
        data=run.data or swept.data,
        inputs=run.inputs or swept.inputs,
        settings=(*swept.settings, *settings, *run.settings),
        devices=run.devices or swept.devices,
        samples=run.samples or swept.samples,
    )
