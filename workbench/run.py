"""A run: the engine's artifacts measured, reported, and put into a run folder."""

from __future__ import annotations

import dataclasses
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from workbench import rundir
from workbench.cache import Cache, read_json, write_json
from workbench.device import providers
from workbench.display import Display
from workbench.engine import Engine, Outcome, Request
from workbench.measure.cached import latencies_of, placements_of, scores_of, targets_of
from workbench.measure.checks import checks_of
from workbench.measure.latency import Preset
from workbench.process import Pool
from workbench.report.build import report_of, rows_from
from workbench.report.data import Report


@dataclass(frozen=True)
class Finished:
    """A run's report and the folder that holds it."""

    report: Report
    folder: Path


def expected(request: Request, preset: Preset, cache: Cache) -> dict[str, float]:
    """Every task of a run with the seconds it is expected to take, from earlier runs here."""
    known = read_json(cache.folder / "timings.json") or {}
    located = request.recipe.located()
    rows = len(located)
    defaults = {"dataset": 2.0, "model": 3.0}
    defaults |= {one.id: one.step.seconds for one in located}
    defaults["latency"] = rows * preset.processes * (preset.seconds + 1)
    defaults["accuracy"] = 15.0 if isinstance(request.data, str) else 0.1
    defaults["checks"] = 1.5 * rows
    defaults["report"] = 2.0
    return {name: float(known.get(name, seconds)) for name, seconds in defaults.items()}


def execute(
    request: Request, preset: Preset, cache: Cache, display: Display, out: Path | None
) -> Finished:
    """Run a recipe, measure what it gave, write the run folder.

    Raises DependencyError or DeviceError where the device's execution provider is not to be had,
    before any work; WorkbenchError where a trunk step failed or the folder cannot be written. A
    failed branch is a row of the report.
    """
    started = time.perf_counter()
    created = datetime.now().astimezone()
    display.plan(expected(request, preset, cache))
    with closing(Pool()) as pool:
        providers.require(request.device, pool)
        folder = rundir.prepare(request, created, out)
        outcome = Engine(request, cache, pool, display).run()
        targets = targets_of(request, outcome)
        timed, when = latencies_of(request, preset, outcome, targets, cache, display)
        placements = placements_of(request, outcome, targets, cache, pool)
        scored = scores_of(request, outcome, targets, cache, pool, display)
        checks = checks_of(request, outcome, targets, cache, display)
    display.update("report", 0.0)
    rows = rows_from(request, outcome, timed, scored, placements, checks)
    report = report_of(request, preset, outcome, rows)
    report = dataclasses.replace(
        report,
        created=created.isoformat(timespec="seconds"),
        measured=when,
        seconds=round(time.perf_counter() - started, 2),
    )
    folder, report = rundir.write(folder, report, request, outcome, replace=out is not None)
    display.done("report")
    _remember(cache, outcome)
    return Finished(report, folder)


def _remember(cache: Cache, outcome: Outcome) -> None:
    """Keep how long things took, for the next run's time left."""
    known = read_json(cache.folder / "timings.json") or {}
    rounded = {name: round(seconds, 2) for name, seconds in outcome.timings.items()}
    write_json(cache.folder / "timings.json", {**known, **rounded})
