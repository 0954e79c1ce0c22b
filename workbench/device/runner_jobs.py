"""What is asked of a runner about one artifact: times, outputs, and the time of each operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from workbench.device.runner_plan import Array, Plan, Ran, outputs_of, said

if TYPE_CHECKING:
    from workbench.device.bundle import Bundle
    from workbench.device.connection import Connection
    from workbench.measure.latency import Preset


class Job(Protocol):
    """An artifact that lies on a device with its inputs. Each call is a fresh process there.

    Raises DeviceError where the runner refuses, CrashError where it dies.
    """

    def time(self) -> Ran:
        """Times of the first sample, as much as the preset says."""

    def outputs(self) -> list[Array]:
        """The original's outputs [samples, ...], as the device gives them."""

    def operators(self) -> str:
        """The runtime's own profile of a timing, as it writes it."""


@dataclass(frozen=True)
class PlanJob:
    """A job of the workbench's own runners, in C and in Python, which take a plan."""

    place: Connection
    name: str
    bundle: Bundle
    plan: Plan
    timing: str  # the plan's path on the device

    def time(self) -> Ran:
        return self._run(self.timing)

    def outputs(self) -> list[Array]:
        there = f"{self.place.folder}/{self.name}.outputs"
        self._run(self.place.write(f"{self.name}.run", replace(self.plan, outputs=there)))
        back = self.place.fetch(there)
        try:
            wanted = self.plan.wanted
            found = outputs_of(back, self.plan.samples, wanted, self.place.runner.name)
        finally:
            back.unlink(missing_ok=True)
        return self.bundle.canonical(found)

    def operators(self) -> str:
        there = f"{self.place.folder}/{self.name}.profile"
        plan = replace(self.plan, profile=there, samples=1, warmup=1, runs=5)
        self._run(self.place.write(f"{self.name}.profiled", plan))
        back = self.place.fetch(there)
        try:
            return back.read_text(encoding="utf-8", errors="replace")
        finally:
            back.unlink(missing_ok=True)

    def _run(self, path: str) -> Ran:
        return said(self.place.run([path]).stdout, self.place.runner.name)


def plan_job(place: Connection, name: str, bundle: Bundle, preset: Preset) -> PlanJob:
    """Bring a bundle's files and the plan of its timing."""
    device = place.device
    xnnpack = bundle.plan.runtime == "onnxruntime" and device.provider == "xnnpack"
    plan = replace(
        bundle.plan,
        model=place.bring(bundle.model),
        inputs=place.bring_bytes(f"{name}.inputs", bundle.data),
        threads=device.threads,
        # By the name that ONNX Runtime registers it under; LiteRT has XNNPACK in itself.
        provider="XNNPACK" if xnnpack else "",
        options=tuple(device.options.items()) if xnnpack else (),
        limit=round(device.limits.timeout),
    )
    plan = place.runner.planned(plan)
    timing = replace(
        plan, samples=1, warmup=preset.warmup, runs=preset.runs, seconds=preset.seconds
    )
    return PlanJob(place, name, bundle, plan, place.write(f"{name}.time", timing))
