"""The trials of a sweep in Optuna's storage: asked for, told, and still there after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.errors import (
    DependencyError,
    DiskFullError,
    InputError,
    StepError,
    WorkbenchError,
    first_line,
)
from workbench.intervals import Estimate
from workbench.sweep.space import combinations
from workbench.sweep.spec import Spec

if TYPE_CHECKING:
    import optuna

    from workbench.sweep.space import Dimension

# What a trial keeps beside its values, in Optuna's words user attributes: its options, and all that
# is told of it, in one: each is written to the disk apart.
SETTINGS, FACTS = "settings", "told"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the space.

    Attributes:
        number: from 0, in the order in which they were asked for.
        state: done, failed or running.
        settings: as --set takes them.
        figures: by the names of goals and limits, and of what else is of interest.
        over: how far each limit is exceeded, 0 or below where it holds.
        error: what a failed one ended with.
        seconds: of its making and measuring.
    """

    number: int
    state: str
    settings: tuple[str, ...] = ()
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    over: tuple[float, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every limit holds."""
        return all(excess <= 0 for excess in self.over)


class Study:
    """A sweep's trials. Not safe for threads; one process at a time may ask and tell."""

    def __init__(self, spec: Spec, storage: str, name: str) -> None:
        self.spec = spec
        with _storage_errors(storage):
            import optuna

            optuna.logging.set_verbosity(optuna.logging.WARNING)
            sampler = _sampler(spec, 0)
            self.study = optuna.create_study(
                storage=_storage(storage),
                sampler=sampler,
                study_name=name,
                directions=["minimize"] * len(spec.goals),
                load_if_exists=True,
            )
            begun = self.study.get_trials(deepcopy=False)
            # A second process that began with the first one's seed would draw its points again.
            self.study.sampler = _sampler(spec, len(begun))
        self.storage = storage
        self.open: dict[int, Any] = {}

    def trials(self) -> list[Trial]:
        """All trials, in the order in which they were asked for."""
        with _storage_errors(self.storage):
            return [_trial(trial) for trial in self.study.get_trials(deepcopy=False)]

    def unfinished(self) -> Iterator[Trial]:
        """Trials that a process began and did not finish: they are to be run, as the same ones."""
        import optuna

        with _storage_errors(self.storage):
            for frozen in self.study.get_trials(deepcopy=False):
                if not frozen.state.is_finished():
                    trial = optuna.trial.Trial(self.study, frozen._trial_id)
                    yield self._begin(trial)

    def ask(self) -> Trial:
        """The next point."""
        with _storage_errors(self.storage):
            return self._begin(self.study.ask())

    def _begin(self, trial: Any) -> Trial:
        grid = self.spec.search == "grid"
        settings = tuple(
            f"{dimension.name}={dimension.text(_draw(trial, dimension, grid))}"
            for dimension in self.spec.space
        )
        trial.set_user_attr(SETTINGS, list(settings))
        self.open[trial.number] = trial
        return Trial(number=trial.number, state="running", settings=settings)

    def tell(self, number: int, report: Mapping[str, Any], seconds: float) -> Trial:
        """Keep what a trial's report says. One without a figure asked for has failed."""
        spec = self.spec
        try:
            figures = {goal.name: goal.of(report, spec.row) for goal in spec.goals}
            limited = [(limit, limit.goal.of(report, spec.row)) for limit in spec.limits]
            # Of interest beside what was asked, where it is there.
            shown = _beside(report, spec)
        except WorkbenchError as error:
            return self.fail(number, error, seconds)
        over = [limit.over(figure.value) for limit, figure in limited]
        figures |= {limit.goal.name: figure for limit, figure in limited}
        with _storage_errors(self.storage):
            trial = self.open.pop(number)
            plain = {name: figure.to_json() for name, figure in {**shown, **figures}.items()}
            facts = {"figures": plain, "over": over, "seconds": round(seconds, 2)}
            trial.set_user_attr(FACTS, facts)
            for limit, excess in zip(spec.limits, over, strict=True):
                if limit.goal.name not in trial.constraints:  # a killed process may have
                    trial.set_constraint(limit.goal.name, excess)
            self.study.tell(trial, [figures[goal.name].value for goal in spec.goals])
            return _trial(self.study.get_trials(deepcopy=False)[number])

    def fail(self, number: int, error: WorkbenchError, seconds: float) -> Trial:
        """Record a trial's error."""
        import optuna

        with _storage_errors(self.storage):
            trial = self.open.pop(number)
            trial.set_user_attr(FACTS, {"error": str(error), "seconds": round(seconds, 2)})
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return _trial(self.study.get_trials(deepcopy=False)[number])


def trials_of(storage: str, name: str) -> list[Trial]:
    """The trials of a study. Raises InputError where its storage does not answer."""
    with _storage_errors(storage):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError as error:
            raise InputError(
                f"the storage {_without_password(storage)} has no study {name}",
                "it was removed there, or the sweep ended before it began",
                "run the sweep again",
            ) from error
        return [_trial(trial) for trial in study.get_trials(deepcopy=False)]


def _beside(report: Mapping[str, Any], spec: Spec) -> dict[str, Estimate]:
    from workbench.sweep.goals import Goal

    figures = {}
    for goal in (Goal("size"), Goal("drop")):
        try:
            figures[goal.name] = goal.of(report, spec.row)
        except StepError:
            continue
    return figures


def _trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    facts = frozen.user_attrs.get(FACTS, {})
    state = "done" if frozen.state.name == "COMPLETE" else "failed"
    return Trial(
        number=frozen.number,
        state=state if frozen.state.is_finished() else "running",
        settings=tuple(frozen.user_attrs.get(SETTINGS, ())),
        figures={name: Estimate(**figure) for name, figure in facts.get("figures", {}).items()},
        over=tuple(facts.get("over", ())),
        error=facts.get("error", ""),
        seconds=facts.get("seconds", 0.0),
    )


def _sampler(spec: Spec, drawn: int) -> Any:
    from optuna.samplers import NSGAIISampler, RandomSampler, TPESampler

    seed = spec.seed + drawn
    if spec.search == "grid":
        return _grid(spec)
    if spec.search == "random":
        return RandomSampler(seed=seed)
    if spec.search == "nsga2":
        # A generation of 50, Optuna's own, would be all of a short sweep: drawn at random.
        size = max(4, min(50, spec.trials // 4))
        return NSGAIISampler(population_size=size, seed=seed)
    startup = max(4, min(10, spec.trials // 3))
    return TPESampler(n_startup_trials=startup, seed=seed, constant_liar=True)


def _grid(spec: Spec) -> Any:
    """Every point in order, by the trial's number: Optuna's own draws them at random, and ends a
    loop that is not its own.
    """
    from optuna.samplers import RandomSampler

    points = list(combinations(spec.space))

    class Grid(RandomSampler):
        def sample_independent(
            self, study: Any, trial: Any, param_name: str, param_distribution: Any
        ) -> str:
            number: int = trial.number
            return points[number % len(points)][param_name]

    return Grid()


def _draw(trial: optuna.Trial, dimension: Dimension, grid: bool) -> Any:
    """A value for a dimension; of a trial that has one in the storage already, that."""
    if dimension.values or grid:
        return trial.suggest_categorical(dimension.name, dimension.grid)
    if dimension.whole:
        step = int(dimension.step or 1)
        return trial.suggest_int(
            dimension.name, int(dimension.low), int(dimension.high), log=dimension.log, step=step
        )
    return trial.suggest_float(
        dimension.name, dimension.low, dimension.high, log=dimension.log, step=dimension.step
    )


def _storage(url: str) -> Any:
    from optuna.storages import RDBStorage

    if not url.startswith("sqlite"):
        return RDBStorage(url)
    from sqlalchemy import event

    # Another process may look at it, with the dashboard or `wb front`: wait for it.
    storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})

    @event.listens_for(storage.engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # A write-ahead log outlives a killed process without waiting for the disk at each commit
        # (https://sqlite.org/wal.html); a trial has six of them.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    storage.engine.dispose()  # what was opened before
    return storage


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """What a storage raises, as what a user can do about it."""
    try:
        yield
    except ImportError as error:
        raise DependencyError(
            f"the storage {_without_password(url)} needs a package that is missing",
            first_line(error),
            "pip install the database's driver"
            if "optuna" not in str(error)
            else "pip install optuna",
        ) from error
    except WorkbenchError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("sqlalchemy", "optuna")):
            raise
        reason = first_line(error.__cause__ or error)
        if "full" in reason:
            raise DiskFullError(
                f"the disk of {_without_password(url)} is full",
                reason,
                "free space, and run again with --resume",
            ) from error
        raise InputError(
            f"the storage {_without_password(url)} does not answer",
            reason,
            "check the URL and that its server runs; without --storage it is a file",
        ) from error


def _without_password(url: str) -> str:
    """A URL without its password."""
    scheme, divider, rest = url.partition("://")
    account, at, host = rest.rpartition("@")
    return f"{scheme}{divider}{account.partition(':')[0]}{at}{host}" if at else url
