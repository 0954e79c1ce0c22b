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

if TYPE_CHECKING:
    from workbench.model import Model
    from workbench.recipe import Context

TRIES = 8
NEAR = 0.03  # below the target is near enough: another try would meet the noise


@dataclass(frozen=True)
class Tried:
    """The share of MACs that was left, and the latency with it, as a ratio of the original's."""

    macs: float
    latency: Estimate


def searched(
    target: float, least: float, measured: Callable[[float], Tried], told: Callable[[str], None]
) -> Tried:
    """The most MACs whose latency is at most `target` of the original's, as far as tries go.

    least: what the MACs can be brought to; measured: takes a share of the MACs, which what comes of
    it may be below. Raises StepError with what is reachable.
    """
    slow, fast = Tried(1.0, Estimate(1.0, 1.0, 1.0)), None
    asked = max(least, target)
    for _ in range(TRIES):
        found = measured(asked)
        told(f"{found.macs:.2f} of the MACs: {found.latency.value:.2f} of the latency")
        if found.latency.value <= target:
            fast = found if fast is None or found.macs > fast.macs else fast
            if found.latency.value > target - NEAR:
                break
        elif asked <= least:
            raise StepError(
                f"latency cannot be brought to {target:g} of what it is",
                f"with the least MACs that are left, {found.macs:.3f} of them, it is "
                f"{_interval(found.latency)}",
                "ask for more, keep fewer layers, or lower round_to",
            )
        else:
            slow = found if found.macs < slow.macs else slow
        if fast is None:
            asked = max(least, min(slow.macs, asked) * 0.95 * target / slow.latency.value)
            continue
        gap = slow.macs - fast.macs
        if gap < 0.02:
            break
        # Where a line between the two meets the target, kept off their ends.
        rise = (target - fast.latency.value) / (slow.latency.value - fast.latency.value)
        asked = fast.macs + gap * min(0.8, max(0.2, rise - 0.05))
    assert fast is not None or asked > least
    if fast is None:
        raise StepError(
            f"latency did not come to {target:g} of what it is in {TRIES} measurements",
            f"the nearest was {_interval(slow.latency)}",
            "measure on a quieter device, or give --set prune.macs=… instead",
        )
    return fast


def _interval(one: Estimate) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


class Stopwatch:
    """Latencies of modules on the context's device, against the original's, as FP32 ONNX.

    original: the unpruned model. folder: a place for the files, which are gone when it is closed.
    """

    def __init__(self, original: Model, context: Context, folder: Path) -> None:
        self.context, self.folder = context, folder
        self.original = self._exported(original, "original")
        self.count = 0

    def ratio(self, model: Model) -> Estimate:
        """The model's latency as a ratio of the original's, timed in turn with it.

        Raises DeviceError where the device does not run them.
        """
        self.count += 1
        name = f"pruned-{self.count}"
        files = {"original": self.original, "pruned": self._exported(model, name)}
        timed = self._away(files) if self.context.device.remote else self._here(files)
        shutil.rmtree(self.folder / name)
        return speedup(timed["pruned"], timed["original"])

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _exported(self, model: Model, name: str) -> Artifact:
        from workbench.steps.export import Export

        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Export().run(model, replace(self.context, folder=folder, progress=_silent))

    def _here(self, files: dict[str, Artifact]) -> dict[str, Latency]:
        from workbench.measure.host import latencies

        context = self.context
        inputs = context.dataset.examples(1, context.seed)
        with closing(Cache()) as cache, cache.locked(context.device.lock, lambda: None):
            found = latencies(files, inputs, context.device, PRESETS["quick"], _silent)
        good = {}
        for name, one in found.items():
            if not isinstance(one, Latency):
                raise one
            good[name] = one
        return good

    def _away(self, files: dict[str, Artifact]) -> dict[str, Latency]:
        from workbench import inspect
        from workbench.measure.fleet import profiled
        from workbench.measure.remote import Wanted

        context = self.context
        example = context.dataset.examples(1, context.seed)
        wanted = Wanted(
            targets=files,
            facts={name: inspect.read(one.path) for name, one in files.items()},
            timed=dict.fromkeys(files, example),
            samples={},
            preset=PRESETS["quick"],
        )
        with closing(Cache()) as cache:
            found = profiled([context.device], wanted, cache, Quiet(), resume=False)
        one = found[context.device.name]
        wrong = one.error or next(iter(one.failed.values()), None)
        if wrong is not None:
            raise wrong
        return one.latencies()


def _silent(_fraction: float, _note: str) -> None:
    pass
