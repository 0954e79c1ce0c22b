"""A run: the engine's artifacts measured, reported, and put into a run folder."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench.cache import Cache, read_json, write_json
from workbench.device import probe, profile, provider_check
from workbench.device.profile import Device
from workbench.display import Display
from workbench.engine.execution import Engine
from workbench.engine.outcome import Outcome
from workbench.engine.request import Request
from workbench.errors import WorkbenchError
from workbench.measure.devices import measure_on_devices
from workbench.measure.latency import PRESETS
from workbench.measure.plan import MeasurePlan
from workbench.measure.target import Bench
from workbench.notebook import html_lines
from workbench.report.blocks import block_of
from workbench.report.data import Block, Report
from workbench.report.notebook import report_html
from workbench.run import folder as rundir
from workbench.run.packages import PACKAGES
from workbench.run.recipe_targets import (
    baselines_of,
    data_of,
    exported_graph,
    targets_of,
    terms_of,
)
from workbench.worker_pool import Pool
from workbench.workspace import Workspace


@dataclass(frozen=True)
class Finished:
    """A run's report and the folder that holds it."""

    report: Report
    folder: Path

    def to_pandas(self) -> Any:
        """The report's figures as a `pandas.DataFrame`. Raises DependencyError without pandas."""
        return self.report.to_pandas()

    def _repr_html_(self) -> str:
        """What a notebook's cell shows."""
        return report_html(self.report) + html_lines([str(self.folder / "report.html")])


def expected(request: Request, plan: MeasurePlan, cache: Cache) -> dict[str, float]:
    """Every task of a run with the seconds it is expected to take, from earlier runs here."""
    earlier = read_json(cache.folder / "timings.json") or {}
    located = request.recipe.located()
    rows = len(located)
    defaults = {"dataset": 2.0, "model": 3.0}
    defaults |= {step.id: step.step.seconds for step in located}
    defaults["latency"] = rows * plan.preset.processes * (plan.preset.seconds + 1)
    defaults["accuracy"] = 15.0 if isinstance(request.data, str) else 0.1
    defaults["checks"] = 1.5 * rows
    defaults["report"] = 2.0
    return {name: float(earlier.get(name, seconds)) for name, seconds in defaults.items()}


def execute(
    request: Request,
    plan: MeasurePlan,
    cache: Cache,
    display: Display,
    out: Path | None,
    pool: Pool | None = None,
) -> Finished:
    """Run a recipe, measure what it gave, write the run folder.

    pool: workers that stay for the next run; without, some of its own, which end with it. Raises
    DependencyError or DeviceError where the device's execution provider is not to be had, before
    any work; WorkbenchError where a trunk step failed or the folder cannot be written. A failed
    branch is a row of the report.
    """
    started = time.perf_counter()
    created = datetime.now().astimezone()
    display.plan(expected(request, plan, cache))
    with closing(Pool()) if pool is None else nullcontext(pool) as workers:
        request, plan = _ask_devices(request, plan, workers)
        folder = rundir.prepare(request, created, out)
        workspace = Workspace(cache, workers, display)
        outcome = Engine(request, workspace).run()
        if plan.preset.processes:
            workers.release()  # TensorFlow's memory is not what latency is to be measured beside
        blocks, measured = _measure(request, plan, outcome, workspace)
    display.update("report", 0.0)
    report = Report(
        recipe=request.recipe.name,
        model=request.source.name,
        blocks=blocks,
        versions=probe.versions(PACKAGES),
        created=created.isoformat(timespec="seconds"),
        measured=measured,
        seconds=round(time.perf_counter() - started, 2),
    )
    folder, report = rundir.write(folder, report, request, outcome, replace=out is not None)
    display.done("report")
    _remember(cache, outcome)
    return Finished(report, folder)


def make_artifacts(
    request: Request, plan: MeasurePlan, cache: Cache, display: Display, pool: Pool
) -> None:
    """All of a run but its measuring: every artifact and score is in the cache afterwards.

    Raises as `execute` does; a branch that fails does so again when it is executed.
    """
    request, plan = _ask_devices(request, plan, pool)
    here = tuple(device for device in plan.devices if not device.remote)
    workspace = Workspace(cache, pool, display)
    outcome = Engine(request, workspace).run()
    if here:
        plan = dataclasses.replace(plan, devices=here, preset=PRESETS["none"])
        _measure(request, plan, outcome, workspace)


def _ask_devices(request: Request, plan: MeasurePlan, pool: Pool) -> tuple[Request, MeasurePlan]:
    """Request and plan, the devices asked for what must be known before anything is made."""
    for device in plan.devices:
        if not device.remote:
            provider_check.require(device, pool)
    if not request.device.remote:
        return request, plan
    device = probe_device(request.device)
    devices = tuple(device if other == request.device else other for other in plan.devices)
    return (
        dataclasses.replace(request, device=device),
        dataclasses.replace(plan, devices=devices),
    )


def probe_device(device: Device) -> Device:
    """A device with what it says of itself, before anything is worked for it.

    Raises DeviceError where it does not answer.
    """
    from workbench.device.connection import resolve_device, transport_of
    from workbench.device.health.identity import identify

    transport = transport_of(device)
    try:
        return resolve_device(device, identify(transport))
    finally:
        with suppress(WorkbenchError):
            transport.close()


def _measure(
    request: Request, plan: MeasurePlan, outcome: Outcome, workspace: Workspace
) -> tuple[tuple[Block, ...], str]:
    """A block for each device, the request's first, and when the latencies were measured."""
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    targets = targets_of(request, outcome)
    if plan.only:
        baseline = baselines_of(request, outcome).onnx
        plan = dataclasses.replace(plan, only=(*plan.only, baseline))
    measurements = measure_on_devices(
        targets,
        Bench(profile.load("cpu"), data_of(request, outcome), workspace),
        plan,
        exported=exported_graph(outcome),
    )
    # Scoring had one for each file: the next run starts with two.
    workspace.pool.trim(os.cpu_count() or 1)
    for result in measurements:
        outcome.timings.update(result.seconds)
    blocks = tuple(
        block_of(
            targets,
            result,
            terms_of(request, plan.preset.name, outcome, result.device),
        )
        for result in measurements
    )
    here = [result.measured for result in measurements if not result.device.remote]
    return blocks, here[-1] if here else began


def _remember(cache: Cache, outcome: Outcome) -> None:
    """Keep how long things took, for the next run's time left."""
    earlier = read_json(cache.folder / "timings.json") or {}
    rounded = {name: round(seconds, 2) for name, seconds in outcome.timings.items()}
    write_json(cache.folder / "timings.json", {**earlier, **rounded})
