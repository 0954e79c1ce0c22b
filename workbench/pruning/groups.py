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

from workbench.errors import RecipeError, did_you_mean
from workbench.pruning.dependencies import follow_groups, trace_dependencies
from workbench.pruning.layers import (
    channel_axis,
    channel_tensors,
    is_convolution,
    is_product,
    product_layers,
    run_module,
)

if TYPE_CHECKING:
    import torch

    Module = torch.nn.Module

# dB between outputs before and after a permutation: sums in another order, and no more.
ALIKE = 60.0


@dataclass(frozen=True)
class GroupMember:
    """Where a group's channels stand in a layer.

    Attributes:
        name: of the layer.
        output: whether they are channels of its output, or of its input.
        positions: for each channel of the group, where it stands: several, where a map was
            flattened before.
    """

    name: str
    module: Any
    output: bool
    positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that go together, one from every member at once.

    Attributes:
        name: of a layer that makes them.
        root: the layer whose outputs torch-pruning's group numbers.
        channels: their numbers there, of which maps that are joined behind one another have each a
            part.
        traced: torch-pruning's group.
    """

    name: str
    root: Any
    channels: tuple[int, ...]
    members: tuple[GroupMember, ...]
    traced: Any = field(repr=False)

    @property
    def size(self) -> int:
        """How many channels."""
        return len(self.channels)

    @property
    def producers(self) -> list[str]:
        """The names of the convolutions and linear layers that make the channels."""
        return [
            member.name for member in self.members if member.output and is_product(member.module)
        ]


@dataclass(frozen=True)
class PrunableModule:
    """A module's groups of channels, and why the other layers keep theirs, by name."""

    module: Any
    groups: tuple[ChannelGroup, ...]
    kept: Mapping[str, str]
    graph: Any = field(repr=False)


def find_prunable(
    module: Module, inputs: Sequence[torch.Tensor], keep: Sequence[str] = ()
) -> PrunableModule:
    """The groups of a module, which is traced with inputs [N, ...] in call order.

    What makes the module's outputs always keeps its channels. Raises RecipeError for a pattern that
    matches nothing, ModelError where the module cannot be traced.

    Args:
        keep: patterns of names, `*` for anything, of layers that keep their outputs' channels.
    """
    import torch

    patterns = _match_patterns(module, keep)
    module.requires_grad_(True)
    graph = trace_dependencies(module, inputs)
    names = {layer: name for name, layer in module.named_modules()}
    traced, endless = follow_groups(graph, [torch.nn.modules.conv._ConvNd, torch.nn.Linear])
    before = run_module(module, inputs)
    groups: list[ChannelGroup] = []
    kept = {names[layer]: "which layers hang on it could not be followed" for layer in endless}
    for group in (part for whole in traced for part in _split_group(whole, graph, names)):
        producers = group.producers
        named = next((patterns[name] for name in producers if name in patterns), "")
        reason = f"'{named}' keeps it" if named else ""
        reason = reason or _why_unfit(group) or _why_mixed(module, group, inputs, before)
        if reason:
            kept |= dict.fromkeys(producers, reason)
        else:
            groups.append(group)
    followed = {member.name for group in groups for member in group.members}
    idle = [name for name, _ in product_layers(module) if name not in followed | kept.keys()]
    kept |= dict.fromkeys(idle, "it did not run")
    return PrunableModule(module, tuple(groups), kept, graph)


def _match_patterns(module: Module, patterns: Sequence[str]) -> dict[str, str]:
    """Layers by name with the pattern that names them, or a block that they are in."""
    names = [name for name, _ in module.named_modules() if name]
    matches: dict[str, str] = {}
    for pattern in patterns:
        expression = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        hits = [name for name in names if any(map(expression.fullmatch, _blocks_of(name)))]
        if not hits:
            raise RecipeError(
                f"keep: no layer is named '{pattern}'", "", did_you_mean(pattern, names)
            )
        matches |= dict.fromkeys(hits, pattern)
    return matches


def _blocks_of(name: str) -> list[str]:
    """A layer's name and those of the blocks that it is in."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _split_group(traced: Any, graph: Any, names: Mapping[Any, str]) -> list[ChannelGroup]:
    """A traced group's channels, apart where they stand in other layers."""
    members = []
    for item in traced:
        layer = item.dep.target.module
        if layer in names or type(layer).__name__ == "Parameter":
            positions: list[list[int]] = [[] for _ in traced[0].idxs]
            for position, channel in zip(item.idxs, item.root_idxs, strict=True):
                positions[channel].append(int(position))
            name = names.get(layer) or graph._param_to_name.get(layer, "")
            output = bool(graph.is_out_channel_pruning_fn(item.dep.handler))
            members.append(GroupMember(name, layer, output, tuple(map(tuple, positions))))
    alike: dict[tuple[int, ...], list[int]] = {}
    for channel in range(len(traced[0].idxs)):
        pattern = tuple(len(member.positions[channel]) for member in members)
        alike.setdefault(pattern, []).append(channel)
    return [
        _channel_group(traced, tuple(channels), [member for member, count in
                                                 zip(members, pattern, strict=True) if count])
        for pattern, channels in alike.items()
    ]  # fmt: skip


def _channel_group(
    traced: Any, channels: tuple[int, ...], members: Sequence[GroupMember]
) -> ChannelGroup:
    own = tuple(
        replace(member, positions=tuple(member.positions[channel] for channel in channels))
        for member in members
    )
    # A depthwise convolution hands on what others make.
    producers = [
        member.name
        for member in own
        if member.output
        and getattr(member.module, "groups", 1) == 1
        and hasattr(member.module, "weight")
    ]
    name = next(iter(producers), own[0].name)
    return ChannelGroup(name, traced[0].dep.target.module, channels, own, traced)


def _why_unfit(group: ChannelGroup) -> str:
    """Why a group cannot lose channels by what it is; '' where it may."""
    import torch
    from torch import nn

    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU, nn.Embedding)
    for member in group.members:
        layer = member.module
        if isinstance(layer, torch.nn.Parameter):
            return f"the parameter {member.name} has its size"
        if is_convolution(layer):
            if layer.groups > 1 and layer.groups != layer.in_channels:
                return f"{member.name} is a grouped convolution"
            if layer.groups > 1 and layer.groups != layer.out_channels:
                return f"{member.name} is a depthwise convolution with a multiplier"
        elif not isinstance(layer, (nn.Linear, *norms)):
            return f"{member.name} is a {type(layer).__name__}"
    # A depthwise convolution has them as inputs and outputs at once.
    taken = any(getattr(member.module, "groups", 1) > 1 for member in group.members)
    if all(member.output for member in group.members) and not taken:
        return "it makes the outputs"
    return ""


def _why_mixed(
    module: Module,
    group: ChannelGroup,
    inputs: Sequence[torch.Tensor],
    before: list[torch.Tensor],
) -> str:
    """Why a permutation of the channels changes the outputs; '' where it does not."""
    order = np.random.default_rng(0).permutation(group.size)
    if group.size < 2:
        return "it has one channel"
    saved = [(member.module, channel_tensors(member.module)) for member in group.members]
    try:
        for member in group.members:
            _permute(member, order)
        after = run_module(module, inputs)
    except (RuntimeError, IndexError):
        return "its channels are not where the graph has them"
    finally:
        for layer, tensors in reversed(saved):
            for name, tensor in tensors.items():
                getattr(layer, name).data = tensor
    if all(_are_alike(a, b) for a, b in zip(before, after, strict=True)):
        return ""
    return "its channels are padded, reordered or mixed on their way, or are the model's outputs"


def _permute(member: GroupMember, order: Any) -> None:
    """Put each channel of a layer where another was."""
    import torch

    layer = member.module
    for name, tensor in channel_tensors(layer).items():
        axis = channel_axis(layer, name, member.output)
        if axis is None:
            continue
        index = torch.arange(tensor.shape[axis])
        for channel, source in enumerate(order):
            index[list(member.positions[channel])] = torch.tensor(
                member.positions[source], dtype=torch.long
            )
        getattr(layer, name).data = tensor.index_select(axis, index)


def _are_alike(before: torch.Tensor, after: torch.Tensor) -> bool:
    if before.shape != after.shape:
        return False
    a, b = before.double(), after.double()
    noise, signal = float(((a - b) ** 2).sum()), float((a**2).sum())
    return bool(noise <= signal * 10 ** (-ALIKE / 10))
