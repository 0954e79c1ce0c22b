"""What a module costs at given widths: multiply-accumulates and parameters, without building it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.pruning.groups import ChannelGroup
from workbench.pruning.layers import (
    channel_counts,
    is_batch_norm,
    is_product,
    product_layers,
    run_module,
)

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LayerCost:
    """A convolution or linear layer, or another that has one parameter or two a channel.

    Attributes:
        uses: of its kernel a sample, 0 where it multiplies nothing.
        kernel: products of one use, for one input and output channel.
        out_size, in_size: its channels.
        depthwise: each output has one input.
        extra: parameters of each output channel beside the kernel's.
        outputs, inputs: pairs of a group's number and the channels that the layer loses with each
            channel of that group.
    """

    uses: int
    kernel: int
    out_size: int
    in_size: int
    depthwise: bool
    extra: int
    outputs: tuple[tuple[int, int], ...]
    inputs: tuple[tuple[int, int], ...]

    def sizes(self, removed: Sequence[int]) -> tuple[int, int]:
        """Output and input channels that are left of those that each output multiplies."""
        out = self.out_size - sum(each * removed[group] for group, each in self.outputs)
        inside = self.in_size - sum(each * removed[group] for group, each in self.inputs)
        return out, 1 if self.depthwise else inside

    def macs(self, removed: Sequence[int]) -> int:
        """Multiply-accumulates of one sample, where each group lost so many channels."""
        out, inside = self.sizes(removed)
        return self.uses * self.kernel * out * inside

    def parameters(self, removed: Sequence[int]) -> int:
        """Parameters that are left."""
        out, inside = self.sizes(removed)
        return self.kernel * out * inside + self.extra * out


@dataclass(frozen=True)
class ModuleCost:
    """The layers of a module, and what no group decides.

    Attributes:
        fixed_macs: of products outside its layers, attention's.
        fixed_parameters: of the others.
    """

    layers: tuple[LayerCost, ...]
    fixed_macs: int
    fixed_parameters: int

    def macs(self, removed: Sequence[int]) -> int:
        """Multiply-accumulates of one sample, where each group lost so many channels."""
        return self.fixed_macs + sum(layer.macs(removed) for layer in self.layers)

    def parameters(self, removed: Sequence[int]) -> int:
        """Parameters that are left."""
        return self.fixed_parameters + sum(layer.parameters(removed) for layer in self.layers)

    def measured_by(self, measure: str) -> Callable[[Sequence[int]], int]:
        """`macs` or `parameters`."""
        return self.macs if measure == "macs" else self.parameters


def count_cost(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor], groups: Sequence[ChannelGroup]
) -> ModuleCost:
    """A module's cost, by a run on inputs [N, ...] in call order."""
    uses = _kernel_uses(module, inputs)
    layers = [
        _layer_cost(layer, uses.get(layer, 0) // len(inputs[0]), groups)
        for layer in module.modules()
        if _has_channels(layer)
    ]
    unpruned = [0] * len(groups)
    macs = sum(layer.macs(unpruned) for layer in layers)
    parameters = sum(layer.parameters(unpruned) for layer in layers)
    return ModuleCost(
        tuple(layers),
        max(0, count_macs(module, inputs) - macs),
        sum(tensor.numel() for tensor in module.parameters()) - parameters,
    )


def count_macs(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> int:
    """Multiply-accumulates of one sample, as torch counts the operators that it runs."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run_module(module, inputs)
    return int(counter.get_total_flops()) // 2 // len(inputs[0])


def _has_channels(layer: Any) -> bool:
    from torch import nn

    return is_product(layer) or is_batch_norm(layer) or isinstance(layer, nn.LayerNorm)


def _kernel_uses(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> dict[Any, int]:
    """How often each layer's kernel is used: for each place of its output, over all samples."""
    import torch

    uses: dict[Any, int] = {}

    def count(layer: Any, arguments: Any, output: Any) -> None:
        # A transposed convolution uses its kernel for each place of its input.
        tensor = arguments[0] if getattr(layer, "transposed", False) else output
        axis = -1 if isinstance(layer, torch.nn.Linear) else 1
        uses[layer] = uses.get(layer, 0) + tensor.numel() // tensor.shape[axis]

    hooks = [layer.register_forward_hook(count) for _, layer in product_layers(module)]
    try:
        run_module(module, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return uses


def _layer_cost(layer: Any, uses: int, groups: Sequence[ChannelGroup]) -> LayerCost:
    members = [
        (number, member) for number, group in enumerate(groups) for member in group.members
        if member.module is layer
    ]  # fmt: skip
    outputs, inputs = (
        tuple((number, len(member.positions[0])) for number, member in members
              if member.output is output)
        for output in (True, False)
    )  # fmt: skip
    if not is_product(layer):
        count = sum(tensor.numel() for tensor in layer.parameters())
        size = int(layer.weight.shape[0]) if count else 0
        return LayerCost(0, 0, size, 1, True, count // size if size else 0, outputs, ())
    out, inside = channel_counts(layer)
    groups_of_layer = int(getattr(layer, "groups", 1))
    depthwise = groups_of_layer > 1
    kernel, extra = layer.weight[0][0].numel(), int(layer.bias is not None)
    if depthwise and groups_of_layer != out:  # grouped: its widths stay
        return LayerCost(uses, kernel * inside // groups_of_layer, out, 1, True, extra, (), ())
    return LayerCost(
        uses, kernel, out, inside, depthwise, extra, outputs, () if depthwise else inputs
    )
