"""A run: the engine's artifacts measured, reported, and put into a run folder."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workbench.artifact import Artifact
from workbench.cache import Cache, read_json, write_json
from workbench.device import profile, provider_check
from workbench.device.profile import Device
from workbench.display import Display
from workbench.engine.execution import Engine
from workbench.engine.outcome import Outcome
from workbench.engine.request import Request
from workbench.errors import WorkbenchError
from workbench.measure.cached import latencies_of, placements_of, scores_of, targets_of
from workbench.measure.checks import checks_of
from workbench.measure.host import Target
from workbench.measure.latency import PRESETS
from workbench.measure.plan import MeasurePlan
from workbench.report.blocks import beside
from workbench.report.build import baseline, report_of, rows_from
from workbench.report.data import Report
from workbench.run import folder as rundir
from workbench.worker_pool import Pool
from workbench.workspace import Workspace


@dataclass(frozen=True)
class Finished:
    """A run's report and the folder that holds it."""

    report: Report
    folder: Path


def expected(request: Request, plan: MeasurePlan, cache: Cache) -> dict[str, float]:
    """Every task of a run with the seconds it is expected to take, from earlier runs here."""
    known = read_json(cache.folder / "timings.json") or {}
    located = request.recipe.located()
    rows = len(located)
    defaults = {"dataset": 2.0, "model": 3.0}
    defaults |= {one.id: one.step.seconds for one in located}
    defaults["latency"] = rows * plan.preset.processes * (plan.preset.seconds + 1)
    defaults["accuracy"] = 15.0 if isinstance(request.data, str) else 0.1
    defaults["checks"] = 1.5 * rows
    defaults["report"] = 2.0
    return {name: float(known.get(name, seconds)) for name, seconds in defaults.items()}


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
        request, plan = _ready(request, plan, workers)
        folder = rundir.prepare(request, created, out)
        outcome = Engine(request, Workspace(cache, workers, display)).run()
        if plan.preset.processes:
            workers.release()  # TensorFlow's memory is not what latency is to be measured beside
        blocks, when = _measured(request, plan, outcome, cache, workers, display)
    display.update("report", 0.0)
    report, *others = [
        dataclasses.replace(
            one,
            created=created.isoformat(timespec="seconds"),
            measured=when,
            seconds=round(time.perf_counter() - started, 2),
        )
        for one in blocks
    ]
    report = dataclasses.replace(report, others=tuple(map(beside, others)))
    folder, report = rundir.write(folder, report, request, outcome, replace=out is not None)
    display.done("report")
    _remember(cache, outcome)
    return Finished(report, folder)


def made(request: Request, plan: MeasurePlan, cache: Cache, display: Display, pool: Pool) -> None:
    """All of a run but its measuring: every artifact and score is in the cache afterwards.

    Raises as `execute` does; a branch that fails does so again when it is executed.
    """
    request, plan = _ready(request, plan, pool)
    here = tuple(device for device in plan.devices if not device.remote)
    outcome = Engine(request, Workspace(cache, pool, display)).run()
    if here:
        plan = dataclasses.replace(plan, devices=here, preset=PRESETS["none"])
        _measured(request, plan, outcome, cache, pool, display)


def _ready(request: Request, plan: MeasurePlan, pool: Pool) -> tuple[Request, MeasurePlan]:
    """Request and plan, the devices asked for what must be known before anything is made."""
    for device in plan.devices:
        if not device.remote:
            provider_check.require(device, pool)
    if not request.device.remote:
        return request, plan
    device = probed(request.device)
    devices = tuple(device if one == request.device else one for one in plan.devices)
    return (
        dataclasses.replace(request, device=device),
        dataclasses.replace(plan, devices=devices),
    )


def probed(device: Device) -> Device:
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


def _measured(
    request: Request,
    plan: MeasurePlan,
    outcome: Outcome,
    cache: Cache,
    pool: Pool,
    display: Display,
) -> tuple[list[Report], str]:
    """A report for each device, the request's first, and when they were measured."""
    devices = plan.devices
    targets = targets_of(request, outcome)
    timing = targets
    if plan.only:
        wanted = (*plan.only, baseline(request, outcome))
        timing = {key: one for key, one in targets.items() if key in wanted}
    local = [one for one in devices if not one.remote]
    away = [one for one in devices if one.remote]
    found: dict[str, Report] = {}
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    if away:
        found |= _away(away, request, plan, outcome, targets, timing, cache, pool, display)
    # After the others: what runs here would be measured with them.
    for device in local:
        one = dataclasses.replace(request, device=device)
        timed, when = latencies_of(one, plan.preset, outcome, timing, cache, display)
        placements = placements_of(one, outcome, targets, cache, pool)
        scored = scores_of(one, outcome, targets, cache, pool, display)
        checks = checks_of(one, outcome, targets, cache, pool, display)
        rows = rows_from(one, outcome, timed, scored, placements, checks)
        found[device.name] = report_of(one, plan.preset, outcome, rows)
    pool.trim(os.cpu_count() or 1)  # scoring had one for each file: the next run starts with two
    return [found[device.name] for device in devices], when


def _away(
    devices: list[Device],
    request: Request,
    plan: MeasurePlan,
    outcome: Outcome,
    targets: dict[str, Target],
    timing: dict[str, Target],
    cache: Cache,
    pool: Pool,
    display: Display,
) -> dict[str, Report]:
    """A report for each device with a runner; this machine scores and checks.

    timing: those of the targets that run there.
    """
    from workbench.dataset.loading import load_dataset
    from workbench.device.bundle import RUNTIMES
    from workbench.report import away

    host = profile.load("cpu")
    here = dataclasses.replace(request, device=host)
    checks = checks_of(here, outcome, targets, cache, pool, display)
    bare = report_of(here, plan.preset, outcome, rows_from(here, outcome, {}, {}, {}, checks))
    runs = {
        key: one
        for key, one in targets.items()
        if not isinstance(one, Artifact) or (one.format in RUNTIMES and key in timing)
    }
    dataset = load_dataset(request.data)
    example = dataset.examples(1, request.source.seed)
    asked = away.Asked(
        targets=runs,
        reference=next(iter(targets)),
        timed=dict.fromkeys(runs, example),
        dataset=dataset,
        count=plan.samples,
        preset=plan.preset,
        operators=plan.operators,
        resume=cache.enabled,
    )
    return away.blocks(devices, bare, asked, host, pool, cache, display)


def _remember(cache: Cache, outcome: Outcome) -> None:
    """Keep how long things took, for the next run's time left."""
    known = read_json(cache.folder / "timings.json") or {}
    rounded = {name: round(seconds, 2) for name, seconds in outcome.timings.items()}
    write_json(cache.folder / "timings.json", {**known, **rounded})
