"""A run of the step Prune: channels chosen, taken out, and what is left recovered, in rounds."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.cache import key_of, read_json, write_json
from workbench.errors import StepError

if TYPE_CHECKING:
    import torch

    from workbench.model import Model
    from workbench.pruning.samples import Samples
    from workbench.pruning.structure import Criterion, Pruned
    from workbench.recipe import Context
    from workbench.steps.prune import Prune

HELD = 0.1  # of the samples are held back, to judge recovery by
GRADIENTS = 64  # samples for criteria that need gradients


class Run:
    """One run of the step `Prune`.

    folder: where samples and checkpoints lie until the step is done, by what decides them.
    """

    def __init__(self, step: Prune, subject: Model, context: Context) -> None:
        self.step, self.subject, self.context = step, subject, context
        self.split, self.count = context.dataset.calibrating(step.samples)
        self.notes: list[str] = []
        key = key_of(
            "prune", asdict(step), subject.fingerprint, self.split.fingerprint, context.seed
        )
        self.folder = (context.work or context.folder) / f"prune-{key[:32]}"

    def artifact(self) -> Artifact:
        import copy

        from workbench.pruning import durable

        step = self.step
        teacher = copy.deepcopy(self.subject.module).eval().requires_grad_(False)
        self.folder.mkdir(parents=True, exist_ok=True)
        pruned = self._rounds(teacher, self._samples())
        history = " ".join(
            f"{name}={getattr(step, name):g}"
            for name in ("macs", "parameters", "latency", "sparsity")
            if getattr(step, name)
        )
        made = durable.written(
            replace(self.subject, module=pruned.module),
            self.context.folder / "model.pt2",
            (f"{step.name} {history} {step.importance}",),
            (
                *_sizes(pruned),
                *self.notes,
                *_kept(pruned),
            ),
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        return made

    def _samples(self) -> Samples:
        from workbench.pruning.samples import gathered

        self.context.progress(0.0, f"reading {self.count} samples")
        return gathered(
            self.split, self.count, self.folder, self.subject.input_names, HELD, self.context.seed
        )

    def _rounds(self, teacher: torch.nn.Module, samples: Samples) -> Pruned:
        import torch

        from workbench.pruning import sparsity
        from workbench.pruning.structure import unpruned

        step = self.step
        pruned = unpruned(teacher)
        asked = {"macs": step.macs, "parameters": step.parameters}
        if step.latency is not None:
            found = self._by_latency(pruned, samples, step.latency)
            asked["macs"] = min(found, step.macs or 1.0)
        for number in range(1, step.rounds + 1):
            share = number / step.rounds
            self.context.progress(0.05 + 0.9 * (number - 1) / step.rounds, "choosing channels")
            for measure, target in asked.items():
                if target is not None:
                    pruned = self._narrowed(pruned, samples, measure, 1 - share * (1 - target))
            if step.sparsity and number == step.rounds:
                sparsity.masked(pruned.module, step.sparsity, step.keep)
            # What is narrowed is the same each time; what was learned is kept for a second try.
            kept = self.folder / f"round-{number}.pt"
            if kept.is_file():
                sparsity.permanent(pruned.module)
                pruned.module.load_state_dict(torch.load(kept, weights_only=True))
                continue
            pruned = self._recovered(teacher, pruned, samples, number)
            sparsity.permanent(pruned.module)
            part = kept.with_suffix(".part")
            torch.save(pruned.module.state_dict(), part)
            part.replace(kept)
        return pruned

    def _narrowed(self, pruned: Pruned, samples: Samples, measure: Any, target: float) -> Pruned:
        from workbench.pruning.structure import narrowed

        if getattr(pruned, measure) <= target:
            return pruned
        batches = [batch for batch, _ in _first(samples, GRADIENTS)]
        return narrowed(pruned, self._inputs(), self._criterion(), measure, target, batches)

    def _by_latency(self, pruned: Pruned, samples: Samples, target: float) -> float:
        """The share of MACs that meets a latency: kept, for a second try must not measure anew."""
        from workbench.pruning import timing

        known = self.folder / "latency.json"
        if (found := read_json(known)) is not None:
            self.notes.append(found["note"])
            return float(found["macs"])
        watch = timing.Stopwatch(self.subject, self.context, self.folder / "timed")

        def measured(macs: float) -> timing.Tried:
            made = self._narrowed(pruned, samples, "macs", macs)
            return timing.Tried(made.macs, watch.ratio(replace(self.subject, module=made.module)))

        try:
            least = self._least(pruned)
            chosen = timing.searched(
                target, least, measured, lambda note: self.context.progress(0.05, note)
            )
        finally:
            watch.close()
        one = chosen.latency
        note = (
            f"latency {one.value:.2f} [{one.low:.2f}, {one.high:.2f}] of the original's on "
            f"{self.context.device.name}, as FP32 ONNX"
        )
        self.notes.append(note)
        write_json(known, {"macs": chosen.macs, "note": note})
        return chosen.macs

    def _least(self, pruned: Pruned) -> float:
        from workbench.pruning.structure import least

        return least(pruned, self._inputs(), self._criterion(), "macs")

    def _inputs(self) -> list[torch.Tensor]:
        import torch

        return [torch.from_numpy(one[:4]) for one in self.subject.example_inputs.values()]

    def _criterion(self) -> Criterion:
        from workbench.pruning.structure import Criterion

        step = self.step
        return Criterion(
            importance=step.importance, scope=step.scope, round_to=step.round_to,
            keep=step.keep, seed=self.context.seed,
        )  # fmt: skip

    def _recovered(
        self, teacher: torch.nn.Module, pruned: Pruned, samples: Samples, number: int
    ) -> Pruned:
        from workbench.pruning import recovery
        from workbench.pruning.losses import Loss, compared

        step, context = self.step, self.context
        if step.recover == "none":
            return pruned
        context.progress(0.08, "batch normalization")
        recovery.reestimate(pruned.module, samples, step.batch)
        if step.recover == "batchnorm" or step.epochs == 0:
            return pruned
        if ":" in step.recover:
            return self._by_users_loop(teacher, pruned, samples)
        if step.recover == "labels" and samples.labels is None:
            raise StepError(
                "recover=labels needs labels, and the calibration samples have none",
                "",
                "--set prune.recover=distill, which needs none",
            )
        loss = Loss(
            temperature=step.temperature,
            features=step.features,
            layers=compared(pruned.module, pruned.outputs) if step.features else {},
            labels=step.recover == "labels",
        )
        schedule = recovery.Schedule(
            epochs=max(1, step.epochs // step.rounds), batch=step.batch,
            learning_rate=step.learning_rate, patience=step.patience,
            seed=context.seed + number,
        )  # fmt: skip
        begin, part = 0.1 + 0.85 * (number - 1) / step.rounds, 0.85 / step.rounds
        found = recovery.recovered(
            teacher, pruned.module, samples, loss, schedule, self.folder,
            lambda fraction, note: context.progress(begin + part * fraction, note),
        )  # fmt: skip
        if found.note:
            self.notes.append(f"recovery: {found.note}")
        return pruned

    def _by_users_loop(self, teacher: torch.nn.Module, pruned: Pruned, samples: Samples) -> Pruned:
        from workbench.usercode import resolve

        loop = resolve(self.step.recover, Path())
        made = loop(pruned.module, teacher, samples)
        module = pruned.module if made is None else made
        return replace(pruned, module=module.eval().requires_grad_(False))


def _first(samples: Samples, count: int) -> list[Any]:
    found, have = [], 0
    for batch, labels in samples.judged(16):
        found.append((batch, labels))
        have += len(batch[0])
        if have >= count:
            break
    return found


def _sizes(pruned: Pruned) -> list[str]:
    from workbench.pruning.sparsity import zeros

    said = []
    if pruned.macs < 1 or pruned.parameters < 1:
        said.append(
            f"pruned to {pruned.macs:.3f} of the MACs and {pruned.parameters:.3f} of the parameters"
        )
    if (share := zeros(pruned.module)) > 0.05:
        said.append(f"{100 * share:.0f} % of the weights are zero: no faster, smaller compressed")
    return said


def _kept(pruned: Pruned) -> list[str]:
    """Which layers keep their widths, by reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in pruned.kept.items():
        reasons.setdefault(reason, []).append(name)
    notes = []
    for reason, names in reasons.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        notes.append(f"not narrowed: {', '.join(names[:4])}{more}: {reason}")
    return notes
