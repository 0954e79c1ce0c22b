"""How much a channel matters: torch-pruning's criteria, whose gradients need no labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import StepError
from workbench.model import flatten

if TYPE_CHECKING:
    import torch

    from workbench.pruning.groups import Width
    from workbench.pruning.selection import Scores

Importance = Literal["l1", "l2", "bn", "fpgm", "taylor", "lamp", "hessian", "random"]
GRADIENTS = ("taylor", "hessian")


def scores(name: Importance, widths: Sequence[Width], seed: int) -> list[Scores]:
    """The importance [channels] of each width, of mean 1 so that widths compare; LAMP as it is.

    Taylor and Hessian need gradients first: see `accumulate`. Raises StepError where a criterion
    says nothing of a width: BN's scale of one without batch normalization.
    """
    import torch

    measure = _criterion(name)
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in widths:
            made = measure(width.group)
            if made is None:
                raise StepError(
                    f"importance {name} says nothing of {width.name}",
                    "no batch normalization follows it" if name == "bn" else "",
                    f"use another importance, or --set prune.keep={width.name}",
                )
            one = made.detach().double().cpu().numpy()[list(width.channels)]
            if not np.isfinite(one).all():
                raise StepError(f"importance {name} of {width.name} is not finite")
            found.append(one)
    return found


def _criterion(name: Importance) -> Any:
    from torch_pruning.pruner import importance as known

    if name in ("l1", "l2"):
        return known.GroupMagnitudeImportance(p=int(name[1]))
    kinds = {
        "bn": known.BNScaleImportance,  # Liu et al. 2017, Network Slimming
        "fpgm": known.FPGMImportance,  # He et al. 2019
        "taylor": known.GroupTaylorImportance,  # Molchanov et al. 2019
        "lamp": known.LAMPImportance,  # Lee et al. 2021
        "hessian": known.GroupHessianImportance,  # LeCun et al. 1989, Optimal Brain Damage
        "random": known.RandomImportance,
    }
    return kinds[name]()


def accumulate(
    name: Importance, module: torch.nn.Module, batches: Iterable[Sequence[torch.Tensor]], seed: int
) -> None:
    """Leave in each parameter's `grad` what a criterion reads there, by samples without labels.

    Classes are drawn from the model's own distribution, a sample at a time. Taylor: the mean size
    of the gradient, for the mean itself is near 0 where training ended, and says nothing. Hessian:
    the mean square, the diagonal of the Fisher information; torch-pruning's own sum keeps the last
    sample alone. Outputs that are no classes [N, C] are taken for regression: Gaussian draws.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums = {one: torch.zeros_like(one) for one in module.parameters()}
    count = 0
    with torch.enable_grad():
        for batch in batches:
            for row in range(len(batch[0])):
                module.zero_grad(set_to_none=True)
                _back(_loss(module(*[one[row : row + 1] for one in batch]), generator))
                count += 1
                for one in sums:
                    if one.grad is not None:
                        sums[one] += one.grad.abs() if name == "taylor" else one.grad**2
    for one, total in sums.items():
        one.grad = total / max(1, count)


def _back(loss: torch.Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _loss(output: Any, generator: torch.Generator) -> torch.Tensor:
    """A negative log-likelihood of an outcome that a generator draws."""
    import torch
    from torch.nn import functional

    total: Any = 0.0
    for _, tensor in flatten(output):
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 2 and tensor.shape[1] > 1:
            likely = tensor.detach().softmax(1)
            drawn = torch.multinomial(likely, 1, generator=generator)[:, 0]
            total = total + functional.cross_entropy(tensor, drawn, reduction="sum")
        else:
            noise = torch.randn(tensor.shape, generator=generator)
            total = total + 0.5 * ((tensor - tensor.detach() - noise) ** 2).sum()
    return torch.as_tensor(total)
