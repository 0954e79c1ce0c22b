"""Training a pruned module to do what the unpruned one does; labels are not needed.

Distillation: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; features as in
FitNets, Romero et al., ICLR 2015, whose channels are those that were kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.progress import Progress
from workbench.pruning.layers import is_batch_norm
from workbench.pruning.losses import DistillationLoss, WatchedFeatures
from workbench.pruning.samples import TrainingSamples, vary_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    Module = torch.nn.Module

WARM_UP = 0.05  # of all steps
# A run that was killed goes on from here. torch.load with weights_only takes it.
CHECKPOINT = "epoch.pt"


@dataclass(frozen=True, kw_only=True)
class TrainingSchedule:
    """How long and how fast a student is trained.

    Attributes:
        epochs: at most, with a cosine down from learning_rate.
        batch: samples.
        patience: epochs without a better loss on the samples that are held back, after which it
            ends.
    """

    epochs: int
    batch: int
    learning_rate: float
    patience: int
    seed: int


@dataclass(frozen=True)
class Distillation:
    """A student, and what it learns from.

    Attributes:
        loss: its features are taken from both modules.
        folder: for the checkpoint of each epoch, from which a run of the same distillation goes on.
    """

    teacher: Module
    student: Module
    samples: TrainingSamples
    loss: DistillationLoss
    schedule: TrainingSchedule
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RecoveryResult:
    """How a training went.

    Attributes:
        losses: of each epoch on the samples held back.
        note: how it ended.
    """

    losses: tuple[float, ...]
    note: str


def reestimate_batch_norms(module: Module, samples: TrainingSamples, size: int) -> None:
    """Batch normalization's means and variances anew: those of the unpruned module are wrong now.

    Averages over one epoch, of equal weight ("BN re-calibration", EagleEye, Li et al., ECCV 2020).
    """
    import torch

    norms: list[Any] = [
        layer
        for layer in module.modules()
        if is_batch_norm(layer) and getattr(layer, "track_running_stats", False)
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    try:
        with torch.no_grad():
            for batch, _ in samples.batches(size, np.random.default_rng(0)):
                module(*batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def recover(distillation: Distillation, progress: Progress) -> RecoveryResult:
    """Train the student in place; it ends with the weights that were best on samples held back.

    Where a loss is no number, training stops.
    """
    import torch

    schedule, loss = distillation.schedule, distillation.loss
    state = _Training(distillation)
    watch = loss.watch(distillation.teacher, distillation.student)
    with torch.random.fork_rng(devices=[]), watch as watched:
        state.resume(watched)
        note = ""
        began, first = time.monotonic(), len(state.losses)
        while len(state.losses) < schedule.epochs:
            epoch = len(state.losses)
            if not state.train_epoch(watched, _reporter(progress, schedule, epoch, began, first)):
                note = f"the loss was no number in epoch {epoch + 1}: the best weights stand"
                break
            if epoch - state.best > schedule.patience:
                note = f"it ended after {epoch + 1} epochs, none better than epoch {state.best + 1}"
                break
        state.finish()
    if state.best < 0 and not note:
        note = "no epoch was better than no training: the weights stand as they were pruned"
    return RecoveryResult(losses=tuple(state.losses), note=note)


def _reporter(
    progress: Progress, schedule: TrainingSchedule, epoch: int, began: float, first: int
) -> Callable[[float, float], None]:
    """Takes the share of an epoch that is done, and its loss."""

    def report(share: float, loss: float) -> None:
        done = epoch + share
        spent = time.monotonic() - began
        left = spent / max(done - first, 1e-9) * (schedule.epochs - done)
        progress(
            done / schedule.epochs,
            f"epoch {epoch + 1} of {schedule.epochs}, loss {loss:.4g}, {_duration(left)} left",
        )

    return report


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Training:
    """The loop's state: what a checkpoint holds."""

    def __init__(self, distillation: Distillation) -> None:
        import torch

        self.teacher, self.student = distillation.teacher.eval(), distillation.student
        self.samples, self.schedule = distillation.samples, distillation.schedule
        self.loss = distillation.loss
        self.checkpoint = distillation.folder / CHECKPOINT
        self.student.requires_grad_(True)
        self.optimizer = torch.optim.SGD(
            _parameter_groups(self.student),
            self.schedule.learning_rate,
            momentum=0.9,
            nesterov=True,
        )
        self.losses: list[float] = []
        self.first = math.inf  # the loss before training: what is not better is not kept
        self.best = -1
        self.weights = _copy_state(self.student)

    def resume(self, watched: WatchedFeatures) -> None:
        import torch

        if self.checkpoint.is_file():
            state = torch.load(self.checkpoint, weights_only=True)
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.losses, self.best = list(state["losses"]), state["best"]
            self.weights, self.first = state["weights"], state["first"]
        else:
            self.first = self._held_out_loss(watched)

    def train_epoch(self, watched: WatchedFeatures, report: Callable[[float, float], None]) -> bool:
        """Train once over the samples, and judge; False where the loss is no number."""
        import torch

        number = len(self.losses)
        generator = np.random.default_rng([self.schedule.seed, number])
        torch.manual_seed(self.schedule.seed * 1000003 + number)
        steps = -(-self.samples.trained // self.schedule.batch)
        batches = self.samples.batches(self.schedule.batch, generator)
        for step, (batch, labels) in enumerate(batches):
            if self.loss.varied:
                # All inputs of a sample alike. Labels are of one image, not of two.
                draw, mixed = int(generator.integers(1 << 62)), not self.loss.labels
                batch = [  # noqa: PLW2901
                    vary_images(tensor, np.random.default_rng(draw), mixed) for tensor in batch
                ]
            done = (number * steps + step) / (self.schedule.epochs * steps)
            self._set_rate(done)
            # Features lead while the student is far off; what counts in the end is the outputs.
            share = _cosine(done)
            with _training_mode(self.student):
                loss = self.loss(self.teacher, self.student, batch, labels, watched, share)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            value = float(loss.detach())
            if not math.isfinite(value):
                return False
            self.optimizer.step()
            report((step + 1) / steps, value)
        held_out = self._held_out_loss(watched)
        if not math.isfinite(held_out):
            return False
        self.losses.append(held_out)
        if held_out < (self.first if self.best < 0 else self.losses[self.best]):
            self.best, self.weights = number, _copy_state(self.student)
        self._save()
        return True

    def _set_rate(self, done: float) -> None:
        """A linear warm-up, then a cosine to 0 (Loshchilov and Hutter, SGDR, 2017)."""
        factor = _cosine(done) * min(1.0, (done + 1e-3) / WARM_UP)
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * factor

    def _held_out_loss(self, watched: WatchedFeatures) -> float:
        import torch

        total, count = 0.0, 0
        with torch.no_grad():
            for batch, labels in self.samples.judged(self.schedule.batch):
                loss = self.loss(self.teacher, self.student, batch, labels, watched, 0.0)
                total += float(loss) * len(batch[0])
                count += len(batch[0])
        return total / max(1, count)

    def _save(self) -> None:
        import torch

        part = self.checkpoint.with_suffix(".part")
        torch.save(
            {
                "student": self.student.state_dict(), "optimizer": self.optimizer.state_dict(),
                "losses": self.losses, "best": self.best, "weights": self.weights,
                "first": self.first,
            },
            part,
        )  # fmt: skip
        part.replace(self.checkpoint)

    def finish(self) -> None:
        """The best weights; the checkpoint has done its work."""
        self.student.load_state_dict(self.weights)
        self.student.requires_grad_(False)
        self.checkpoint.unlink(missing_ok=True)


def _cosine(done: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * done))


def _parameter_groups(module: Module) -> list[dict[str, Any]]:
    """Weight decay where there are products: scales and biases have none (He et al. 2019)."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    return [{"params": weights, "weight_decay": 5e-4}, {"params": others, "weight_decay": 0.0}]


def _copy_state(module: Module) -> Mapping[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


@contextmanager
def _training_mode(module: Module) -> Iterator[None]:
    """In training mode but for dropout: the teacher's function is to be met, not its mean."""
    from torch import nn

    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
    try:
        yield
    finally:
        module.eval()
