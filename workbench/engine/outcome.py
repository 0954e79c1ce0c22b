"""What running a recipe gave: every step's result, and which of them stand in the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from workbench.artifact import Artifact, digest
from workbench.codec import to_plain
from workbench.dataset.facts import DatasetFacts
from workbench.engine.facts import ModelFacts
from workbench.errors import WorkbenchError
from workbench.recipe import Located


@dataclass(frozen=True)
class StepResult:
    """A step's artifact or its error, and how it was come by.

    Attributes:
        located: the step with its place in the recipe.
        artifact: what it made; None where it failed.
        error: why it failed.
        seconds: what it took when it was made, in this run or an earlier one.
        cached: whether it came from the cache.
        key: its key in the cache.
    """

    located: Located
    artifact: Artifact | None = None
    error: WorkbenchError | None = None
    seconds: float = 0.0
    cached: bool = False
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running a recipe gave.

    Attributes:
        model: facts of the model as it was given.
        dataset: facts of the dataset.
        results: every step's, in the recipe's order.
        start: the user's ONNX file, where the model is one.
        timings: seconds by task, of what was not in the cache.
    """

    model: ModelFacts
    dataset: DatasetFacts
    results: tuple[StepResult, ...]
    start: Artifact | None = None
    timings: dict[str, float] = field(default_factory=dict)

    @cached_property
    def table(self) -> tuple[StepResult, ...]:
        """The results that stand in the table: of each path, the last artifact of its kind.

        An artifact that the next step only rewrites, in the same format and precision, is
        superseded; so FP32 ONNX appears once, simplified. One that was made for the next step is
        left out too. The trunk's end is the baseline and always stays; what a branch's first step
        hands on just as it got it is the same file. Failed steps stay too, as error rows.
        """
        end = next((step for step in reversed(self.results) if not step.located.branch), None)
        followers = (*self.results[1:], None)
        return tuple(
            result
            for result, after in zip(self.results, followers, strict=True)
            if after is None
            or not (_supersedes(after, result) or _is_handed_on(result, end, after))
        )

    def model_manifest(self) -> dict[str, Any]:
        """The model's entry in manifest.json."""
        plain: dict[str, Any] = to_plain(self.model)
        names = ["mixes_samples", "fingerprint", "bytes", "parameters", "notes", "classes"]
        if self.start is None:
            return {name: plain[name] for name in names}
        files = (self.start.path, *self.start.companions)
        return {
            "artifact": self.start.to_json(),
            **{name: plain[name] for name in ("fingerprint", "depends", *names[2:], "seconds")},
            "files": {path.name: digest(path) for path in files},
        }


def _is_handed_on(result: StepResult, end: StepResult | None, after: StepResult) -> bool:
    """Whether a branch's result is the trunk's end unchanged, and another step follows on it."""
    if end is None or end.artifact is None or result.artifact is None:
        return False
    same = result.artifact.history and result.artifact.history == end.artifact.history
    return bool(same) and result.located.branch == after.located.branch != ""


def _supersedes(after: StepResult, result: StepResult) -> bool:
    if after.located.branch != result.located.branch or result.artifact is None:
        return False
    return result.artifact.intermediate or _is_same_kind(result.artifact, after.artifact)


def _is_same_kind(artifact: Artifact, after: Artifact | None) -> bool:
    return after is not None and (artifact.format, artifact.precision) == (
        after.format,
        after.precision,
    )
