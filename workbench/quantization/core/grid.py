"""Activations on the grid of a range, as the kernels have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.quantization.core.plan import LEVELS, Range, Scheme

if TYPE_CHECKING:
    import torch


def quantized(x: torch.Tensor, found: Range, scheme: Scheme) -> torch.Tensor:
    """Values on the grid of a range, as QuantizeLinear and DequantizeLinear give them."""
    import torch

    scale, zero = found.grid(scheme)
    low, high = (1, 255) if scheme.symmetric else (0, LEVELS)
    return (torch.round(x / float(scale)) + zero).clamp_(low, high).sub_(zero).mul_(float(scale))
