"""What a student is trained for: the teacher's outputs and features, or labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.model import flatten
from workbench.pruning.layers import is_batch_norm

if TYPE_CHECKING:
    import torch

    Module = torch.nn.Module

FEATURES = 4  # layers whose outputs are compared, evenly over the depth


@dataclass
class WatchedFeatures:
    """Outputs of the watched layers in the last run, by name, of each of the two."""

    teacher: dict[str, Any] = field(default_factory=dict)
    student: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """A loss of a student, which `__call__` gives for a batch.

    Attributes:
        features: the weight of layers' outputs beside the module's.
        layers: those whose outputs are compared, with the teacher's channels that the student has.
        labels: whether labels count too, as much as the teacher.
        varied: whether images are varied.
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
        watched: WatchedFeatures,
        share: float = 1.0,
    ) -> torch.Tensor:
        """The loss of a batch. share: of the features' weight that counts now."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            targets = _float_tensors(teacher(*batch))
        outputs = _float_tensors(student(*batch))
        total = torch.stack(
            [
                self._output_loss(output, target)
                for output, target in zip(outputs, targets, strict=True)
            ]
        ).sum()
        for name, channels in self.layers.items() if share else ():
            if name not in watched.teacher or name not in watched.student:
                continue  # a branch that these samples do not take
            target, own = watched.teacher[name], watched.student[name]
            if channels is not None:
                target = target[:, list(channels)]
            scale = target.var().clamp_min(1e-12)
            total = total + share * self.features * functional.mse_loss(own, target) / scale
        if self.labels and labels is not None:
            total = total + functional.cross_entropy(outputs[0], labels.long())
        return total

    def _output_loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        if output.ndim == 2 and output.shape[1] > 1:
            student = functional.log_softmax(output / self.temperature, 1)
            teacher = functional.log_softmax(target / self.temperature, 1)
            divergence = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
            return divergence * self.temperature**2
        return functional.mse_loss(output, target) / target.var().clamp_min(1e-12)

    @contextmanager
    def watch(self, teacher: Module, student: Module) -> Iterator[WatchedFeatures]:
        """Keep the outputs of the layers that are compared while the block runs."""
        watched = WatchedFeatures()
        hooks = []
        for module, outputs in ((teacher, watched.teacher), (student, watched.student)):
            layers = dict(module.named_modules())
            hooks += [
                layers[name].register_forward_hook(_recording(outputs, name))
                for name in self.layers
            ]
        try:
            yield watched
        finally:
            for hook in hooks:
                hook.remove()


def _recording(outputs: dict[str, Any], name: str) -> Callable[..., None]:
    def record(_module: Any, _inputs: Any, output: Any) -> None:
        outputs[name] = output

    return record


def _float_tensors(output: Any) -> list[Any]:
    return [tensor for _, tensor in flatten(output) if tensor.is_floating_point()]


def choose_feature_layers(
    module: Module, outputs: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...] | None]:
    """Layers to compare, by name with the teacher's channels that the student has; None for all.

    They are batch normalizations, whose outputs every network of convolutions has at a like scale;
    others have none, and only outputs are compared.

    Args:
        outputs: those of the layers that lost some (`PrunedModule.outputs`).
    """
    names = [name for name, layer in module.named_modules() if is_batch_norm(layer)]
    if not names:
        return {}
    depths = (round((part + 1) * len(names) / FEATURES) - 1 for part in range(FEATURES))
    return {names[depth]: outputs.get(names[depth]) for depth in sorted({*depths}) if depth >= 0}
