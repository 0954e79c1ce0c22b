"""Weights of least magnitude set to zero: a smaller file once it is compressed, and no faster."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.errors import StepError
from workbench.pruning.layers import product_layers

if TYPE_CHECKING:
    import torch


def mask_smallest(module: torch.nn.Module, share: float, keep: Sequence[str]) -> None:
    """Hold the smallest weights of all convolutions and linear layers at zero, by a mask each.

    Call `make_permanent` when training is over. Raises StepError where no layer is left.

    Args:
        share: of these layers' weights together, chosen by magnitude over all of them (Han et al.,
            "Learning both Weights and Connections", NeurIPS 2015).
        keep: patterns of layers' names that are left.
    """
    from torch.nn.utils import prune

    layers = [
        (layer, "weight")
        for name, layer in product_layers(module)
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in keep)
    ]
    if not layers:
        raise StepError(
            "no layer can be made sparse",
            "the model has no convolution or linear layer that prune.keep leaves",
            "keep fewer layers, or leave sparsity out",
        )
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)


def make_permanent(module: torch.nn.Module) -> None:
    """Zeros in place of masks: a plain module again."""
    from torch.nn.utils import prune

    for _, layer in product_layers(module):
        if hasattr(layer, "weight_mask"):
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]


def zero_share(module: torch.nn.Module) -> float:
    """The share of zeros among the weights of convolutions and linear layers."""
    weights = [layer.weight for _, layer in product_layers(module)]
    total: int = sum(weight.numel() for weight in weights)
    zeros: int = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / max(1, total)
