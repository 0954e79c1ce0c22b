"""The order in which moves are tried and what is accepted. Pure: what times them is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from workbench.intervals import Estimate, bootstrap_median
from workbench.quantization.search.latency_moves import FloatMove, SearchSpace, rank_moves

if TYPE_CHECKING:
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.search.latency_profile import LatencyCosts

FP32 = "FP32"
BASE = "as the recipe places it"
GAIN = 1.03  # single moves worth 1 to 2 % do not replicate
FEW, SPREAD = 6, 4  # moves of a kind that are measured: the best predicted, and evenly spaced
WINDOWS = (4, 2, 1)
RETRIED, LONGER = 2, 3  # the best two of a group are timed again, for three times as long

# Milliseconds of each round, by name; the i-th of all ran next to each other.
Rounds = Mapping[str, Sequence[float]]
Timer = Callable[[Mapping[str, "OperatorPlacement | None"]], Rounds]


@dataclass(frozen=True)
class PlacementTrial:
    """One placement that was tried.

    Attributes:
        floats: the nodes in float beyond those that the recipe leaves.
        weights: the share of the weights left in float.
        predicted: milliseconds by the cost model.
        median: milliseconds; None where it was not timed.
        speed: against FP32.
        gain: against the best before it.
        why: it was accepted, or not.
    """

    name: str
    floats: frozenset[str]
    placement: OperatorPlacement
    weights: float
    predicted: float
    median: Estimate | None = None
    speed: Estimate | None = None
    gain: Estimate | None = None
    accepted: bool = False
    why: str = ""


class PlacementGraphs(Protocol):
    """The quantized graphs of placements with more nodes in float than a plan was made for."""

    def place(self, floats: frozenset[str]) -> OperatorPlacement:
        """The placement with these nodes in float, too."""

    def refusal(self, placement: OperatorPlacement) -> str:
        """Why a placement cannot be written with the ranges that there are, or nothing."""

    def identity(self, placement: OperatorPlacement) -> str:
        """The same for placements that make the same file.

        As where the runtime would fuse an operator in float that has quantized tensors on both
        sides.
        """


@dataclass
class LatencySearch:
    """A search over placements, from the recipe's own on.

    Attributes:
        timer: takes placements by name, None for FP32.
        spare: whether there is time for more.
        together: placements that are timed at once.
        trials: every one, in the order in which they were made; those timed have a speed.
    """

    space: SearchSpace
    costs: LatencyCosts
    graphs: PlacementGraphs
    timer: Timer
    spare: Callable[[], bool]
    together: int = 10
    trials: list[PlacementTrial] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)  # of trials, by identity

    def run(self) -> list[PlacementTrial]:
        """Every trial, in the order in which they were made; those timed have a speed."""
        self.best = self._try([FloatMove(BASE, frozenset())])
        prefixes = self.space.prefix_moves()
        self._try(self._promising(prefixes, SPREAD))
        if self.best.name.startswith("prefix"):
            at = next(n for n, move in enumerate(prefixes) if move.name == self.best.name)
            self._try(prefixes[max(0, at - 2) : at + 3])
        self._try([self.space.cut_move(self.costs, weight) for weight in (0.5, 1.0, 2.0)])
        # On what the best leaves in INT8: its classes are other nodes than those of the base.
        self._repeat(lambda: [
            replace(move, floats=self.best.floats | move.floats)
            for move in self.space.class_moves(self.best.placement)
        ])  # fmt: skip
        for size in WINDOWS:
            self._repeat(
                lambda size=size: self._promising(  # type: ignore[misc]
                    self.space.window_moves(self.best.floats, size)
                )
            )
        return self.trials

    def _repeat(self, moves: Callable[[], Sequence[FloatMove]]) -> None:
        """Try moves from the best on, again as long as one is accepted."""
        while self.spare():
            before = self.best
            self._try([replace(move, name=self._extended_name(move)) for move in moves()])
            if self.best is before:
                break

    def _extended_name(self, move: FloatMove) -> str:
        return move.name if self.best.name == BASE else f"{self.best.name}, {move.name}"

    def _promising(self, moves: Sequence[FloatMove], spread: int = 0) -> list[FloatMove]:
        placements = {move.name: self.graphs.place(move.floats) for move in moves}
        fresh = [
            move
            for move in moves
            if not _has_placement(self.trials, placements[move.name])
            and not self._too_heavy(self.space.weight_share(placements[move.name]))
        ]
        times = {move.name: self.costs.predict(placements[move.name].nodes) for move in fresh}
        return rank_moves(fresh, times, FEW, spread)

    def _try(self, moves: Sequence[FloatMove]) -> PlacementTrial:
        """Time the moves next to the best and FP32; the best afterwards."""
        fresh: list[PlacementTrial] = []
        for move in moves:
            placement = self.graphs.place(move.floats)
            if _has_placement([*self.trials, *fresh], placement):
                continue
            weights = self.space.weight_share(placement)
            predicted = self.costs.predict(placement.nodes)
            trial = PlacementTrial(move.name, move.floats, placement, weights, predicted)
            why = self.graphs.refusal(placement) or self._too_heavy(weights) or self._same(trial)
            if why:
                self.trials.append(replace(trial, why=why))
            else:
                fresh.append(trial)
        for start in range(0, len(fresh), self.together):
            group = fresh[start : start + self.together]
            if self.trials and not self.spare():
                self.trials += [replace(trial, why="no time left") for trial in group]
            else:
                self._time(group)
        return self.best

    def _same(self, trial: PlacementTrial) -> str:
        """Which trial makes the same file, in words."""
        name = self._names.setdefault(self.graphs.identity(trial.placement), trial.name)
        return "" if name == trial.name else f"the same file as '{name}'"

    def _too_heavy(self, weights: float) -> str:
        least = self.space.weight_share(self.graphs.place(frozenset()))
        if weights <= max(self.space.heaviest, least):
            return ""
        return f"{weights:.0%} of the weights in float make the file too large"

    def _time(self, group: Sequence[PlacementTrial]) -> None:
        """Time a group. What is fast enough is timed again before it is accepted: the fastest of
        many owes a part of that to chance.
        """
        reference = self.best if self.trials else group[0]
        rounds = self._rounds(reference, group)
        timed = [_with_times(trial, rounds, reference.name) for trial in group]
        timed.sort(key=lambda trial: trial.gain.value if trial.gain else 0.0, reverse=True)
        if not self.trials:
            timed[0] = replace(timed[0], accepted=True, why="the start")
            self.best = timed[0]
        for number, trial in enumerate(timed):
            if trial.accepted:
                continue
            if self.best is not reference and trial.gain is not None:
                timed[number] = replace(trial, why=f"no faster than '{self.best.name}'")
                continue
            if trial.gain is not None and trial.gain.value >= GAIN and number < RETRIED:
                trial = self._time_again(reference, trial)  # noqa: PLW2901
            accepted, why = judge_gain(trial.gain)
            timed[number] = replace(trial, accepted=accepted, why=why)
            if accepted:
                self.best = timed[number]
        self.trials += timed

    def _time_again(self, reference: PlacementTrial, trial: PlacementTrial) -> PlacementTrial:
        """A trial timed anew, and longer; ended early only where it does not gain.

        To stop once it does gain would look for chance.
        """
        rounds: dict[str, list[float]] = {}
        timed = trial
        for _ in range(LONGER):
            for name, more in self._rounds(reference, [trial]).items():
                rounds.setdefault(name, []).extend(more)
            timed = _with_times(trial, rounds, reference.name)
            if timed.gain is None or timed.gain.value < GAIN or not self.spare():
                break
        return timed

    def _rounds(self, reference: PlacementTrial, group: Sequence[PlacementTrial]) -> Rounds:
        base: dict[str, OperatorPlacement | None] = {
            FP32: None, reference.name: reference.placement
        }  # fmt: skip
        return self.timer(base | {trial.name: trial.placement for trial in group})


def _has_placement(trials: Sequence[PlacementTrial], placement: OperatorPlacement) -> bool:
    return any(trial.placement == placement for trial in trials)


def judge_gain(gain: Estimate | None) -> tuple[bool, str]:
    """Whether a gain over the best is taken, and why."""
    if gain is None:
        return False, "ONNX Runtime does not run it"
    if gain.value < GAIN:
        return False, f"{gain.value - 1:+.1%}: less than {GAIN - 1:.0%}"
    if gain.low <= 1:
        return False, f"{gain.value - 1:+.1%}, which may be chance"
    return True, f"{gain.value - 1:+.1%}"


def choose_finalists(trials: Sequence[PlacementTrial], count: int = 3) -> list[PlacementTrial]:
    """The `count` fastest against FP32 of those timed, the search's own choice among them."""
    timed = [trial for trial in trials if trial.speed is not None]
    finalists = [trial for trial in timed if trial.accepted][-1:]
    timed.sort(key=lambda trial: trial.speed.value if trial.speed else 0.0, reverse=True)
    finalists += [trial for trial in timed if trial not in finalists]
    return finalists[:count]


def _with_times(trial: PlacementTrial, rounds: Rounds, reference: str) -> PlacementTrial:
    if trial.name not in rounds:
        return trial
    own, fp32, before = (np.asarray(rounds[name], float) for name in (trial.name, FP32, reference))
    return replace(
        trial,
        median=bootstrap_median(own.tolist()),
        speed=bootstrap_median((fp32 / own).tolist()),
        gain=bootstrap_median((before / own).tolist()),
    )
