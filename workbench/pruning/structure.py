"""A module made narrower: what goes is chosen, taken out of every layer, and tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from workbench.errors import StepError
from workbench.model import flatten
from workbench.pruning import importance
from workbench.pruning.cost import Cost, counted
from workbench.pruning.groups import Prunable, Width, channels, check_shapes, is_product, prunable
from workbench.pruning.selection import most_removed, select

if TYPE_CHECKING:
    import torch

Measure = Literal["macs", "parameters"]


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """How channels are chosen: see the options of the step `Prune`, whose words these are."""

    importance: importance.Importance
    scope: Literal["local", "global"]
    round_to: int
    keep: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """A narrower module. macs, parameters: what is left, as ratios of the original's.

    outputs: for each layer that lost output channels, the original's numbers of those it has;
    kept: the layers that could not be narrowed, with the reason.
    """

    module: Any
    macs: float
    parameters: float
    outputs: Mapping[str, tuple[int, ...]]
    kept: Mapping[str, str]


def unpruned(module: torch.nn.Module) -> Pruned:
    """Where pruning begins."""
    return Pruned(module=module, macs=1.0, parameters=1.0, outputs={}, kept={})


def narrowed(
    before: Pruned,
    inputs: Sequence[torch.Tensor],
    criterion: Criterion,
    measure: Measure,
    target: float,
    batches: Iterable[Sequence[torch.Tensor]] = (),
) -> Pruned:
    """A copy with fewer channels, whose MACs or parameters are at most `target` of the original's.

    inputs: [N, ...] in call order; batches: such, for criteria that need gradients. Raises
    StepError where the target is out of reach, or nothing can be pruned. Widths that the module's
    code has written into it stay as they are.
    """
    try:
        return _narrowed(before, inputs, criterion, measure, target, batches)
    except WrittenError:
        written = _written(before, inputs, criterion)
        if not written:
            raise
        keeping = replace(criterion, keep=(*criterion.keep, *written))
        made = _narrowed(before, inputs, keeping, measure, target, batches)
        why = "its width is written into the model's code"
        return replace(made, kept={**made.kept, **dict.fromkeys(written, why)})


class WrittenError(StepError):
    """The module does not run with fewer channels."""


def _written(
    before: Pruned, inputs: Sequence[torch.Tensor], criterion: Criterion
) -> tuple[str, ...]:
    """The layers that the module does not run without some channels of, each tried alone."""
    import copy

    names = []
    count = len(_looked(before, inputs, criterion)[1].widths)
    for at in range(count):
        found = prunable(copy.deepcopy(before.module), inputs, criterion.keep)
        width = found.widths[at]
        shapes = _run(found.module, inputs)
        removed: list[Sequence[int]] = [()] * count
        removed[at] = range(min(criterion.round_to, len(width.channels) - 1))
        _remove(found, removed)
        try:
            check_shapes(shapes, _run(found.module, inputs))
        except StepError:
            names += [one.name for one in width.places if one.output and is_product(one.module)]
    return tuple(dict.fromkeys(names))


def _narrowed(
    before: Pruned,
    inputs: Sequence[torch.Tensor],
    criterion: Criterion,
    measure: Measure,
    target: float,
    batches: Iterable[Sequence[torch.Tensor]],
) -> Pruned:
    module, found, cost = _looked(before, inputs, criterion)
    if criterion.importance in importance.GRADIENTS:
        importance.accumulate(criterion.importance, module, batches, criterion.seed)
    scores = importance.scores(criterion.importance, found.widths, criterion.seed)
    already = {"macs": before.macs, "parameters": before.parameters}
    chosen = select(
        scores, cost, measure, min(1.0, target / already[measure]),
        scope=criterion.scope, round_to=criterion.round_to,
    )  # fmt: skip
    module.zero_grad(set_to_none=True)
    outputs = dict(before.outputs)
    for width, removed in zip(found.widths, chosen.removed, strict=True):
        _note(outputs, width, removed)
    shapes = _run(module, inputs)
    _remove(found, chosen.removed)
    check_shapes(shapes, _run(module, inputs))
    counts = [len(one) for one in chosen.removed]
    none = [0] * len(counts)
    return Pruned(
        module=module.eval(),
        macs=before.macs * cost.macs(counts) / cost.macs(none),
        parameters=before.parameters * cost.parameters(counts) / cost.parameters(none),
        outputs=outputs,
        kept=found.kept,
    )


def least(
    before: Pruned, inputs: Sequence[torch.Tensor], criterion: Criterion, measure: Measure
) -> float:
    """What `narrowed` can bring a measure to, as a ratio of the original's."""
    _, found, cost = _looked(before, inputs, criterion)
    sizes = [len(width.channels) for width in found.widths]
    whole, most = cost.of(measure), most_removed(sizes, criterion.round_to)
    return float(getattr(before, measure)) * whole(most) / whole([0] * len(sizes))


def _looked(
    before: Pruned, inputs: Sequence[torch.Tensor], criterion: Criterion
) -> tuple[torch.nn.Module, Prunable, Cost]:
    """A copy of the module, what of it can be pruned, and what it costs."""
    import copy

    module = copy.deepcopy(before.module)
    found = prunable(module, inputs, criterion.keep)
    if not found.widths:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(found.kept.items())[:5])
        raise StepError("no layer of the model can be pruned", why, "leave the step Prune out")
    return module, found, counted(module, inputs, found.widths)


def _note(outputs: dict[str, tuple[int, ...]], width: Width, removed: Sequence[int]) -> None:
    """Keep account of the original's numbers of a layer's outputs."""
    for place in width.places:
        if not place.output or not removed:
            continue
        size = channels(place.module)[0] if hasattr(place.module, "weight") else 0
        now = outputs.get(place.name, tuple(range(size)))
        gone = {at for channel in removed for at in place.positions[channel]}
        outputs[place.name] = tuple(one for at, one in enumerate(now) if at not in gone)


def _remove(found: Prunable, removed: Sequence[Sequence[int]]) -> None:
    """Take channels out, those of one group at once: its numbers change with each of them."""
    gone: dict[int, tuple[Width, list[int]]] = {}
    for width, places in zip(found.widths, removed, strict=True):
        _, channels = gone.setdefault(id(width.group), (width, []))
        channels += [width.channels[at] for at in places]
    for width, channels in gone.values():
        if channels:
            handler = width.group[0].dep.handler
            found.graph.get_pruning_group(width.root, handler, sorted(channels)).prune()


def _run(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    import torch

    try:
        with torch.no_grad():
            return [tensor for _, tensor in flatten(module(*inputs))]
    except RuntimeError as error:
        raise WrittenError(
            "the pruned model does not run",
            str(error).strip().splitlines()[0],
            "its code has a size written into it: name its layers in prune.keep",
        ) from error
