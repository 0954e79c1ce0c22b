"""What a module costs at given widths: multiply-accumulates and parameters, without building it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.pruning.groups import Width, channels

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer, or another that has one parameter or two a channel.

    uses: of its kernel a sample, 0 where it multiplies nothing; kernel: products of one use, for
    one input and output channel; depthwise: each output has one input. outputs, inputs: channels
    that it loses with each channel of a width, by the width's place.
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
        out = self.out_size - sum(each * removed[at] for at, each in self.outputs)
        inside = self.in_size - sum(each * removed[at] for at, each in self.inputs)
        return out, 1 if self.depthwise else inside

    def macs(self, removed: Sequence[int]) -> int:
        out, inside = self.sizes(removed)
        return self.uses * self.kernel * out * inside

    def parameters(self, removed: Sequence[int]) -> int:
        out, inside = self.sizes(removed)
        return self.kernel * out * inside + self.extra * out


@dataclass(frozen=True)
class Cost:
    """The layers of a module, and what no width decides.

    fixed_macs: of products outside its layers, attention's; fixed_parameters: of the others.
    """

    layers: tuple[Layer, ...]
    fixed_macs: int
    fixed_parameters: int

    def macs(self, removed: Sequence[int]) -> int:
        """Of one sample, where each width lost so many channels."""
        return self.fixed_macs + sum(layer.macs(removed) for layer in self.layers)

    def parameters(self, removed: Sequence[int]) -> int:
        return self.fixed_parameters + sum(layer.parameters(removed) for layer in self.layers)

    def of(self, measure: str) -> Callable[[Sequence[int]], int]:
        """`macs` or `parameters`."""
        return self.macs if measure == "macs" else self.parameters


def counted(
    module: torch.nn.Module, inputs: Sequence[torch.Tensor], widths: Sequence[Width]
) -> Cost:
    """A module's cost, by a run on inputs [N, ...] in call order."""
    uses = _uses(module, inputs)
    batch = len(inputs[0])
    layers = [
        _layer(layer, uses.get(layer, 0) // batch, widths)
        for layer in module.modules()
        if _simple(layer)
    ]
    unpruned = [0] * len(widths)
    known = sum(one.macs(unpruned) for one in layers)
    weights = sum(one.parameters(unpruned) for one in layers)
    return Cost(
        tuple(layers),
        max(0, macs_of(module, inputs) - known),
        sum(tensor.numel() for tensor in module.parameters()) - weights,
    )


def macs_of(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> int:
    """Multiply-accumulates of one sample, as torch counts the operators that it runs."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2 // len(inputs[0])


def _simple(layer: Any) -> bool:
    from torch import nn

    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    return isinstance(layer, kinds)


def _uses(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> dict[Any, int]:
    """How often each layer's kernel is used: for each place of its output, over all samples."""
    import torch

    found: dict[Any, int] = {}

    def count(layer: Any, given: Any, output: Any) -> None:
        # A transposed convolution uses its kernel for each place of its input.
        tensor = given[0] if getattr(layer, "transposed", False) else output
        axis = -1 if isinstance(layer, torch.nn.Linear) else 1
        found[layer] = found.get(layer, 0) + tensor.numel() // tensor.shape[axis]

    products = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    hooks = [
        layer.register_forward_hook(count)
        for layer in module.modules()
        if isinstance(layer, products)
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _layer(layer: Any, uses: int, widths: Sequence[Width]) -> Layer:
    from torch import nn

    places = [
        (at, place) for at, width in enumerate(widths) for place in width.places
        if place.module is layer
    ]  # fmt: skip
    outputs = tuple((at, len(one.positions[0])) for at, one in places if one.output)
    inputs = tuple((at, len(one.positions[0])) for at, one in places if not one.output)
    if not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
        count = sum(tensor.numel() for tensor in layer.parameters())
        size = int(layer.weight.shape[0]) if count else 0
        return Layer(0, 0, size, 1, True, count // size if size else 0, outputs, ())
    out, inside = channels(layer)
    depthwise, groups = getattr(layer, "groups", 1) > 1, int(getattr(layer, "groups", 1))
    kernel = layer.weight[0][0].numel()
    if depthwise and groups != out:  # grouped: its widths stay
        return Layer(
            uses, kernel * inside // groups, out, 1, True, int(layer.bias is not None), (), ()
        )
    return Layer(
        uses, kernel, out, inside, depthwise, int(layer.bias is not None), outputs,
        () if depthwise else inputs,
    )  # fmt: skip
