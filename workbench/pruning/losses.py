"""What a student is trained for: the teacher's outputs and features, or labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.model import flatten

if TYPE_CHECKING:
    import torch

    Module = torch.nn.Module

FEATURES = 4  # layers whose outputs are compared, evenly over the depth


@dataclass
class Features:
    """Outputs of the watched layers in the last run, by name, of each of the two."""

    teacher: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss of a student, which `__call__` gives for a batch.

    layers: those whose outputs are compared, with the teacher's channels that the student has.
    labels: whether labels count too, as much as the teacher; varied: whether images are varied.
    """

    temperature: float = 2.0
    features: float = 1.0
    layers: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    labels: bool = False
    varied: bool = True

    def __call__(
        self,
        teacher: Module,
        student: Module,
        batch: Sequence[torch.Tensor],
        labels: torch.Tensor | None,
        features: Features,
        share: float = 1.0,
    ) -> torch.Tensor:
        """share: of the features' weight that counts now."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            wanted = _floats(teacher(*batch))
        made = _floats(student(*batch))
        total = torch.stack([self._outputs(a, b) for a, b in zip(made, wanted, strict=True)]).sum()
        for name, kept in self.layers.items() if share else ():
            if name not in features.teacher or name not in features.student:
                continue  # a branch that these samples do not take
            target, own = features.teacher[name], features.student[name]
            if kept is not None:
                target = target[:, list(kept)]
            scale = target.var().clamp_min(1e-12)
            total = total + share * self.features * functional.mse_loss(own, target) / scale
        if self.labels and labels is not None:
            total = total + functional.cross_entropy(made[0], labels.long())
        return total

    def _outputs(self, made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        if made.ndim == 2 and made.shape[1] > 1:
            one = functional.log_softmax(made / self.temperature, 1)
            other = functional.log_softmax(wanted / self.temperature, 1)
            divergence = functional.kl_div(one, other, log_target=True, reduction="batchmean")
            return divergence * self.temperature**2
        return functional.mse_loss(made, wanted) / wanted.var().clamp_min(1e-12)

    @contextmanager
    def watching(self, teacher: Module, student: Module) -> Iterator[Features]:
        """Keep the outputs of the layers that are compared while the block runs."""
        found = Features()
        hooks = []
        for module, kept in ((teacher, found.teacher), (student, found.student)):
            layers = dict(module.named_modules())
            hooks += [
                layers[name].register_forward_hook(_keeping(kept, name)) for name in self.layers
            ]
        try:
            yield found
        finally:
            for hook in hooks:
                hook.remove()


def _keeping(kept: dict[str, Any], name: str) -> Any:
    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        kept[name] = output

    return keep


def _floats(output: Any) -> list[Any]:
    return [tensor for _, tensor in flatten(output) if tensor.is_floating_point()]


def compared(
    module: Module, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...] | None]:
    """Layers to compare, by name with the teacher's channels that the student has; None for all.

    outputs: those of the layers that lost some. They are batch normalizations, whose outputs every
    network of convolutions has at a like scale; others have none, and only outputs are compared.
    """
    from torch import nn

    names = [
        name for name, layer in module.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    ]  # fmt: skip
    if not names:
        return {}
    picked = sorted({round((at + 1) * len(names) / FEATURES) - 1 for at in range(FEATURES)})
    return {names[at]: outputs.get(names[at]) for at in picked if at >= 0}
