"""A run of the step Prune: channels chosen, taken out, and what is left recovered, in rounds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.cache import key_of, read_json, write_json
from workbench.codec import from_plain, to_plain
from workbench.errors import StepError
from workbench.progress import span_progress
from workbench.pruning import sparsity, timing
from workbench.pruning.exported_program import save_program
from workbench.pruning.losses import DistillationLoss, choose_feature_layers
from workbench.pruning.recovery import (
    Distillation,
    TrainingSchedule,
    recover,
    reestimate_batch_norms,
)
from workbench.pruning.samples import TrainingSamples, gather_samples
from workbench.pruning.selection import PruningTarget
from workbench.pruning.structure import (
    PrunedModule,
    PruningCriterion,
    least_ratio,
    narrow,
    unpruned,
)

if TYPE_CHECKING:
    import torch

    from workbench.artifact import Artifact
    from workbench.model import Model
    from workbench.recipe import Context
    from workbench.steps.prune import Prune

HELD = 0.1  # of the samples are held back, to judge recovery by
GRADIENTS = 64  # samples for criteria that need gradients


@dataclass(frozen=True)
class MeasuredMacs:
    """The share of MACs that meets a latency, and what is said of it."""

    macs: float
    note: str


class PruningRun:
    """One run of the step `Prune`.

    Attributes:
        export: writes a model as the step `Export` does.
        folder: where samples and checkpoints lie until the step is done, by what decides them.
    """

    def __init__(
        self,
        step: Prune,
        subject: Model,
        context: Context,
        export: Callable[[Model, Context], Artifact],
    ) -> None:
        import torch

        self.step, self.subject, self.context, self.export = step, subject, context, export
        self.split, self.count = context.dataset.calibrating(step.samples)
        self.notes: list[str] = []
        key = key_of(
            "prune", asdict(step), subject.fingerprint, self.split.fingerprint, context.seed,
            code=("workbench.pruning.pipeline",),
        )  # fmt: skip
        self.folder = (context.work or context.folder) / f"prune-{key[:32]}"
        self.teacher = copy.deepcopy(subject.module).eval().requires_grad_(False)
        self.inputs = [torch.from_numpy(array[:4]) for array in subject.example_inputs.values()]
        self.criterion = PruningCriterion(
            importance=step.importance, scope=step.scope, round_to=step.round_to,
            keep=step.keep, seed=context.seed,
        )  # fmt: skip

    def artifact(self) -> Artifact:
        """The pruned module's file. Raises StepError where the target is out of reach."""
        step = self.step
        self.folder.mkdir(parents=True, exist_ok=True)
        pruned = self._prune(self._read_samples())
        targets = " ".join(
            f"{name}={getattr(step, name):g}"
            for name in ("macs", "parameters", "latency", "sparsity")
            if getattr(step, name)
        )
        artifact = save_program(
            replace(self.subject, module=pruned.module),
            self.context.folder / "model.pt2",
            (f"{step.name} {targets} {step.importance}",),
            (*_describe_sizes(pruned), *self.notes, *_describe_kept(pruned)),
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        return artifact

    def _read_samples(self) -> TrainingSamples:
        self.context.progress(0.0, f"reading {self.count} samples")
        names = self.subject.input_names
        return gather_samples(self.split, self.count, self.folder, names, HELD, self.context.seed)

    def _prune(self, samples: TrainingSamples) -> PrunedModule:
        """Narrow the module and recover it, round after round."""
        import torch

        step = self.step
        pruned = unpruned(self.teacher)
        macs = step.macs
        if step.latency is not None:
            macs = min(self._macs_for_latency(pruned, samples, step.latency), step.macs or 1.0)
        targets = [] if macs is None else [PruningTarget("macs", macs)]
        if step.parameters is not None:
            targets.append(PruningTarget("parameters", step.parameters))
        for number in range(1, step.rounds + 1):
            share = number / step.rounds
            self.context.progress(0.05 + 0.9 * (number - 1) / step.rounds, "choosing channels")
            for target in targets:
                ratio = 1 - share * (1 - target.ratio)
                pruned = self._narrow(pruned, samples, replace(target, ratio=ratio))
            if step.sparsity and number == step.rounds:
                sparsity.mask_smallest(pruned.module, step.sparsity, step.keep)
            # What is narrowed is the same each time; what was learned is kept for a second try.
            kept = self.folder / f"round-{number}.pt"
            if kept.is_file():
                sparsity.make_permanent(pruned.module)
                pruned.module.load_state_dict(torch.load(kept, weights_only=True))
                continue
            pruned = self._recover(pruned, samples, number)
            sparsity.make_permanent(pruned.module)
            part = kept.with_suffix(".part")
            torch.save(pruned.module.state_dict(), part)
            part.replace(kept)
        return pruned

    def _narrow(
        self, pruned: PrunedModule, samples: TrainingSamples, target: PruningTarget
    ) -> PrunedModule:
        if pruned.ratio(target.measure) <= target.ratio:
            return pruned
        batches = _held_back_batches(samples, GRADIENTS)
        return narrow(pruned, self.inputs, self.criterion, target, batches)

    def _macs_for_latency(
        self, pruned: PrunedModule, samples: TrainingSamples, target: float
    ) -> float:
        """The share of MACs that meets a latency: kept, for a second try must not measure anew."""
        path = self.folder / "latency.json"
        if (stored := read_json(path)) is not None:
            measured = from_plain(stored, MeasuredMacs)
        else:
            measured = self._measure_macs(pruned, samples, target)
            write_json(path, to_plain(measured))
        self.notes.append(measured.note)
        return measured.macs

    def _measure_macs(
        self, pruned: PrunedModule, samples: TrainingSamples, target: float
    ) -> MeasuredMacs:
        context = self.context
        watch = timing.Stopwatch(self.subject, context, self.folder / "timed", self.export)

        def measure(macs: float) -> timing.LatencyTrial:
            narrowed = self._narrow(pruned, samples, PruningTarget("macs", macs))
            latency = watch.latency_ratio(replace(self.subject, module=narrowed.module))
            return timing.LatencyTrial(narrowed.macs, latency)

        try:
            least = least_ratio(pruned, self.inputs, self.criterion, "macs")
            trial = timing.search_macs(
                target, least, measure, lambda note: context.progress(0.05, note)
            )
        finally:
            watch.close()
        latency = timing.format_interval(trial.latency)
        note = f"latency {latency} of the original's on {context.device.name}, as FP32 ONNX"
        return MeasuredMacs(trial.macs, note)

    def _recover(self, pruned: PrunedModule, samples: TrainingSamples, number: int) -> PrunedModule:
        step, context = self.step, self.context
        if step.recover == "none":
            return pruned
        context.progress(0.08, "batch normalization")
        reestimate_batch_norms(pruned.module, samples, step.batch)
        if step.recover == "batchnorm" or step.epochs == 0:
            return pruned
        if ":" in step.recover:
            return self._recover_by_users_loop(pruned, samples)
        if step.recover == "labels" and samples.labels is None:
            raise StepError(
                "recover=labels needs labels, and the calibration samples have none",
                "",
                "--set prune.recover=distill, which needs none",
            )
        layers = choose_feature_layers(pruned.module, pruned.outputs) if step.features else {}
        loss = DistillationLoss(
            temperature=step.temperature,
            features=step.features,
            layers=layers,
            labels=step.recover == "labels",
        )
        schedule = TrainingSchedule(
            epochs=max(1, step.epochs // step.rounds), batch=step.batch,
            learning_rate=step.learning_rate, patience=step.patience,
            seed=context.seed + number,
        )  # fmt: skip
        distillation = Distillation(
            self.teacher, pruned.module, samples, loss, schedule, self.folder
        )
        begin, part = 0.1 + 0.85 * (number - 1) / step.rounds, 0.85 / step.rounds
        result = recover(distillation, span_progress(context.progress, begin, begin + part))
        if result.note:
            self.notes.append(f"recovery: {result.note}")
        return pruned

    def _recover_by_users_loop(
        self, pruned: PrunedModule, samples: TrainingSamples
    ) -> PrunedModule:
        from workbench.usercode import resolve

        loop = resolve(self.step.recover, Path())
        trained = loop(pruned.module, self.teacher, samples)
        module = pruned.module if trained is None else trained
        return replace(pruned, module=module.eval().requires_grad_(False))


def _held_back_batches(samples: TrainingSamples, count: int) -> list[list[torch.Tensor]]:
    """The batches of the first samples that are held back."""
    batches: list[list[torch.Tensor]] = []
    for batch, _ in samples.judged(16):
        batches.append(batch)
        if sum(len(tensors[0]) for tensors in batches) >= count:
            break
    return batches


def _describe_sizes(pruned: PrunedModule) -> list[str]:
    notes = []
    if pruned.macs < 1 or pruned.parameters < 1:
        notes.append(
            f"pruned to {pruned.macs:.3f} of the MACs and {pruned.parameters:.3f} of the parameters"
        )
    if (share := sparsity.zero_share(pruned.module)) > 0.05:
        notes.append(f"{100 * share:.0f} % of the weights are zero: no faster, smaller compressed")
    return notes


def _describe_kept(pruned: PrunedModule) -> list[str]:
    """Which layers keep their widths, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in pruned.kept.items():
        reasons.setdefault(reason, []).append(name)
    notes = []
    for reason, names in reasons.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        notes.append(f"not narrowed: {', '.join(names[:4])}{more}: {reason}")
    return notes
