"""The search of a budget: the fewest layers in float with which no more is lost than allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.intervals import Estimate, paired_difference
from workbench.quantization.core.distance import LEAST, decibels

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.scores import Score

Array = NDArray[Any]
Progress = Callable[[float, str], None]
Made = TypeVar("Made")
Made_co = TypeVar("Made_co", covariant=True)

SEARCHED = 300  # evaluation samples for the search, half of them at most
NAMED = 4  # layers in a note
LOOKS = 3  # at the samples that the search never used
Z, WIDER = 1.959964, 2.393980  # normal quantiles for 95 %, and for each of three looks (Bonferroni)


@dataclass(frozen=True)
class Stage:
    """Layers in float beyond those that are anyway, by name, and the noise that is left by the
    model, as a share of the signal's power."""

    floats: tuple[str, ...]
    noise: float


class Ladder(Protocol[Made_co]):
    """Files of one network with more and more layers in float: what a search goes over."""

    def stages(self, progress: Progress) -> Sequence[Stage]:
        """From none in float to all, each stage with more than the last."""

    def sketched(self, floats: tuple[str, ...]) -> onnx.ModelProto:
        """A file with these layers in float, quickly made: for the search."""

    def made(self, floats: tuple[str, ...]) -> tuple[Made_co, onnx.ModelProto]:
        """What would be handed on with these layers in float, and its file."""


@dataclass(frozen=True)
class Found(Generic[Made]):
    """What holds the budget. made: None where only the float file does. floats: the layers that
    went back to float. evidence: all that was tried (JSON). notes: for the user.
    """

    made: Made | None
    floats: tuple[str, ...]
    evidence: dict[str, Any]
    notes: tuple[str, ...]


@dataclass
class Search(Generic[Made]):
    """Some samples are for the search, the others for a final look at the file as it is written,
    three at most. Held means that the whole 95 % interval of the drop, widened for three looks, is
    within the budget. Where so few samples cannot show that with half of the layers in INT8, for
    their interval alone is wider, the estimate has to be within it, and the note says so: otherwise
    every small evaluation set would end in float.

    max_drop: in points. seed: which samples are for the search.
    """

    ladder: Ladder[Made]
    score: Score
    max_drop: float
    seed: int = 0
    progress: Progress = lambda _fraction, _note: None
    tried: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[tuple[str, ...], tuple[Made, Estimate]] = field(default_factory=dict)
    known: dict[int, tuple[Array, Array]] = field(default_factory=dict)  # a stage's, searching

    def __post_init__(self) -> None:
        drawn = np.random.default_rng(self.seed).permutation(self.score.count)
        count = min(len(drawn) // 2, SEARCHED)
        self.searching, self.checking = sorted(drawn[:count].tolist()), sorted(drawn[count:])

    def found(self) -> Found[Made]:
        """Raises StepError for outputs that are no classes."""
        self.progress(0.0, "accuracy as it is")
        first = self.looked(Stage((), 0.0))
        if first.high <= self.max_drop:
            return self.held((), "interval")
        self.progress(0.1, "what each layer costs")
        *stages, last = self.ladder.stages(
            lambda part, note: self.progress(0.1 + 0.3 * part, note)
        )  # the last is FP32
        if self.lowest <= self.max_drop:
            for stage in self.proposed(stages, certain=True):
                if len(stage.floats) > len(last.floats) / 2:
                    break
                if self.looked(stage).high <= self.max_drop:
                    return self.held(stage.floats, "interval")
        if first.value <= self.max_drop:
            return self.held((), "estimate")
        for stage in self.proposed(stages, certain=False):
            if self.looked(stage).value <= self.max_drop:
                return self.held(stage.floats, "estimate")
        return self.missed()

    @property
    def lowest(self) -> float:
        """The upper end of the interval where not one prediction changes, in points."""
        same = np.ones(len(self.checking), bool)
        return _widened(paired_difference(same, same)).high

    def proposed(self, stages: Sequence[Stage], certain: bool) -> Iterator[Stage]:
        """The first stage that holds on the samples for the search, then ones with more in float.

        By bisection: with more layers in float, less is lost.
        """
        low, high = 1, len(stages)
        while low < high:
            middle = (low + high) // 2
            if self.expected(stages, middle, certain) <= self.max_drop:
                high = middle
            else:
                low = middle + 1
        low = min(low, len(stages) - 1)  # where none holds: what is reachable
        while 0 < low < len(stages) and len(self.seen) < LOOKS + (not certain):
            if stages[low].floats not in self.seen:
                yield stages[low]
            low += max(1, (len(stages) - low) // 3)

    def expected(self, stages: Sequence[Stage], place: int, certain: bool) -> float:
        """The drop of a stage in points; its interval's upper end, for all the other samples."""
        if place not in self.known:
            self.progress(0.45, f"{len(stages[place].floats)} more layers in float")
            model = self.ladder.sketched(stages[place].floats)
            rows = self.searching
            self.known[place] = self.score.reference(rows), self.score(model, rows)
        before, after = self.known[place]
        value = 100 * float(before.mean() - after.mean()) if len(before) else 0.0
        drop = _scaled(before, after, len(self.checking)).high if certain else value
        self.tried.append(_tried("search", stages[place], value, drop, len(before)))
        return drop

    def looked(self, stage: Stage) -> Estimate:
        """The drop of the file as it would be written, on samples that the search never used."""
        if stage.floats:
            self.progress(0.6, f"planned anew with {len(stage.floats)} more layers in float")
        made, model = self.ladder.made(stage.floats)
        rows = self.checking
        self.progress(0.85, f"the drop on {len(rows)} samples")
        gained = paired_difference(self.score.reference(rows), self.score(model, rows))
        drop = _widened(Estimate(-gained.value, -gained.high, -gained.low))
        self.seen[stage.floats] = (made, drop)
        self.tried.append(_tried("check", stage, drop.value, drop.high, len(rows)))
        return drop

    def held(self, floats: tuple[str, ...], how: str) -> Found[Made]:
        made, drop = self.seen[floats]
        text = f"max_drop={self.max_drop:g}: {self.lost(drop)}"
        if floats:
            text += f", with {len(floats)} more layer(s) in float: {named(floats)}"
        notes = [text]
        if how == "estimate":
            notes.append(
                f"{len(self.checking)} samples cannot show a drop of at most {self.max_drop:g}, "
                f"only that the estimate is below it{self.enough(floats)}"
            )
        return Found(made, floats, self.evidence(how, drop, floats), self.noted(notes))

    def missed(self) -> Found[Made]:
        floats, (_, drop) = min(self.seen.items(), key=lambda one: one[1][1].value)
        reached = f"{len(floats)} more layer(s) in float" if floats else "every layer in INT8"
        notes = [
            f"max_drop={self.max_drop:g} is not held: {self.lost(drop)} with {reached}; "
            "handed on in FP32"
        ]
        return Found(None, floats, self.evidence("no", drop, floats), self.noted(notes))

    def noted(self, notes: list[str]) -> tuple[str, ...]:
        if not self.score.unseen:
            notes.append(
                "no evaluation samples: the drop is one of agreement on calibration samples, "
                "which flatter"
            )
        return tuple(notes)

    def lost(self, drop: Estimate) -> str:
        which = "that the search never used" if self.score.unseen else "of calibration"
        return (
            f"{self.score.what} {-drop.value + 0.0:+.2f} points ({-drop.high:+.2f} to "
            f"{-drop.low:+.2f}) on {len(self.checking)} samples {which}"
        )

    def enough(self, floats: tuple[str, ...]) -> str:
        """How many samples would show it, from the share of predictions that changed."""
        drop = self.seen[floats][1]
        room = self.max_drop - drop.value
        if room <= 0:
            return ""
        wide = (drop.high - drop.low) / 2
        needed = max(len(self.checking) * (wide / room) ** 2, len(self.checking) + 1)
        digits = 10 ** max(0, math.floor(math.log10(needed)) - 1)
        return f"; about {math.ceil(needed / digits) * digits:,} would"

    def evidence(self, held: str, drop: Estimate, floats: tuple[str, ...]) -> dict[str, Any]:
        return {
            "max_drop": self.max_drop,
            "what": self.score.what,
            "held": held,
            "drop": drop.to_json(),
            "floats": list(floats),
            "samples": {"search": len(self.searching), "check": len(self.checking),
                        "unseen": self.score.unseen},
            "tried": self.tried,
        }  # fmt: skip


def named(layers: Sequence[str]) -> str:
    """Some names and how many others: all are in the evidence."""
    shown = layers if len(layers) <= NAMED + 1 else layers[:NAMED]
    rest = len(layers) - len(shown)
    return ", ".join(shown) + (f" and {rest} others" if rest else "")


def _widened(found: Estimate) -> Estimate:
    """The interval for each of three looks, so that all of them are right in 95 % of cases."""
    middle, half = (found.low + found.high) / 2, (found.high - found.low) / 2 * WIDER / Z
    return Estimate(found.value, middle - half, middle + half)


def _scaled(before: Array, after: Array, count: int) -> Estimate:
    """The drop's interval that `count` samples would have, if as many changed as in these."""
    if not len(before):
        return Estimate(0.0, 0.0, 0.0)
    shares = [float((before & ~after).mean()), float((after & ~before).mean())]
    lost, gained = (round(share * count) for share in shares)
    one, other = np.ones(count, bool), np.ones(count, bool)
    other[:lost] = False
    one[count - gained :] = gained == 0
    found = paired_difference(one, other)
    return _widened(Estimate(-found.value, -found.high, -found.low))


def _tried(where: str, stage: Stage, value: float, bound: float, count: int) -> dict[str, Any]:
    return {
        "samples_of": where, "floats": list(stage.floats), "samples": count,
        "drop": value, "bound": bound,
        "modelled_db": decibels(stage.noise) if LEAST < stage.noise < math.inf else None,
    }  # fmt: skip
