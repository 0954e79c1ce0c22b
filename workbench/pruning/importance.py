"""How much a channel matters: torch-pruning's criteria, whose gradients need no labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from workbench.errors import StepError
from workbench.model import flatten

if TYPE_CHECKING:
    import torch

    from workbench.pruning.groups import ChannelGroup
    from workbench.pruning.selection import Scores

Importance = Literal["l1", "l2", "bn", "fpgm", "taylor", "lamp", "hessian", "random"]
GRADIENTS = ("taylor", "hessian")


def score_channels(
    importance: Importance, groups: Sequence[ChannelGroup], seed: int
) -> list[Scores]:
    """The importance [channels] of each group, of mean 1 so that groups compare; LAMP as it is.

    Taylor and Hessian need gradients first: see `accumulate_gradients`. Raises StepError where a
    criterion says nothing of a group: BN's scale of one without batch normalization.
    """
    import torch

    measure = _criterion(importance)
    scores = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for group in groups:
            tensor = measure(group.traced)
            if tensor is None:
                raise StepError(
                    f"importance {importance} says nothing of {group.name}",
                    "no batch normalization follows it" if importance == "bn" else "",
                    f"use another importance, or --set prune.keep={group.name}",
                )
            own = tensor.detach().double().cpu().numpy()[list(group.channels)]
            if not np.isfinite(own).all():
                raise StepError(f"importance {importance} of {group.name} is not finite")
            scores.append(own)
    return scores


def _criterion(importance: Importance) -> Any:
    from torch_pruning.pruner import importance as criteria

    if importance in ("l1", "l2"):
        return criteria.GroupMagnitudeImportance(p=int(importance[1]))
    classes = {
        "bn": criteria.BNScaleImportance,  # Liu et al. 2017, Network Slimming
        "fpgm": criteria.FPGMImportance,  # He et al. 2019
        "taylor": criteria.GroupTaylorImportance,  # Molchanov et al. 2019
        "lamp": criteria.LAMPImportance,  # Lee et al. 2021
        "hessian": criteria.GroupHessianImportance,  # LeCun et al. 1989, Optimal Brain Damage
        "random": criteria.RandomImportance,
    }
    return classes[importance]()


def accumulate_gradients(
    importance: Importance,
    module: torch.nn.Module,
    batches: Iterable[Sequence[torch.Tensor]],
    seed: int,
) -> None:
    """Leave in each parameter's `grad` what a criterion reads there, by samples without labels.

    Classes are drawn from the model's own distribution, a sample at a time. Taylor: the mean size
    of the gradient, for the mean itself is near 0 where training ended, and says nothing. Hessian:
    the mean square, the diagonal of the Fisher information; torch-pruning's own sum keeps the last
    sample alone. Outputs that are no classes [N, C] are taken for regression: Gaussian draws.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    sums = {parameter: torch.zeros_like(parameter) for parameter in module.parameters()}
    count = 0
    with torch.enable_grad():
        for batch in batches:
            for row in range(len(batch[0])):
                module.zero_grad(set_to_none=True)
                output = module(*[tensor[row : row + 1] for tensor in batch])
                _sampled_loss(output, generator).backward()  # type: ignore[no-untyped-call]
                count += 1
                for parameter in sums:
                    gradient = parameter.grad
                    if gradient is not None:
                        taylor = importance == "taylor"
                        sums[parameter] += gradient.abs() if taylor else gradient**2
    for parameter, total in sums.items():
        parameter.grad = total / max(1, count)


def _sampled_loss(output: Any, generator: torch.Generator) -> torch.Tensor:
    """A negative log-likelihood of an outcome that a generator draws."""
    import torch
    from torch.nn import functional

    total: Any = 0.0
    for _, tensor in flatten(output):
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 2 and tensor.shape[1] > 1:
            probabilities = tensor.detach().softmax(1)
            drawn = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            total = total + functional.cross_entropy(tensor, drawn, reduction="sum")
        else:
            noise = torch.randn(tensor.shape, generator=generator)
            total = total + 0.5 * ((tensor - tensor.detach() - noise) ** 2).sum()
    return torch.as_tensor(total)
