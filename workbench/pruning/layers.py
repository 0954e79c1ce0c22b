"""Layers of a torch module: their kinds, and along which axes their channels run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def is_convolution(layer: Any) -> bool:
    """Of any rank, transposed ones too."""
    from torch import nn

    return isinstance(layer, nn.modules.conv._ConvNd)


def is_batch_norm(layer: Any) -> bool:
    """Of any rank."""
    from torch import nn

    return isinstance(layer, nn.modules.batchnorm._BatchNorm)


def is_product(layer: Any) -> bool:
    """Whether a layer multiplies its input by weights: convolutions and linear layers."""
    from torch import nn

    return isinstance(layer, nn.Linear) or is_convolution(layer)


def product_layers(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """The convolutions and linear layers of a module, with their names."""
    return [(name, layer) for name, layer in module.named_modules() if is_product(layer)]


def channel_counts(layer: Any) -> tuple[int, int]:
    """A layer's channels: of its output, of its input."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels, layer.in_channels
    weight = getattr(layer, "weight", None)
    size = int(weight.shape[-1] if weight is not None else getattr(layer, "num_features", 0))
    return size, size


def channel_tensors(layer: Any) -> dict[str, torch.Tensor]:
    """A layer's tensors that have its channels along some axis, by attribute."""
    names = ("weight", "bias", "running_mean", "running_var")
    tensors = {name: getattr(layer, name, None) for name in names}
    return {name: tensor.data for name, tensor in tensors.items() if tensor is not None}


def channel_axis(layer: Any, tensor: str, output: bool) -> int | None:
    """The axis of a layer's tensor that its outputs, or inputs, run along; None for none."""
    from torch import nn

    if isinstance(layer, nn.Embedding):
        return 1
    if is_product(layer):
        if getattr(layer, "groups", 1) > 1:  # depthwise
            return 0
        transposed = bool(getattr(layer, "transposed", False))
        if not output:
            return (0 if transposed else 1) if tensor == "weight" else None
        return 1 if tensor == "weight" and transposed else 0
    return None if isinstance(layer, nn.PReLU) and layer.num_parameters == 1 else 0


def run_module(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A module's outputs for inputs [N, ...] in call order, flattened; no gradients."""
    import torch

    from workbench.model import flatten

    with torch.no_grad():
        return [tensor for _, tensor in flatten(module(*inputs))]
