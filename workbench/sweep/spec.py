"""What a sweep is: its run's words, its space and its goals; kept as JSON beside its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cache import read_json, write_json
from workbench.codec import from_plain, to_plain
from workbench.errors import InputError, did_you_mean
from workbench.run.run_options import STANDARD, RunOptions
from workbench.sweep.goals import Goal, Limit
from workbench.sweep.space import Dimension

if TYPE_CHECKING:
    from workbench.engine.request import Request
    from workbench.measure.plan import MeasurePlan
    from workbench.recipe import Recipe

FILE = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One sweep, as plain values.

    Attributes:
        run: what every trial is a run of, before the point's settings.
        row: the step whose file is a trial's point.
        search: grid, random, nsga2 or tpe.
        trials: how many.
        seed: of the search.
    """

    run: RunOptions
    space: tuple[Dimension, ...]
    goals: tuple[Goal, ...]
    limits: tuple[Limit, ...]
    row: str
    search: str
    trials: int
    seed: int = 0

    @property
    def timed(self) -> bool:
        """Whether trials are measured, not only made and scored."""
        return self.run.preset != "none"

    @property
    def name(self) -> str:
        """Of the sweep's folder and study: the same for the same sweep, whatever its size."""
        request, _ = self.request(())
        plain = {**self.to_json(), "trials": 0}
        text = json.dumps(plain, sort_keys=True)
        short = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"sweep-{request.recipe.name}-{request.source.name}-{short}"

    def request(self, settings: tuple[str, ...]) -> tuple[Request, MeasurePlan]:
        """The run of a point, whose settings come after the sweep's own. Raises InputError."""
        run = replace(self.run, settings=(*self.run.settings, *settings))
        request, plan = run.resolve()
        # What no goal asks for is not timed: that would be most of a trial.
        return request, replace(plan, only=(self.row,))

    def to_json(self) -> dict[str, Any]:
        """The content of `sweep.json`, in which the run stands as the words of its command."""
        plain = to_plain(self)
        del plain["run"]
        return {"words": _stored_options(self.run), **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """A spec from what `to_json` gave. Raises KeyError or ValueError for other data."""
        plain = {key: value for key, value in data.items() if key != "words"}
        return from_plain({**plain, "run": to_plain(_read_options(data["words"]))}, cls)


# The form of sweep.json, which is kept: a preset is one flag of three, paths are text.
PRESET_FLAGS = ("quick", "strict", "none")


def _stored_options(run: RunOptions) -> dict[str, Any]:
    return {
        "name": run.recipe,
        "model": run.model,
        "weights": str(run.weights) if run.weights else None,
        "data": run.data,
        "settings": list(run.settings),
        "inputs": list(run.inputs),
        "devices": list(run.devices),
        "sha256": run.sha256,
        "seed": run.seed,
        "presets": {name: run.preset == name for name in PRESET_FLAGS},
        "task": run.task,
        "samples": run.samples,
    }


def _read_options(stored: Mapping[str, Any]) -> RunOptions:
    weights = stored["weights"]
    return RunOptions(
        recipe=stored["name"],
        model=stored["model"],
        weights=Path(weights) if weights else None,
        data=stored["data"],
        settings=tuple(stored["settings"]),
        inputs=tuple(stored["inputs"]),
        devices=tuple(stored["devices"]),
        sha256=stored["sha256"],
        seed=stored["seed"],
        preset=next((name for name, flag in stored["presets"].items() if flag), STANDARD),
        task=stored.get("task", ""),
        samples=stored.get("samples", 64),
    )


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep's folder: what it is, and where its trials are kept.

    Attributes:
        storage: the URL of Optuna's storage.
        study: the name of the sweep there.
    """

    folder: Path
    spec: Spec
    storage: str
    study: str

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / "trials" / f"{number:04}"

    def write(self) -> None:
        """Write `sweep.json`, for its owner alone where a server's URL stands in it."""
        own = self.storage == own_storage(self.folder)
        storage = "" if own else self.storage  # a folder may be moved
        data = {"spec": self.spec.to_json(), "storage": storage, "study": self.study}
        # The URL of a server may hold its password.
        write_json(self.folder / FILE, data, 0o644 if own else 0o600)


def own_storage(folder: Path) -> str:
    """The storage that a folder has where none was named: SQLite in a file of it."""
    return f"sqlite:///{folder.resolve() / 'study.db'}"


def read(folder: Path) -> SweepRecord:
    """A sweep's record. Raises InputError where a folder has none."""
    data = read_json(folder / FILE)
    if not isinstance(data, dict) or "spec" not in data:
        what = "there is no folder" if not folder.exists() else "no sweep is in"
        raise InputError(f"{what} {folder}", "", "give the folder that 'wb sweep' printed")
    return SweepRecord(
        folder=folder,
        spec=Spec.from_json(data["spec"]),
        storage=data["storage"] or own_storage(folder),
        study=data["study"],
    )


def row_of(recipe: Recipe, branch: str | None) -> str:
    """The step whose file is a trial's point: a branch's last, the first branch's without a name.

    Raises InputError for a branch that the recipe does not have.
    """
    ends = {path[-1].branch: path[-1].id for path in recipe.paths()[len(recipe.original) > 0 :]}
    if branch is None:
        return next(iter(ends.values()))
    if branch not in ends:
        raise InputError(
            f"recipe {recipe.name} has no branch '{branch}'", "", did_you_mean(branch, ends)
        )
    return ends[branch]
