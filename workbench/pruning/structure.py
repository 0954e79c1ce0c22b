"""A module made narrower: what goes is chosen, taken out of every layer, and tried.

half = PruningTarget("macs", 0.5)
pruned = narrow(unpruned(module), inputs, criterion, half)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import StepError
from workbench.pruning.cost import ModuleCost, count_cost
from workbench.pruning.groups import ChannelGroup, PrunableModule, find_prunable
from workbench.pruning.importance import (
    GRADIENTS,
    Importance,
    accumulate_gradients,
    score_channels,
)
from workbench.pruning.layers import channel_counts, run_module
from workbench.pruning.selection import Measure, PruningTarget, most_removed, select_channels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class PruningCriterion:
    """How channels are chosen: see the options of the step `Prune`, whose words these are."""

    importance: Importance
    scope: Literal["local", "global"]
    round_to: int
    keep: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class PrunedModule:
    """A narrower module.

    Attributes:
        macs, parameters: what is left, as ratios of the original's.
        outputs: for each layer that lost output channels, the original's numbers of those it has.
        kept: the layers that could not be narrowed, with the reason.
    """

    module: Any
    macs: float = 1.0
    parameters: float = 1.0
    outputs: Mapping[str, tuple[int, ...]]
    kept: Mapping[str, str]

    def ratio(self, measure: Measure) -> float:
        """What is left of a measure."""
        return self.macs if measure == "macs" else self.parameters


class HardCodedWidthError(StepError):
    """The module does not run with fewer channels."""


def unpruned(module: torch.nn.Module) -> PrunedModule:
    """Where pruning begins."""
    return PrunedModule(module=module, outputs={}, kept={})


def narrow(
    before: PrunedModule,
    inputs: Sequence[torch.Tensor],
    criterion: PruningCriterion,
    target: PruningTarget,
    batches: Iterable[Sequence[torch.Tensor]] = (),
) -> PrunedModule:
    """A copy with fewer channels, which meets the target.

    Raises StepError where the target is out of reach, or nothing can be pruned. Widths that the
    module's code has written into it stay as they are.

    Args:
        inputs: [N, ...] in call order.
        batches: such, for criteria that need gradients.
    """
    try:
        return _narrow(before, inputs, criterion, target, batches)
    except HardCodedWidthError:
        fixed = _hard_coded_layers(before, inputs, criterion)
        if not fixed:
            raise
        keeping = replace(criterion, keep=(*criterion.keep, *fixed))
        pruned = _narrow(before, inputs, keeping, target, batches)
        reason = "its width is written into the model's code"
        return replace(pruned, kept={**pruned.kept, **dict.fromkeys(fixed, reason)})


def _hard_coded_layers(
    before: PrunedModule, inputs: Sequence[torch.Tensor], criterion: PruningCriterion
) -> tuple[str, ...]:
    """The layers that the module does not run without some channels of, each tried alone."""
    names: list[str] = []
    count = len(_inspect(before, inputs, criterion)[0].groups)
    for number in range(count):
        prunable = find_prunable(copy.deepcopy(before.module), inputs, criterion.keep)
        group = prunable.groups[number]
        removed: list[Sequence[int]] = [()] * count
        removed[number] = range(min(criterion.round_to, group.size - 1))
        try:
            _remove_checked(prunable, removed, inputs)
        except StepError:
            names += group.producers
    return tuple(dict.fromkeys(names))


def _narrow(
    before: PrunedModule,
    inputs: Sequence[torch.Tensor],
    criterion: PruningCriterion,
    target: PruningTarget,
    batches: Iterable[Sequence[torch.Tensor]],
) -> PrunedModule:
    prunable, cost = _inspect(before, inputs, criterion)
    module, importance = prunable.module, criterion.importance
    if importance in GRADIENTS:
        accumulate_gradients(importance, module, batches, criterion.seed)
    scores = score_channels(importance, prunable.groups, criterion.seed)
    ratio = min(1.0, target.ratio / before.ratio(target.measure))
    selection = select_channels(
        scores, cost, replace(target, ratio=ratio),
        scope=criterion.scope, round_to=criterion.round_to,
    )  # fmt: skip
    module.zero_grad(set_to_none=True)
    outputs = dict(before.outputs)
    for group, removed in zip(prunable.groups, selection.removed, strict=True):
        _update_outputs(outputs, group, removed)
    _remove_checked(prunable, selection.removed, inputs)
    counts = [len(channels) for channels in selection.removed]
    none = [0] * len(counts)
    return PrunedModule(
        module=module.eval(),
        macs=before.macs * cost.macs(counts) / cost.macs(none),
        parameters=before.parameters * cost.parameters(counts) / cost.parameters(none),
        outputs=outputs,
        kept=prunable.kept,
    )


def least_ratio(
    before: PrunedModule,
    inputs: Sequence[torch.Tensor],
    criterion: PruningCriterion,
    measure: Measure,
) -> float:
    """What `narrow` can bring a measure to, as a ratio of the original's."""
    prunable, cost = _inspect(before, inputs, criterion)
    sizes = [group.size for group in prunable.groups]
    measured, most = cost.measured_by(measure), most_removed(sizes, criterion.round_to)
    return before.ratio(measure) * measured(most) / measured([0] * len(sizes))


def _inspect(
    before: PrunedModule, inputs: Sequence[torch.Tensor], criterion: PruningCriterion
) -> tuple[PrunableModule, ModuleCost]:
    """A copy of the module with what of it can be pruned, and what it costs."""
    prunable = find_prunable(copy.deepcopy(before.module), inputs, criterion.keep)
    if not prunable.groups:
        reasons = list(prunable.kept.items())[:5]
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons)
        raise StepError("no layer of the model can be pruned", why, "leave the step Prune out")
    return prunable, count_cost(prunable.module, inputs, prunable.groups)


def _update_outputs(
    outputs: dict[str, tuple[int, ...]], group: ChannelGroup, removed: Sequence[int]
) -> None:
    """Keep account of the original's numbers of a layer's outputs."""
    for member in group.members:
        if not member.output or not removed:
            continue
        size = channel_counts(member.module)[0] if hasattr(member.module, "weight") else 0
        numbers = outputs.get(member.name, tuple(range(size)))
        gone = {position for channel in removed for position in member.positions[channel]}
        outputs[member.name] = tuple(
            number for position, number in enumerate(numbers) if position not in gone
        )


def _remove_checked(
    prunable: PrunableModule, removed: Sequence[Sequence[int]], inputs: Sequence[torch.Tensor]
) -> None:
    """Take channels out. Raises StepError where the outputs do not keep their shapes."""
    before = _output_shapes(prunable.module, inputs)
    _remove(prunable, removed)
    after = _output_shapes(prunable.module, inputs)
    if before != after:
        raise StepError("pruning changed the shapes of the outputs", f"{before} became {after}")


def _remove(prunable: PrunableModule, removed: Sequence[Sequence[int]]) -> None:
    """Take channels out, those of one traced group at once: its numbers change with each."""
    gone: dict[int, tuple[ChannelGroup, list[int]]] = {}
    for group, numbers in zip(prunable.groups, removed, strict=True):
        _, channels = gone.setdefault(id(group.traced), (group, []))
        channels += [group.channels[number] for number in numbers]
    for group, channels in gone.values():
        if channels:
            handler = group.traced[0].dep.handler
            prunable.graph.get_pruning_group(group.root, handler, sorted(channels)).prune()


def _output_shapes(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor]
) -> list[tuple[int, ...]]:
    try:
        return [tuple(output.shape) for output in run_module(module, inputs)]
    except RuntimeError as error:
        raise HardCodedWidthError(
            "the pruned model does not run",
            str(error).strip().splitlines()[0],
            "its code has a size written into it: name its layers in prune.keep",
        ) from error
