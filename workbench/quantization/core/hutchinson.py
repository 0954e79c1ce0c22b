"""How errors inside a network reach its outputs, by gradients of random projections of them.

An error e of a tensor reaches the outputs as J e, J the Jacobian. For a vector v of random signs
over the outputs, E_v[(vᵀ J e)²] = |J e|², and vᵀ J is one backward pass (Hutchinson, "A stochastic
estimator of the trace of the influence matrix", 1989).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.samples import Feeds


def run_with_leaves(
    network: Network, feeds: Feeds, tensors: Collection[str]
) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Values of the float tensors among `tensors`, and the outputs that depend on them.

    Gradients reach each of them: those that depend on no other one of them begin anew.
    """
    leaves: dict[str, torch.Tensor] = {}

    def record(name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in tensors or not value.is_floating_point():
            return value
        if not value.requires_grad:
            value = value.detach().requires_grad_()
        leaves[name] = value
        return value

    def hook(node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        for index, (name, value) in enumerate(zip(node.outputs, outputs, strict=False)):
            outputs[index] = record(name, value)
        return outputs

    inputs = {name: record(name, value) for name, value in feeds.items()}
    outputs = network.run(inputs, hook)
    ends = [outputs[name] for name in network.outputs]
    return leaves, [end for end in ends if end.is_floating_point() and end.requires_grad]


def projected_gradients(
    ends: list[torch.Tensor],
    tensors: list[torch.Tensor],
    draws: int,
    generator: torch.Generator,
) -> Iterator[tuple[torch.Tensor | None, ...]]:
    """For each draw the gradients of Σ v · outputs at `tensors`; None where there is none.

    v: random signs, each output over its own root mean square where there are several.
    """
    import torch

    for draw in range(draws):
        total = torch.zeros(())
        for end in ends:
            signs = torch.randint(0, 2, end.shape, generator=generator).to(end.dtype) * 2 - 1
            size = end.detach().square().mean().sqrt().clamp_min(1e-12) if len(ends) > 1 else 1
            total = total + (signs * end / size).sum()
        yield torch.autograd.grad(total, tensors, allow_unused=True, retain_graph=draw + 1 < draws)
