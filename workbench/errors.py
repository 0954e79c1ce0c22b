"""Every error that a user may meet, as one tree with the exit code of each branch.

    WorkbenchError
    ├── InputError          2   something the user gave is wrong
    │   ├── RecipeError         unknown recipe, step order, option or value
    │   ├── ModelError          model file, factory or weights
    │   ├── DatasetError        dataset file, samples or labels
    │   └── ProfileError        device profile
    ├── StepError           3   a step, or the report of a run, failed
    │   └── DiskFullError       what follows would fail too
    ├── DependencyError     4   a package or tool is missing
    ├── DeviceError         5   a device did not do what it should
    │   └── CrashError      a process of ours died: a crash in a runtime or converter
    └── RegressionError     6   a figure got worse than allowed

A message says what happened, why, and what to do next, in that order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WorkbenchError(Exception):
    """An error with a message for the user: `what` happened, `why`, and how to `fix` it."""

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"why: {self.why}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n  ".join(parts)


class InputError(WorkbenchError):
    """Something that the user gave is wrong."""

    exit_code = 2


class RecipeError(InputError):
    """A recipe's file, the order of its steps, an option or its value."""


class ModelError(InputError):
    """A model file, a factory or weights."""


class DatasetError(InputError):
    """A dataset's file, its samples or labels."""


class ProfileError(InputError):
    """A device profile."""


class StepError(WorkbenchError):
    """A step, or the report of a run, failed."""

    exit_code = 3


class DiskFullError(StepError):
    """There is no room left: what follows would fail too."""


class DependencyError(WorkbenchError):
    """A package or tool is missing, or of a version that does not do."""

    exit_code = 4


class DeviceError(WorkbenchError):
    """A device, or a runtime on it, did not do what it should."""

    exit_code = 5


class CrashError(DeviceError):
    """A worker process died: a runtime or converter crashed."""


class RegressionError(WorkbenchError):
    """A figure got worse than allowed."""

    exit_code = 6


_BY_NAME: dict[str, type[WorkbenchError]] = {
    kind.__name__: kind
    for kind in (
        WorkbenchError, InputError, RecipeError, ModelError, DatasetError, ProfileError, StepError,
        DiskFullError, DependencyError, DeviceError, CrashError, RegressionError,
    )
}  # fmt: skip


def pack(error: WorkbenchError) -> tuple[str, str, str, str]:
    """The error as plain values, to cross a process boundary."""
    return type(error).__name__, error.what, error.why, error.fix


def unpack(packed: tuple[str, str, str, str]) -> WorkbenchError:
    """The error that `pack` made plain."""
    name, what, why, fix = packed
    return _BY_NAME.get(name, WorkbenchError)(what, why, fix)


def shown(value: object) -> str:
    """A value of the user's for a message: short, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # thousands of digits, or of levels
        return f"this {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}…"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, which in converters may go on for a page; '' of none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`did you mean 'x'? ` where a known word is near, and all the known ones."""
    words = sorted(candidates)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    listing = f"known: {', '.join(words)}" if words else "there are none"
    return f"did you mean '{near[0]}'? ({listing})" if near else listing
