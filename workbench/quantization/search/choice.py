"""Which layers compute in INT8, by all that was asked for, and the plan for these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.quantization.core.placement import Placement
from workbench.quantization.core.plan import Plan

if TYPE_CHECKING:
    import onnx

    from workbench.device.profile import Device
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.scores import Score

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Choice:
    """placement: None where the float file is the better one. prefix: first nodes left in float.
    notes: for the user. evidence: of the search for speed, of the accuracy budget, by name.
    earlier: what stood before each of these, by the words for what came after it.
    """

    placement: Placement | None
    plan: Plan
    prefix: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    earlier: Mapping[str, tuple[Placement, Plan]] = field(default_factory=dict)

    def followed(self, words: str, by: Choice) -> Choice:
        """The choice that came after this one, which it remembers."""
        assert self.placement is not None
        return replace(by, earlier={**self.earlier, words: (self.placement, self.plan)})


def chosen(
    ready: Calibrated,
    floats: frozenset[str],
    *,
    device: Device,
    folder: Path,
    original: onnx.ModelProto,
    latency: bool = False,
    max_drop: float | None = None,
    score: Score | None = None,
    progress: Progress = lambda _fraction, _note: None,
) -> Choice:
    """The placement that leaves `floats` alone, and what accuracy, speed and a budget ask for.

    latency: leave float what is slower in INT8 on `device`; TFLite's files are not searched. The
    search starts with every layer in INT8, for a first layer that is better in float is soon found.
    max_drop: points that may be lost of what `score` says, without it of agreement with FP32 on
    calibration samples. folder: for files while it lasts.
    """
    searched = latency and ready.options.runtime == "ort"
    prefix = ready.wiped if searched else ready.prefix
    placement = ready.placed(floats | set(prefix))
    made = Choice(placement, _planned(ready, placement), prefix)
    if latency:
        made = _fastest(ready, made, device, folder, original, progress)
    if max_drop is not None and made.placement is not None:
        made = _within(ready, made, made.placement, max_drop, score, progress)
    return made


def _planned(ready: Calibrated, placement: Placement) -> Plan:
    return ready.guarded(placement, ready.planned(placement))


def _fastest(
    ready: Calibrated, made: Choice, device: Device, folder: Path, original: onnx.ModelProto,
    progress: Progress,
) -> Choice:  # fmt: skip
    from workbench.quantization.search.latency import fastest

    if ready.options.runtime != "ort":
        return replace(made, notes=(*made.notes, "optimize=latency searches ONNX Runtime alone"))
    assert made.placement is not None
    found = fastest(
        ready, made.placement, made.plan, device=device, folder=folder, original=original,
        seed=ready.options.seed, progress=lambda part, note: progress(0.9 + 0.02 * part, note),
    )  # fmt: skip
    notes, evidence = (*made.notes, *found.notes), {**made.evidence, "latency": found.evidence}
    if found.placement is None or found.placement == made.placement:
        return replace(made, placement=found.placement, notes=notes, evidence=evidence)
    # Biases of a layer were corrected for what came before it: with more in float, less is to mend.
    plan = _planned(ready, found.placement)
    return made.followed(
        "slow layers in float",
        replace(made, placement=found.placement, plan=plan, notes=notes, evidence=evidence),
    )


def _within(
    ready: Calibrated, made: Choice, placement: Placement, max_drop: float, score: Score | None,
    progress: Progress,
) -> Choice:  # fmt: skip
    from workbench.quantization.search.budget import within_budget

    found = within_budget(
        ready, placement, made.plan, max_drop, score,
        progress=lambda part, note: progress(0.9 + 0.02 * part, note),
    )  # fmt: skip
    after = replace(
        made, placement=found.placement, plan=found.plan, notes=(*made.notes, *found.notes),
        evidence={**made.evidence, "budget": found.evidence},
    )  # fmt: skip
    same = found.placement == placement
    return after if same else made.followed("layers in float for the budget", after)
