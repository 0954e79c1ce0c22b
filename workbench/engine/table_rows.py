"""Which of a run's results stand in its table."""

from __future__ import annotations

from workbench.engine.execution import Outcome, StepResult


def rows_of(outcome: Outcome) -> list[StepResult]:
    """The results that stand in the table: of each path, the last artifact of its kind.

    An artifact that the next step only rewrites, in the same format and precision, is superseded;
    so FP32 ONNX appears once, simplified. One that was made for the next step is left out too. The
    trunk's end is the baseline and always stays; what a branch's first step hands on just as it got
    it is the same file. Failed steps stay too, as error rows.
    """
    following = zip(outcome.results, (*outcome.results[1:], None), strict=True)
    end = next((one for one in reversed(outcome.results) if not one.located.branch), None)
    return [
        one
        for one, after in following
        if after is None or not (_supersedes(after, one) or _handed_on(one, end, after))
    ]


def _handed_on(one: StepResult, end: StepResult | None, after: StepResult) -> bool:
    """Whether a branch's result is the trunk's end unchanged, and another step follows on it."""
    if end is None or end.artifact is None or one.artifact is None:
        return False
    same = one.artifact.history and one.artifact.history == end.artifact.history
    return bool(same) and one.located.branch == after.located.branch != ""


def _supersedes(after: StepResult, one: StepResult) -> bool:
    if after.located.branch != one.located.branch or one.artifact is None:
        return False
    return one.artifact.intermediate or _same_kind(one, after)


def _same_kind(one: StepResult, other: StepResult) -> bool:
    a, b = one.artifact, other.artifact
    return a is not None and b is not None and (a.format, a.precision) == (b.format, b.precision)
