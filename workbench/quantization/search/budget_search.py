"""The search of a budget: the fewest layers in float with which no more is lost than allowed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.intervals import Estimate, paired_difference
from workbench.progress import Progress, ignore_progress, span_progress
from workbench.quantization.search.output_distance import SILENCE, decibels

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.search.predictions import PredictionScore

Array = NDArray[Any]
Candidate = TypeVar("Candidate")
Candidate_co = TypeVar("Candidate_co", covariant=True)

SEARCHED = 300  # evaluation samples for the search, half of them at most
NAMED = 4  # layers in a note
LOOKS = 3  # at the samples that the search never used
Z, WIDER = 1.959964, 2.393980  # normal quantiles for 95 %, and for each of three looks (Bonferroni)


@dataclass(frozen=True)
class FloatStage:
    """Layers in float beyond those that are anyway.

    Attributes:
        floats: their names.
        noise: what is left by the model, as a share of the signal's power.
    """

    floats: tuple[str, ...]
    noise: float


class FloatLadder(Protocol[Candidate_co]):
    """Files of one network with more and more layers in float: what a search goes over."""

    def stages(self, progress: Progress) -> Sequence[FloatStage]:
        """From none in float to all, each stage with more than the last."""

    def sketch(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        """A file with these layers in float, quickly made: for the search."""

    def make(self, floats: tuple[str, ...]) -> tuple[Candidate_co, onnx.ModelProto]:
        """What would be handed on with these layers in float, and its file."""


@dataclass(frozen=True)
class BudgetTrial:
    """A placement that was scored.

    Attributes:
        samples_of: "search", or "check" for those that the search never used.
        floats: the layers that went back to float.
        samples: how many it was scored on.
        drop: in points.
        bound: what was held against the budget: the drop, or the upper end of its interval.
        modelled_db: SQNR by the noise model; None where it has no number.
    """

    samples_of: str
    floats: tuple[str, ...]
    samples: int
    drop: float
    bound: float
    modelled_db: float | None


@dataclass(frozen=True)
class BudgetSamples:
    """How many samples the search used, and how many the check.

    Attributes:
        unseen: whether quantization never used them.
    """

    search: int
    check: int
    unseen: bool


@dataclass(frozen=True)
class BudgetEvidence:
    """All that was tried for a budget, for `quantization.json`.

    Attributes:
        max_drop, drop: in points.
        what: of what they are points: "top-1" or "agreement with FP32".
        held: "interval", "estimate" or "no".
        floats: the layers that went back to float.
    """

    max_drop: float
    what: str
    held: str
    drop: Estimate
    floats: tuple[str, ...]
    samples: BudgetSamples
    tried: tuple[BudgetTrial, ...]


@dataclass(frozen=True)
class BudgetResult(Generic[Candidate]):
    """What holds the budget.

    Attributes:
        candidate: what is handed on; None where only the float file holds it.
        floats: the layers that went back to float.
        notes: for the user.
    """

    candidate: Candidate | None
    floats: tuple[str, ...]
    evidence: BudgetEvidence
    notes: tuple[str, ...]


@dataclass
class BudgetSearch(Generic[Candidate]):
    """The search over a ladder of files.

    Some samples are for the search, the others for a final look at the file as it is written,
    three at most. Held means that the whole 95 % interval of the drop, widened for three looks, is
    within the budget. Where so few samples cannot show that with half of the layers in INT8, for
    their interval alone is wider, the estimate has to be within it, and the note says so: otherwise
    every small evaluation set would end in float.

    Attributes:
        max_drop: in points.
        seed: which samples are for the search.
    """

    ladder: FloatLadder[Candidate]
    score: PredictionScore
    max_drop: float
    seed: int = 0
    progress: Progress = ignore_progress
    _tried: list[BudgetTrial] = field(default_factory=list)
    _checked: dict[tuple[str, ...], tuple[Candidate, Estimate]] = field(default_factory=dict)
    _searched: dict[int, tuple[Array, Array]] = field(default_factory=dict)  # by stage

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(self.seed).permutation(self.score.count)
        count = min(len(drawn) // 2, SEARCHED)
        self.searching, self.checking = sorted(drawn[:count].tolist()), sorted(drawn[count:])

    def run(self) -> BudgetResult[Candidate]:
        """What holds the budget. Raises StepError for outputs that are no classes."""
        self.progress(0.0, "accuracy as it is")
        whole = self._check(FloatStage((), 0.0))
        if whole.high <= self.max_drop:
            return self._held((), "interval")
        self.progress(0.1, "what each layer costs")
        *stages, last = self.ladder.stages(span_progress(self.progress, 0.1, 0.4))  # the last: FP32
        if self._least_bound() <= self.max_drop:
            for stage in self._proposals(stages, certain=True):
                if len(stage.floats) > len(last.floats) / 2:
                    break
                if self._check(stage).high <= self.max_drop:
                    return self._held(stage.floats, "interval")
        if whole.value <= self.max_drop:
            return self._held((), "estimate")
        for stage in self._proposals(stages, certain=False):
            if self._check(stage).value <= self.max_drop:
                return self._held(stage.floats, "estimate")
        return self._missed()

    def _least_bound(self) -> float:
        """The upper end of the interval where not one prediction changes, in points."""
        same = np.ones(len(self.checking), bool)
        return _widen(paired_difference(same, same)).high

    def _proposals(self, stages: Sequence[FloatStage], certain: bool) -> Iterator[FloatStage]:
        """The first stage that holds on the samples for the search, then ones with more in float.

        By bisection: with more layers in float, less is lost.
        """
        low, high = 1, len(stages)
        while low < high:
            middle = (low + high) // 2
            if self._expected_drop(stages, middle, certain) <= self.max_drop:
                high = middle
            else:
                low = middle + 1
        low = min(low, len(stages) - 1)  # where none holds: what is reachable
        while 0 < low < len(stages) and len(self._checked) < LOOKS + (not certain):
            if stages[low].floats not in self._checked:
                yield stages[low]
            low += max(1, (len(stages) - low) // 3)

    def _expected_drop(self, stages: Sequence[FloatStage], number: int, certain: bool) -> float:
        """The drop of a stage in points; its interval's upper end, for all the other samples."""
        stage, rows = stages[number], self.searching
        if number not in self._searched:
            self.progress(0.45, f"{len(stage.floats)} more layers in float")
            model = self.ladder.sketch(stage.floats)
            self._searched[number] = self.score.reference(rows), self.score(model, rows)
        before, after = self._searched[number]
        value = 100 * float(before.mean() - after.mean()) if len(before) else 0.0
        bound = _scale_interval(before, after, len(self.checking)).high if certain else value
        self._note_trial("search", stage, len(before), value, bound)
        return bound

    def _check(self, stage: FloatStage) -> Estimate:
        """The drop of the file as it would be written, on samples that the search never used."""
        if stage.floats:
            self.progress(0.6, f"planned anew with {len(stage.floats)} more layers in float")
        candidate, model = self.ladder.make(stage.floats)
        rows = self.checking
        self.progress(0.85, f"the drop on {len(rows)} samples")
        gain = paired_difference(self.score.reference(rows), self.score(model, rows))
        drop = _widen(Estimate(-gain.value, -gain.high, -gain.low))
        self._checked[stage.floats] = (candidate, drop)
        self._note_trial("check", stage, len(rows), drop.value, drop.high)
        return drop

    def _note_trial(
        self, samples_of: str, stage: FloatStage, count: int, drop: float, bound: float
    ) -> None:
        modelled = decibels(stage.noise) if SILENCE < stage.noise < math.inf else None
        self._tried.append(BudgetTrial(samples_of, stage.floats, count, drop, bound, modelled))

    def _held(self, floats: tuple[str, ...], how: str) -> BudgetResult[Candidate]:
        candidate, drop = self._checked[floats]
        text = f"max_drop={self.max_drop:g}: {self._describe(drop)}"
        if floats:
            text += f", with {len(floats)} more layer(s) in float: {name_layers(floats)}"
        notes = [text]
        if how == "estimate":
            notes.append(
                f"{len(self.checking)} samples cannot show a drop of at most {self.max_drop:g}, "
                f"only that the estimate is below it{self._describe_need(drop)}"
            )
        return self._result(candidate, floats, how, notes)

    def _missed(self) -> BudgetResult[Candidate]:
        floats, (_, drop) = min(self._checked.items(), key=lambda item: item[1][1].value)
        reached = f"{len(floats)} more layer(s) in float" if floats else "every layer in INT8"
        note = (
            f"max_drop={self.max_drop:g} is not held: {self._describe(drop)} with {reached}; "
            "handed on in FP32"
        )
        return self._result(None, floats, "no", [note])

    def _result(
        self, candidate: Candidate | None, floats: tuple[str, ...], held: str, notes: list[str]
    ) -> BudgetResult[Candidate]:
        if not self.score.unseen:
            notes.append(
                "no evaluation samples: the drop is one of agreement on calibration samples, "
                "which flatter"
            )
        samples = BudgetSamples(len(self.searching), len(self.checking), self.score.unseen)
        evidence = BudgetEvidence(
            self.max_drop, self.score.what, held, self._checked[floats][1], floats, samples,
            tuple(self._tried),
        )  # fmt: skip
        return BudgetResult(candidate, floats, evidence, tuple(notes))

    def _describe(self, drop: Estimate) -> str:
        which = "that the search never used" if self.score.unseen else "of calibration"
        return (
            f"{self.score.what} {-drop.value + 0.0:+.2f} points ({-drop.high:+.2f} to "
            f"{-drop.low:+.2f}) on {len(self.checking)} samples {which}"
        )

    def _describe_need(self, drop: Estimate) -> str:
        """How many samples would show it, from the share of predictions that changed."""
        room = self.max_drop - drop.value
        if room <= 0:
            return ""
        half = (drop.high - drop.low) / 2
        needed = max(len(self.checking) * (half / room) ** 2, len(self.checking) + 1)
        digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return f"; about {math.ceil(needed / digits) * digits:,} would"


def name_layers(layers: Sequence[str]) -> str:
    """Some names and how many others: all are in the evidence."""
    shown = layers if len(layers) <= NAMED + 1 else layers[:NAMED]
    rest = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {rest} others" if rest else "")


def _widen(estimate: Estimate) -> Estimate:
    """The interval for each of three looks, so that all of them are right in 95 % of cases."""
    middle = (estimate.low + estimate.high) / 2
    half = (estimate.high - estimate.low) / 2 * WIDER / Z
    return Estimate(estimate.value, middle - half, middle + half)


def _scale_interval(before: Array, after: Array, count: int) -> Estimate:
    """The drop's interval that `count` samples would have, if as many changed as in these."""
    if not len(before):
        return Estimate(0.0, 0.0, 0.0)
    shares = [float((before & ~after).mean()), float((after & ~before).mean())]
    lost, gained = (round(share * count) for share in shares)
    first, second = np.ones(count, bool), np.ones(count, bool)
    second[:lost] = False
    first[count - gained :] = gained == 0
    gain = paired_difference(first, second)
    return _widen(Estimate(-gain.value, -gain.high, -gain.low))
