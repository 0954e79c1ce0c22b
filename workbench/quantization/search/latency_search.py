"""The order in which moves are tried and what is accepted. Pure: what times them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.intervals import Estimate, bootstrap_median
from workbench.quantization.search import latency_moves as moves
from workbench.quantization.search.latency_moves import Move, Unit

if TYPE_CHECKING:
    from workbench.quantization.core.network import Network
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.search.latency_profile import Costs

FP32 = "FP32"
BASE = "as the recipe places it"
GAIN = 1.03  # single moves worth 1 to 2 % do not replicate
# Of the weights may be left in float: a quarter of the rest and this are 0.35 of the FP32 file.
HEAVIEST = 0.13
FEW, SPREAD = 6, 4  # moves of a kind that are measured: the best predicted, and evenly spaced
WINDOWS = (4, 2, 1)
RETRIED, LONGER = 2, 3  # the best two of a group are timed again, for three times as long

# Milliseconds of each round, by name; the i-th of all ran next to each other.
Samples = Mapping[str, Sequence[float]]
Timer = Callable[[Mapping[str, "Placement | None"]], Samples]


@dataclass(frozen=True)
class Trial:
    """One placement that was tried. speed: against FP32, gain: against the best before it.

    median: milliseconds. predicted: the same by the cost model. weights: the share left in float.
    """

    name: str
    floats: frozenset[str]
    placement: Placement
    weights: float
    predicted: float
    median: Estimate | None = None
    speed: Estimate | None = None
    gain: Estimate | None = None
    accepted: bool = False
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        def shown(one: Estimate | None) -> dict[str, float] | None:
            return None if one is None else {k: round(v, 4) for k, v in one.to_json().items()}

        return {
            "name": self.name,
            "floats": sorted(self.floats),
            "weights_in_float": round(self.weights, 4),
            "predicted_ms": round(self.predicted, 4),
            "median_ms": shown(self.median),
            "speed_against_fp32": shown(self.speed),
            "gain": shown(self.gain),
            "accepted": self.accepted,
            "why": self.why,
        }


@dataclass
class Search:
    """A search over placements, from the recipe's own on.

    forced: nodes that the recipe leaves in float. placed: the placement with more float nodes.
    writable: why a placement cannot be written with the ranges that there are, or nothing.
    identity: the same for placements that make the same file, as where the runtime would fuse an
    operator in float that has quantized tensors on both sides.
    spare: whether there is time for more.
    """

    network: Network
    found: Sequence[Unit]
    costs: Costs
    forced: frozenset[str]
    placed: Callable[[frozenset[str]], Placement]
    writable: Callable[[Placement], str]
    identity: Callable[[Placement], str]
    timer: Timer
    spare: Callable[[], bool]
    together: int = 10  # placements that are timed at once
    heaviest: float = HEAVIEST
    sizes: Mapping[str, int] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)
    _made: dict[str, str] = field(default_factory=dict)  # identities to names

    def run(self) -> list[Trial]:
        """Every trial, in the order in which they were made; those timed have a speed."""
        self.best = self._try([Move(BASE, frozenset())])
        cuts = moves.prefixes(self.found)
        self._try(self._ranked(cuts, SPREAD))
        if self.best.name.startswith("prefix"):
            at = next(i for i, one in enumerate(cuts) if one.name == self.best.name)
            self._try(cuts[max(0, at - 2) : at + 3])
        self._try([
            moves.cut(self.found, self.network, self.costs, self.forced, weight, self.heaviest)
            for weight in (0.5, 1.0, 2.0)
        ])  # fmt: skip
        # On what the best leaves in INT8: its classes are other nodes than those of the base.
        self._repeat(lambda: [
            replace(one, floats=self.best.floats | one.floats)
            for one in moves.classes(
                self.network, self.best.placement, self.found, self.sizes
            )
        ])  # fmt: skip
        for size in WINDOWS:
            self._repeat(lambda size=size: self._ranked(moves.windows(  # type: ignore[misc]
                self.found, self.best.floats, self.forced, size
            )))  # fmt: skip
        return self.trials

    def _repeat(self, options: Callable[[], Sequence[Move]]) -> None:
        """Try moves from the best on, again as long as one is accepted."""
        while self.spare():
            before = self.best
            self._try([replace(one, name=self._plus(one.name)) for one in options()])
            if self.best is before:
                break

    def _plus(self, name: str) -> str:
        return name if self.best.name == BASE else f"{self.best.name}, {name}"

    def _ranked(self, options: Sequence[Move], spread: int = 0) -> list[Move]:
        places = {one.name: self.placed(one.floats) for one in options}
        fresh = [one for one in options if not self._known(places[one.name])
                 and not self._heavy(moves.share(self.found, places[one.name]))]  # fmt: skip
        times = {one.name: self.costs.predicted(places[one.name].nodes) for one in fresh}
        return moves.ranked(fresh, times, FEW, spread)

    def _known(self, placement: Placement) -> bool:
        return any(one.placement == placement for one in self.trials)

    def _try(self, options: Sequence[Move]) -> Trial:
        """Time the moves next to the best and FP32; the best afterwards."""
        fresh: list[Trial] = []
        for move in options:
            placement = self.placed(move.floats)
            if self._known(placement) or any(one.placement == placement for one in fresh):
                continue
            weights = moves.share(self.found, placement)
            trial = Trial(move.name, move.floats, placement, weights,
                          self.costs.predicted(placement.nodes))  # fmt: skip
            why = self.writable(placement) or self._heavy(weights) or self._same(trial)
            if why:
                self.trials.append(_said(trial, why))
            else:
                fresh.append(trial)
        for start in range(0, len(fresh), self.together):
            group = fresh[start : start + self.together]
            if self.trials and not self.spare():
                self.trials += [_said(one, "no time left") for one in group]
            else:
                self._time(group)
        return self.best

    def _same(self, trial: Trial) -> str:
        """The trial that makes the same file, said."""
        name = self._made.setdefault(self.identity(trial.placement), trial.name)
        return "" if name == trial.name else f"the same file as '{name}'"

    def _heavy(self, weights: float) -> str:
        least = moves.share(self.found, self.placed(frozenset()))
        if weights <= max(self.heaviest, least):
            return ""
        return f"{weights:.0%} of the weights in float make the file too large"

    def _time(self, group: Sequence[Trial]) -> None:
        """Time a group. What is fast enough is timed again before it is accepted: the fastest of
        many owes a part of that to chance.
        """
        reference = self.best if self.trials else group[0]
        samples = self._samples(reference, group)
        timed = [_timed(one, samples, reference.name) for one in group]
        timed.sort(key=lambda one: one.gain.value if one.gain else 0.0, reverse=True)
        if not self.trials:
            timed[0] = replace(timed[0], accepted=True, why="the start")
            self.best = timed[0]
        for place, one in enumerate(timed):
            if one.accepted:
                continue
            promising = one.gain is not None and one.gain.value >= GAIN and place < RETRIED
            if self.best is not reference and one.gain is not None:
                why = f"no faster than '{self.best.name}'"
                timed[place] = replace(one, why=why)
                continue
            again = self._again(reference, one) if promising else one
            ok, why = accepted(again.gain)
            timed[place] = replace(again, accepted=ok, why=why)
            if ok:
                self.best = timed[place]
        self.trials += timed

    def _again(self, reference: Trial, trial: Trial) -> Trial:
        """A trial timed anew, and longer; ended early only where it does not gain.

        To stop once it does gain would look for chance.
        """
        samples: dict[str, list[float]] = {}
        found = trial
        for _ in range(LONGER):
            for name, more in self._samples(reference, [trial]).items():
                samples.setdefault(name, []).extend(more)
            found = _timed(trial, samples, reference.name)
            gain = found.gain
            if gain is None or gain.value < GAIN or not self.spare():
                break
        return found

    def _samples(self, reference: Trial, group: Sequence[Trial]) -> Samples:
        asked: dict[str, Placement | None] = {FP32: None, reference.name: reference.placement}
        return self.timer(asked | {one.name: one.placement for one in group})


def accepted(gain: Estimate | None) -> tuple[bool, str]:
    """Whether a gain over the best is taken, and why."""
    if gain is None:
        return False, "ONNX Runtime does not run it"
    if gain.value < GAIN:
        return False, f"{gain.value - 1:+.1%}: less than {GAIN - 1:.0%}"
    if gain.low <= 1:
        return False, f"{gain.value - 1:+.1%}, which may be chance"
    return True, f"{gain.value - 1:+.1%}"


def finalists(trials: Sequence[Trial], count: int = 3) -> list[Trial]:
    """The `count` fastest against FP32 of those timed, the search's own choice among them."""
    timed = [one for one in trials if one.speed is not None]
    chosen = [one for one in timed if one.accepted][-1:]
    order = sorted(timed, key=lambda one: one.speed.value if one.speed else 0.0, reverse=True)
    chosen += [one for one in order if one not in chosen]
    return chosen[:count]


def _timed(trial: Trial, samples: Samples, reference: str) -> Trial:
    if trial.name not in samples:
        return trial
    own, float32, before = (np.asarray(samples[name], float)
                            for name in (trial.name, FP32, reference))  # fmt: skip
    return replace(
        trial,
        median=bootstrap_median(own.tolist()),
        speed=bootstrap_median((float32 / own).tolist()),
        gain=bootstrap_median((before / own).tolist()),
    )


def _said(trial: Trial, why: str) -> Trial:
    return replace(trial, accepted=False, why=why)
