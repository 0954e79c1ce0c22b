"""What is asked of a runner about one artifact: times, outputs, and the time of each operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from workbench.device.runner_plan import Array, Plan, Ran, outputs_of, parse_answer

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

    connection: Connection
    name: str
    bundle: Bundle
    plan: Plan
    timing: str  # the plan's path on the device

    def time(self) -> Ran:
        """The times of one process."""
        return self._run(self.timing)

    def outputs(self) -> list[Array]:
        """Canonical outputs [N, ...] of the bundle's samples."""
        path = f"{self.connection.folder}/{self.name}.outputs"
        self._run(self.connection.write(f"{self.name}.run", replace(self.plan, outputs=path)))
        back = self.connection.fetch(path)
        try:
            names = self.plan.output_names
            arrays = outputs_of(back, self.plan.samples, names, self.connection.runner.name)
        finally:
            back.unlink(missing_ok=True)
        return self.bundle.canonical(arrays)

    def operators(self) -> str:
        """The type and milliseconds of each operator, in the order they ran in."""
        path = f"{self.connection.folder}/{self.name}.profile"
        plan = replace(self.plan, profile=path, samples=1, warmup=1, runs=5)
        self._run(self.connection.write(f"{self.name}.profiled", plan))
        back = self.connection.fetch(path)
        try:
            return back.read_text(encoding="utf-8", errors="replace")
        finally:
            back.unlink(missing_ok=True)

    def _run(self, path: str) -> Ran:
        return parse_answer(self.connection.run([path]).stdout, self.connection.runner.name)


def plan_job(connection: Connection, name: str, bundle: Bundle, preset: Preset) -> PlanJob:
    """Bring a bundle's files and the plan of its timing."""
    device = connection.device
    xnnpack = bundle.plan.runtime == "onnxruntime" and device.provider == "xnnpack"
    plan = replace(
        bundle.plan,
        model=connection.bring(bundle.model),
        inputs=connection.bring_bytes(f"{name}.inputs", bundle.data),
        threads=device.threads,
        # By the name that ONNX Runtime registers it under; LiteRT has XNNPACK in itself.
        provider="XNNPACK" if xnnpack else "",
        options=tuple(device.options.items()) if xnnpack else (),
        limit=round(device.limits.timeout),
    )
    plan = connection.runner.planned(plan)
    timing = replace(
        plan, samples=1, warmup=preset.warmup, runs=preset.runs, seconds=preset.seconds
    )
    return PlanJob(connection, name, bundle, plan, connection.write(f"{name}.time", timing))
