"""Channels that can go: those that hang together by DepGraph, each group tried before it is used.

DepGraph (Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023) as torch-pruning has
it follows the autograd graph, which does not tell everything: a shortcut padded with channels of
zeros, or channels that are shuffled, come out as if they stood where they did. So each group is
permuted: a permutation of its channels, done in every layer where the graph says they are, leaves
the outputs as they are, or the graph is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import RecipeError, StepError, did_you_mean
from workbench.model import flatten
from workbench.pruning.dependencies import followed, traced

if TYPE_CHECKING:
    import torch

    Module = torch.nn.Module

# dB between outputs before and after a permutation: sums in another order, and no more.
ALIKE = 60.0


@dataclass(frozen=True)
class Place:
    """Where a width's channels stand in a layer: of its output, or of its input.

    positions: for each channel, where it stands: several, where a map was flattened before.
    """

    name: str
    module: Any
    output: bool
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Width:
    """Channels that go together, one from every place at once.

    channels: their numbers in the group, of which maps that are joined behind one another have each
    a part; root: the layer whose outputs the group numbers.
    """

    name: str
    root: Any
    channels: tuple[int, ...]
    places: tuple[Place, ...]
    group: Any = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.channels)


@dataclass(frozen=True)
class Prunable:
    """A module's widths, and why the other layers keep theirs, by name."""

    module: Any
    widths: tuple[Width, ...]
    kept: Mapping[str, str]
    graph: Any = field(repr=False)


def prunable(module: Module, inputs: Sequence[torch.Tensor], keep: Sequence[str] = ()) -> Prunable:
    """The widths of a module, which is traced with inputs [N, ...] in call order.

    keep: patterns of names, `*` for anything, of layers that keep their outputs' channels. What
    makes the module's outputs always does. Raises RecipeError for a pattern that matches nothing,
    ModelError where the module cannot be traced.
    """
    import torch

    asked = _matching(module, keep)
    module.requires_grad_(True)
    graph = traced(module, inputs)
    names = {layer: name for name, layer in module.named_modules()}
    roots = [torch.nn.modules.conv._ConvNd, torch.nn.Linear]
    before = _outputs(module, inputs)
    widths: list[Width] = []
    kept: dict[str, str] = {}
    groups, endless = followed(graph, roots)
    kept |= {names[layer]: "which layers hang on it could not be followed" for layer in endless}
    for width in (one for group in groups for one in _widths(group, graph, names)):
        makers = [one.name for one in width.places if one.output and is_product(one.module)]
        reason = next((f"'{asked[name]}' keeps it" for name in makers if name in asked), "")
        reason = reason or _unfit(width) or _mixed(module, width, inputs, before)
        if reason:
            kept |= dict.fromkeys(makers, reason)
        else:
            widths.append(width)
    named = {place.name for width in widths for place in width.places}
    idle = [
        name for name, layer in module.named_modules()
        if is_product(layer) and name not in named and name not in kept
    ]  # fmt: skip
    kept |= dict.fromkeys(idle, "it did not run")
    return Prunable(module, tuple(widths), kept, graph)


def is_product(layer: Any) -> bool:
    from torch import nn

    return isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)


def _matching(module: Module, patterns: Sequence[str]) -> dict[str, str]:
    """Layers by name with the pattern that names them."""
    names = [name for name, _ in module.named_modules() if name]
    found: dict[str, str] = {}
    for pattern in patterns:
        wanted = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        hits = [one for one in names if any(wanted.fullmatch(part) for part in _within(one))]
        if not hits:
            raise RecipeError(
                f"keep: no layer is named '{pattern}'", "", did_you_mean(pattern, names)
            )
        found |= dict.fromkeys(hits, pattern)
    return found


def _within(name: str) -> list[str]:
    """A layer's name and those of the blocks that it is in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _widths(group: Any, graph: Any, names: Mapping[Any, str]) -> list[Width]:
    """A group's channels, apart where they stand in other places."""
    places = []
    for item in group:
        layer = item.dep.target.module
        if layer in names or type(layer).__name__ == "Parameter":
            where: list[list[int]] = [[] for _ in group[0].idxs]
            for at, channel in zip(item.idxs, item.root_idxs, strict=True):
                where[channel].append(int(at))
            name = names.get(layer) or graph._param_to_name.get(layer, "")
            output = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
            places.append(Place(name, layer, output, tuple(map(tuple, where))))
    alike: dict[tuple[int, ...], list[int]] = {}
    for channel in range(len(group[0].idxs)):
        pattern = tuple(len(place.positions[channel]) for place in places)
        alike.setdefault(pattern, []).append(channel)
    return [
        _width(group, tuple(channels), [one for one, count in zip(places, pattern, strict=True)
                                        if count])
        for pattern, channels in alike.items()
    ]  # fmt: skip


def _width(group: Any, channels: tuple[int, ...], places: Sequence[Place]) -> Width:
    own = tuple(
        replace(one, positions=tuple(one.positions[channel] for channel in channels))
        for one in places
    )
    # A depthwise convolution hands on what others make.
    makers = [one for one in own if one.output and getattr(one.module, "groups", 1) == 1]
    name = next((one.name for one in makers if hasattr(one.module, "weight")), own[0].name)
    return Width(name, group[0].dep.target.module, channels, own, group)


def _unfit(width: Width) -> str:
    """Why a width cannot be narrowed by what it is; '' where it may."""
    import torch
    from torch import nn

    conv = nn.modules.conv._ConvNd
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU, nn.Embedding)
    for place in width.places:
        layer = place.module
        if isinstance(layer, torch.nn.Parameter):
            return f"the parameter {place.name} has its size"
        if isinstance(layer, conv):
            if layer.groups > 1 and layer.groups != layer.in_channels:
                return f"{place.name} is a grouped convolution"
            if layer.groups > 1 and layer.groups != layer.out_channels:
                return f"{place.name} is a depthwise convolution with a multiplier"
        elif not isinstance(layer, (nn.Linear, *norms)):
            return f"{place.name} is a {type(layer).__name__}"
    if all(place.output for place in width.places) and not _inside(width):
        return "it makes the outputs"
    return ""


def _inside(width: Width) -> bool:
    """Whether a depthwise convolution takes them: it has them as inputs and outputs at once."""
    return any(getattr(place.module, "groups", 1) > 1 for place in width.places)


def _mixed(module: Module, width: Width, inputs: Sequence[torch.Tensor], before: list[Any]) -> str:
    """Why a permutation of the channels changes the outputs; '' where it does not."""
    order = np.random.default_rng(0).permutation(width.size)
    if width.size < 2:
        return "it has one channel"
    saved = [(place.module, _tensors(place.module)) for place in width.places]
    try:
        for place in width.places:
            _permute(place, order)
        after = _outputs(module, inputs)
    except (RuntimeError, IndexError):
        return "its channels are not where the graph has them"
    finally:
        for layer, tensors in reversed(saved):
            for name, tensor in tensors.items():
                getattr(layer, name).data = tensor
    if all(_alike(a, b) for a, b in zip(before, after, strict=True)):
        return ""
    return "its channels are padded, reordered or mixed on their way, or are the model's outputs"


def _tensors(layer: Any) -> dict[str, torch.Tensor]:
    names = ("weight", "bias", "running_mean", "running_var")
    found = {name: getattr(layer, name, None) for name in names}
    return {name: tensor.data for name, tensor in found.items() if tensor is not None}


def _permute(place: Place, order: Any) -> None:
    """Put each channel of a layer where another was."""
    import torch

    layer = place.module
    for name, tensor in _tensors(layer).items():
        axis = _axis(layer, name, place.output)
        if axis is None:
            continue
        index = torch.arange(tensor.shape[axis])
        for channel, source in enumerate(order):
            index[list(place.positions[channel])] = torch.tensor(
                place.positions[source], dtype=torch.long
            )
        getattr(layer, name).data = tensor.index_select(axis, index)


def _axis(layer: Any, tensor: str, output: bool) -> int | None:
    """The axis of a layer's tensor that its outputs, or inputs, run along; None for none."""
    from torch import nn

    if isinstance(layer, nn.Embedding):
        return 1
    if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
        if getattr(layer, "groups", 1) > 1:  # depthwise
            return 0
        if not output:
            return (0 if getattr(layer, "transposed", False) else 1) if tensor == "weight" else None
        return 1 if tensor == "weight" and getattr(layer, "transposed", False) else 0
    return None if isinstance(layer, nn.PReLU) and layer.num_parameters == 1 else 0


def channels(layer: Any) -> tuple[int, int]:
    """A layer's channels: of its output, of its input."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels, layer.in_channels
    size = (
        layer.weight.shape[-1]
        if getattr(layer, "weight", None) is not None
        else (getattr(layer, "num_features", 0))
    )
    return int(size), int(size)


def _outputs(module: Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    import torch

    with torch.no_grad():
        return [tensor for _, tensor in flatten(module(*inputs))]


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    a, b = one.double(), other.double()
    noise, signal = float(((a - b) ** 2).sum()), float((a**2).sum())
    return bool(noise <= signal * 10 ** (-ALIKE / 10))


def check_shapes(before: list[torch.Tensor], after: list[torch.Tensor]) -> None:
    """That pruning left the outputs their shapes. Raises StepError."""
    one, other = [tuple(t.shape) for t in before], [tuple(t.shape) for t in after]
    if one != other:
        raise StepError("pruning changed the shapes of the outputs", f"{one} became {other}")
