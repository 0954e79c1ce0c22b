"""Latency as pruning's target: the MACs that meet it are searched for, by measuring."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.artifact import Artifact
from workbench.cache import Cache
from workbench.display import Quiet
from workbench.errors import StepError
from workbench.intervals import Estimate
from workbench.measure.latency import PRESETS, Latency, speedup
from workbench.progress import ignore_progress

if TYPE_CHECKING:
    from workbench.model import Model
    from workbench.recipe import Context

TRIES = 8
NEAR = 0.03  # below the target is near enough: another try would meet the noise


@dataclass(frozen=True)
class LatencyTrial:
    """The share of MACs that was left, and the latency with it, as a ratio of the original's."""

    macs: float
    latency: Estimate


def search_macs(
    target: float,
    least: float,
    measure: Callable[[float], LatencyTrial],
    report: Callable[[str], None],
) -> LatencyTrial:
    """The most MACs whose latency is at most `target` of the original's, as far as tries go.

    Raises StepError with what is reachable.

    Args:
        least: what the MACs can be brought to.
        measure: takes a share of the MACs, which what comes of it may be below.
    """
    slow, fast = LatencyTrial(1.0, Estimate(1.0, 1.0, 1.0)), None
    macs = max(least, target)
    for _ in range(TRIES):
        trial = measure(macs)
        report(f"{trial.macs:.2f} of the MACs: {trial.latency.value:.2f} of the latency")
        if trial.latency.value <= target:
            fast = trial if fast is None or trial.macs > fast.macs else fast
            if trial.latency.value > target - NEAR:
                break
        elif macs <= least:
            raise StepError(
                f"latency cannot be brought to {target:g} of what it is",
                f"with the least MACs that are left, {trial.macs:.3f} of them, it is "
                f"{format_interval(trial.latency)}",
                "ask for more, keep fewer layers, or lower round_to",
            )
        else:
            slow = trial if trial.macs < slow.macs else slow
        if fast is None:
            macs = max(least, min(slow.macs, macs) * 0.95 * target / slow.latency.value)
            continue
        gap = slow.macs - fast.macs
        if gap < 0.02:
            break
        # Where a line between the two meets the target, kept off their ends.
        rise = (target - fast.latency.value) / (slow.latency.value - fast.latency.value)
        macs = fast.macs + gap * min(0.8, max(0.2, rise - 0.05))
    assert fast is not None or macs > least
    if fast is None:
        raise StepError(
            f"latency did not come to {target:g} of what it is in {TRIES} measurements",
            f"the nearest was {format_interval(slow.latency)}",
            "measure on a quieter device, or give --set prune.macs=… instead",
        )
    return fast


def format_interval(estimate: Estimate) -> str:
    """`0.52 [0.50, 0.55]`"""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


class Stopwatch:
    """Latencies of modules on the context's device, against the original's, as FP32 ONNX."""

    def __init__(
        self,
        original: Model,
        context: Context,
        folder: Path,
        export: Callable[[Model, Context], Artifact],
    ) -> None:
        """Export the unpruned model. folder: for files, which are gone when it is closed."""
        self.context, self.folder, self.export = context, folder, export
        self.original = self._export(original, "original")
        self.count = 0

    def latency_ratio(self, model: Model) -> Estimate:
        """The model's latency as a ratio of the original's, timed in turn with it.

        Raises DeviceError where the device does not run them.
        """
        self.count += 1
        name = f"pruned-{self.count}"
        files = {"original": self.original, "pruned": self._export(model, name)}
        timed = self._time_away(files) if self.context.device.remote else self._time_here(files)
        shutil.rmtree(self.folder / name)
        return speedup(timed["pruned"], timed["original"])

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _export(self, model: Model, name: str) -> Artifact:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return self.export(model, replace(self.context, folder=folder, progress=ignore_progress))

    def _time_here(self, files: dict[str, Artifact]) -> dict[str, Latency]:
        from workbench.measure.host import latencies

        context = self.context
        inputs = context.dataset.examples(1, context.seed)
        with closing(Cache()) as cache, cache.locked(context.device.lock, lambda: None):
            results = latencies(files, inputs, context.device, PRESETS["quick"], ignore_progress)
        timed = {}
        for name, latency in results.items():
            if not isinstance(latency, Latency):
                raise latency
            timed[name] = latency
        return timed

    def _time_away(self, files: dict[str, Artifact]) -> dict[str, Latency]:
        from workbench import inspect
        from workbench.measure.device_run import Assignment
        from workbench.measure.fleet import run_on_devices

        context = self.context
        example = context.dataset.examples(1, context.seed)
        request = Assignment(
            targets=files,
            facts={name: inspect.read(artifact.path) for name, artifact in files.items()},
            timed=dict.fromkeys(files, example),
            samples={},
            preset=PRESETS["quick"],
        )
        with closing(Cache()) as cache:
            results = run_on_devices([context.device], request, cache, Quiet(), resume=False)
        result = results[context.device.name]
        error = result.error or next(iter(result.failed.values()), None)
        if error is not None:
            raise error
        return result.latencies()
