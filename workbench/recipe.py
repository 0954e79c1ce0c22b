"""`Recipe`: a named tree of steps, a sequence that may end in named branches. Pure values.

A step is a frozen keyword-only dataclass that satisfies `Step`: its fields are its options, and
`run` reads its input and writes only under the folder it is given.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from workbench import library
from workbench.artifact import Artifact, Format
from workbench.errors import InputError, RecipeError, did_you_mean
from workbench.options import value_of
from workbench.progress import Progress, ignore_progress

if TYPE_CHECKING:
    from workbench.dataset import Dataset
    from workbench.device.profile import Device

ORIGINAL = "original"
BRANCH_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may use besides its input.

    `folder` is the one place it may write; `work` holds intermediates that other steps of the
    same input share (a SavedModel, say); `progress` takes a fraction and a short note.
    """

    folder: Path
    dataset: Dataset
    device: Device
    work: Path | None = None
    progress: Progress = ignore_progress
    seed: int = 0


class Step(Protocol):
    """All that a recipe, the engine, the commands and the report ask of a step.

    A step is a frozen keyword-only dataclass; its fields are its options. Those that derive from
    this class get the members with a default; a class that does not has them put on it where it
    first stands in a recipe.

    Attributes:
        name: in `--set name.option=value`, and in the ids of steps.
        takes: formats of what it may be given.
        gives: the format of its artifact.
        packages: distributions whose versions decide the result.
        seconds: that it may take, until it has been timed.
    """

    name: ClassVar[str]
    takes: ClassVar[tuple[Format, ...]]
    gives: ClassVar[Format]
    packages: ClassVar[tuple[str, ...]]
    seconds: ClassVar[float]
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    @abstractmethod
    def needs_data(self) -> bool:
        """Whether it cannot do without calibration samples."""
        ...

    @property
    def looks_at_data(self) -> bool:
        """Whether samples decide its result where there are any, and it does without elsewhere."""
        return False

    @property
    def samples(self) -> int | None:
        """How many calibration samples it asks for; None for as many as there are."""
        return None

    @property
    def times_device(self) -> bool:
        """Whether the device decides the result by its speed, not by its arithmetic alone."""
        return False

    @property
    def optimize(self) -> str:
        """`latency` where it times layers on this machine; '' where it optimizes nothing."""
        return ""

    @property
    def precision(self) -> str:
        """Of its artifact, such as `int8`; '' where it is as the step got it."""
        return ""

    @property
    def sources(self) -> tuple[Path, ...]:
        """Files of the user's own that decide the result, beside the options."""
        return ()

    @abstractmethod
    def run(self, subject: Any, context: Context) -> Artifact:
        """The step's artifact, written under `context.folder` alone. Raises StepError."""
        ...


DEFAULTS = ("looks_at_data", "samples", "times_device", "optimize", "precision", "sources")


@dataclass(frozen=True)
class Located:
    """A step with its place in the tree: `quantize` in branch `ort` has the id `ort.quantize`."""

    id: str
    name: str
    branch: str
    step: Step


@dataclass(frozen=True, init=False)
class Recipe:
    """A sequence of steps that may end in named branches.

    original: steps on the model as it was given, where the sequence changes it: what they make is
    the baseline that the rest is compared with. Raises RecipeError where a step cannot take what
    the one before it gives.
    """

    steps: tuple[Any, ...]
    branches: Mapping[str, tuple[Any, ...]]
    original: tuple[Any, ...]
    name: str = ""
    help: str = ""
    path: Path | None = field(default=None, compare=False)

    def __init__(
        self,
        *steps: Any,
        branches: Mapping[str, Sequence[Any]] | None = None,
        original: Sequence[Any] = (),
        name: str = "",
        help: str = "",
        path: Path | None = None,
    ) -> None:
        frozen = {key: tuple(value) for key, value in (branches or {}).items()}
        for key, value in {
            "steps": tuple(steps), "branches": frozen, "original": tuple(original),
            "name": name, "help": help, "path": path,
        }.items():  # fmt: skip
            object.__setattr__(self, key, value)
        self._check()

    def _check(self) -> None:
        if not self.steps:
            raise RecipeError("a recipe needs at least one step before its branches")
        for branch, steps in self.branches.items():
            if branch == ORIGINAL:
                raise RecipeError(
                    f"a branch cannot be called '{ORIGINAL}'",
                    "that is what Recipe(original=…) makes of the model as it was given",
                    "choose another name",
                )
            if not BRANCH_NAME.fullmatch(branch):
                raise RecipeError(
                    f"'{branch}' cannot name a branch",
                    "it becomes part of file names and of --set",
                    "use lower-case letters, digits, '-' and '_'",
                )
            if not steps:
                raise RecipeError(f"branch '{branch}' has no steps")
        for located in self.located():
            _check_step(located.step)
        for path in self.paths():
            for before, after in pairwise(path):
                if before.step.gives not in after.step.takes:
                    formats = " or ".join(after.step.takes)
                    raise RecipeError(
                        f"wrong order: {after.id} takes {formats}, "
                        f"but {before.id} gives {before.step.gives}",
                        "",
                        "reorder the steps in the recipe file; 'wb show' prints the plan",
                    )

    def located(self) -> list[Located]:
        """Every step with its place: those on the original, the trunk, the branches."""
        steps_in_order = [*_numbered(ORIGINAL, self.original), *_numbered("", self.steps)]
        for branch, steps in self.branches.items():
            steps_in_order += _numbered(branch, steps)
        return steps_in_order

    def paths(self) -> list[list[Located]]:
        """Every sequence from the first step to an end."""
        trunk = list(_numbered("", self.steps))
        ends = [list(_numbered(branch, steps)) for branch, steps in self.branches.items()]
        first = [list(_numbered(ORIGINAL, self.original))] if self.original else []
        return first + ([trunk + end for end in ends] or [trunk])

    def with_options(self, settings: Sequence[str]) -> Recipe:
        """The recipe with options replaced: `quantize.preset=fast`, `ort.quantize.samples=9`.

        A name without its branch means every step of that name, where all have one value for the
        option. Raises RecipeError, with the nearest name, for anything that is not there.
        """
        values: dict[str, dict[str, Any]] = {}
        for setting in settings:
            self._put(setting, values)
        located = {entry.id: entry.step for entry in self.located()}
        # All of a step's at once: one of them alone may be none that it takes.
        return self._replacing(
            {name: dataclasses.replace(located[name], **new) for name, new in values.items()}
        )

    def _put(self, setting: str, values: dict[str, dict[str, Any]]) -> None:
        """Add what a setting says to the new values, by step and option."""
        target, equals, text = setting.partition("=")
        path, dot, option = target.strip().rpartition(".")
        if not equals or not dot or not path or not option:
            raise RecipeError(
                f"--set does not understand '{setting}'", "", "write --set step.option=value"
            )
        located = self.located()
        matching = [entry for entry in located if path in (entry.id, entry.name)]
        exact = [entry for entry in matching if entry.id == path]
        if not matching:
            names = {entry.id for entry in located} | {entry.name for entry in located}
            raise RecipeError(
                f"no step '{path}' in recipe {self.name}", "", did_you_mean(path, names)
            )
        chosen = exact or matching
        present = [values.get(entry.id, {}).get(option, getattr(entry.step, option, None))
                 for entry in chosen]  # fmt: skip
        if len({repr(entry) for entry in present}) > 1:
            places = ", ".join(f"{entry.id}.{option}" for entry in chosen)
            raise RecipeError(
                f"'{path}' stands in more than one place, with different values of '{option}'",
                "",
                f"name the one you mean: {places}",
            )
        for entry in chosen:
            values.setdefault(entry.id, {})[option] = value_of(entry.step, option, text, entry.id)

    def _replacing(self, new: Mapping[str, Any]) -> Recipe:
        def swap(branch: str, steps: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(new.get(entry.id, entry.step) for entry in _numbered(branch, steps))

        return Recipe(
            *swap("", self.steps),
            branches={key: swap(key, value) for key, value in self.branches.items()},
            original=swap(ORIGINAL, self.original),
            name=self.name,
            help=self.help,
            path=self.path,
        )

    def to_json(self) -> dict[str, Any]:
        """The resolved recipe: a record of what ran, not a second input language."""

        def plain(steps: tuple[Any, ...]) -> list[dict[str, Any]]:
            return [{"step": step.name, **dataclasses.asdict(step)} for step in steps]

        return {
            "name": self.name,
            **({"original": plain(self.original)} if self.original else {}),
            "steps": plain(self.steps),
            "branches": {key: plain(value) for key, value in self.branches.items()},
        }


def _numbered(branch: str, steps: Sequence[Any]) -> Iterator[Located]:
    """Steps with their ids; a second step of the same name is `simplify-2`."""
    seen: dict[str, int] = {}
    for step in steps:
        base = str(getattr(step, "name", type(step).__name__))
        seen[base] = seen.get(base, 0) + 1
        name = base if seen[base] == 1 else f"{base}-{seen[base]}"
        yield Located(f"{branch}.{name}" if branch else name, name, branch, step)


def _check_step(step: Any) -> None:
    needed = ("name", "takes", "gives", "needs_data", "packages", "seconds", "run")
    missing = [name for name in needed if not hasattr(step, name)]
    if missing or isinstance(step, type) or not dataclasses.is_dataclass(step):
        raise RecipeError(
            f"{step!r} is not a step",
            f"it lacks {', '.join(missing)}" if missing else "a step is a dataclass instance",
            "CONTRIBUTING.md shows how a step is written",
        )
    for name in DEFAULTS:
        if not hasattr(step, name):
            setattr(type(step), name, vars(Step)[name])


def load(name: str) -> Recipe:
    """The recipe of that name or path. Its file is the user's own code, and is executed.

    Raises RecipeError for an unknown name, a file that fails, or one without `recipe`.
    """
    try:
        path = library.find("recipes", name)
    except InputError as error:
        raise RecipeError(error.what, error.why, error.fix) from error
    key = path.stem.replace("_", "-")
    spec = importlib.util.spec_from_file_location(f"workbench_recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except RecipeError as error:
        raise RecipeError(f"recipe {key}: {error.what}", error.why, error.fix) from error
    except (Exception, SystemExit) as error:
        raise RecipeError(
            f"recipe {key} cannot be loaded", f"{type(error).__name__}: {error}", f"mend {path}"
        ) from error
    defined = getattr(module, "recipe", None)
    if not isinstance(defined, Recipe):
        raise RecipeError(
            f"{path} defines no recipe", "", "it must assign a Recipe to the name 'recipe'"
        )
    return Recipe(
        *defined.steps,
        branches=defined.branches,
        original=defined.original,
        name=key,
        help=(module.__doc__ or "").strip(),
        path=path,
    )
