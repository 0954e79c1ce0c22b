"""Weights of least magnitude set to zero: a smaller file once it is compressed, and no faster."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import StepError

if TYPE_CHECKING:
    import torch


def masked(module: torch.nn.Module, share: float, keep: Sequence[str]) -> None:
    """Hold the smallest weights of all convolutions and linear layers at zero, by a mask each.

    share: of these layers' weights together, chosen by magnitude over all of them (Han et al.,
    "Learning both Weights and Connections", NeurIPS 2015). keep: patterns of layers' names that are
    left. Call `permanent` when training is over. Raises StepError where no layer is left.
    """
    from torch.nn.utils import prune

    layers = [(layer, "weight") for name, layer in _layers(module) if not _kept(name, keep)]
    if not layers:
        raise StepError(
            "no layer can be made sparse",
            "the model has no convolution or linear layer that prune.keep leaves",
            "keep fewer layers, or leave sparsity out",
        )
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=share)


def permanent(module: torch.nn.Module) -> None:
    """Zeros in place of masks: a plain module again."""
    from torch.nn.utils import prune

    for _, layer in _layers(module):
        if hasattr(layer, "weight_mask"):
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]


def zeros(module: torch.nn.Module) -> float:
    """The share of zeros among the weights of convolutions and linear layers."""
    weights = [layer.weight for _, layer in _layers(module)]
    total: int = sum(one.numel() for one in weights)
    none: int = sum(int((one == 0).sum()) for one in weights)
    return none / max(1, total)


def _layers(module: torch.nn.Module) -> list[tuple[str, Any]]:
    from torch import nn

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [(name, one) for name, one in module.named_modules() if isinstance(one, kinds)]


def _kept(name: str, keep: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in keep)
