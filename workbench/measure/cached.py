"""Targets measured by this package's own processes: from the cache what is there, the rest now."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.cache import key_of
from workbench.codec import from_plain, to_plain
from workbench.device import probe
from workbench.device.placement import Placement
from workbench.device.providers import runs_on_cpu
from workbench.errors import DatasetError, WorkbenchError
from workbench.measure.checks import checks_of
from workbench.measure.latency import Latency
from workbench.measure.measurement import DeviceMeasurements, Measurement
from workbench.measure.target import runnable, subjects_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.measure.accuracy import Scores
    from workbench.measure.checks import Checks
    from workbench.measure.plan import MeasurePlan
    from workbench.measure.target import Bench, MeasureTarget

    # Sees the outputs [n, ...] of every batch, by target.
    Observe = Callable[[Mapping[str, list[NDArray[Any]]]], None]
    Targets = Mapping[str, MeasureTarget]

RUNTIMES = ("torch", "onnxruntime", "ai-edge-litert")


def measure_here(
    targets: tuple[MeasureTarget, ...],
    bench: Bench,
    plan: MeasurePlan,
    exported: Artifact | None = None,
    observe: Observe | None = None,
) -> DeviceMeasurements:
    """Latency, placement, scores and checks of every target that can be run.

    exported: the ONNX graph whose nodes a recipe's files are compared with. observe: sees every
    target's outputs, so that all are inferred.
    """
    running, device, data = runnable(targets), bench.device, bench.data
    timing = {key: target for key, target in running.items() if not plan.only or key in plan.only}
    seconds: dict[str, float] = {}
    timed, measured = latencies_of(timing, bench, plan, seconds)
    placements: Mapping[str, Placement] = {}
    if not plan.users_files or device.provider != "cpu":
        placements = placements_of(running, bench)
    scored = scores_of(running, bench, seconds, observe)
    checks: Mapping[str, Checks] = {}
    if not plan.users_files:
        checks = checks_of(subjects_of(running), exported, bench)
    evaluation = data.facts.evaluation
    return DeviceMeasurements(
        device=device,
        targets={
            key: _measurement(
                timed.get(key),
                scored.get(key),
                placement=placements.get(key, Placement()),
                checks=checks.get(key),
                on_cpu=_on_cpu(target, bench),
            )
            for key, target in running.items()
        },
        samples=evaluation.samples if evaluation is not None and running else 0,
        host={**probe.host(device.provider), "INT8": device.quantization},
        measured=measured,
        seconds=seconds,
    )


def _measurement(
    latency: Latency | WorkbenchError | None, scores: Scores | WorkbenchError | None, **more: Any
) -> Measurement:
    errors = [result for result in (latency, scores) if isinstance(result, WorkbenchError)]
    return Measurement(
        latency=latency if isinstance(latency, Latency) else None,
        scores=None if isinstance(scores, WorkbenchError) else scores,
        error=errors[0] if errors else None,
        **more,
    )


def _on_cpu(target: MeasureTarget, bench: Bench) -> bool:
    assert target.subject is not None
    return runs_on_cpu(bench.device, target.subject)


def latencies_of(
    targets: Targets, bench: Bench, plan: MeasurePlan, seconds: dict[str, float]
) -> tuple[dict[str, Latency | WorkbenchError], str]:
    """Latency of every target that runs on the device, and when it was measured.

    Kept as one record: rounds pair the targets, so figures of two sessions do not mix. What it took
    is noted in `seconds`.
    """
    device, preset = bench.device, plan.preset
    cache, display = bench.workspace.cache, bench.workspace.display
    targets = {key: target for key, target in targets.items() if not _on_cpu(target, bench)}
    if not preset.processes or (plan.users_files and not targets):
        display.done("latency", "skipped")
        return {}, ""
    key = key_of(
        "latency", {key: target.identity for key, target in targets.items()},
        dataclasses.asdict(preset), device.to_json(), probe.host(device.provider),
        probe.versions(RUNTIMES), bench.data.facts.inputs,
        code=("workbench.measure.host",),
    )  # fmt: skip
    # Who gives files asks how fast they are now: an earlier figure would be no answer.
    record = None if plan.users_files else cache.record(key)
    if record is not None:
        display.done("latency", "cached")
        kept = {name: Latency.from_json(latency) for name, latency in record["latencies"].items()}
        return dict(kept), record["measured"]
    from workbench.measure.host import latencies

    display.update("latency", 0.0)
    own = {key: target.inputs for key, target in targets.items() if target.inputs is not None}
    inputs = bench.data.examples(1) if len(own) < len(targets) else {}
    # Two runs at once would measure each other.
    with cache.locked(
        device.lock,
        lambda: display.message(f"{device.name} is being measured by another run: waiting"),
    ):
        began = time.perf_counter()
        timed = latencies(
            subjects_of(targets), inputs, device, preset,
            lambda fraction, note: display.update("latency", fraction, note), own,
        )  # fmt: skip
        seconds["latency"] = time.perf_counter() - began
    measured = datetime.now().astimezone().isoformat(timespec="seconds")
    good = {
        name: latency.to_json() for name, latency in timed.items() if isinstance(latency, Latency)
    }
    # A crash may have been a passing one: try it again next time.
    if len(good) == len(timed) and not plan.users_files:
        cache.store(key, {"latencies": good, "measured": measured})
    display.done("latency")
    return timed, measured


def scores_of(
    targets: Targets, bench: Bench, seconds: dict[str, float], observe: Observe | None = None
) -> dict[str, Scores | WorkbenchError]:
    """Scores of every target that has none in the cache; empty without an evaluation split.

    They are against the first target's. What it took is noted in `seconds`.
    """
    from workbench.measure.accuracy import Scores

    device, data = bench.device, bench.data
    cache, display = bench.workspace.cache, bench.workspace.display
    evaluation = data.facts.evaluation
    if evaluation is None or not targets:
        display.done("accuracy", "skipped")
        return {}
    reference = next(iter(targets))
    against = (
        targets[reference].identity, evaluation.fingerprint, device.runtime,
        probe.versions(RUNTIMES),
    )  # fmt: skip

    def key_for(name: str) -> str:
        return key_of(
            "scores", targets[name].identity, against, data.facts.metric,
            data.facts.metric_digest, data.facts.metric_identity,
            code=("workbench.measure.host",),
        )  # fmt: skip

    kept_scores: dict[str, Scores | WorkbenchError] = {}
    for name in targets if observe is None else ():
        record = cache.record(key_for(name))
        if record is not None:
            kept_scores[name] = Scores.from_json(record)
    missing = {name: target for name, target in targets.items() if name not in kept_scores}
    if not missing:
        display.done("accuracy", "cached")
        return kept_scores
    from workbench.measure.host import accuracies
    from workbench.measure.recorded import Recorded, Recording, save

    display.update("accuracy", 0.0)
    began = time.perf_counter()
    outputs = key_of("outputs", against, code=("workbench.measure.host",))
    recording = Recording(reference)
    kept = cache.entry(outputs) if observe is None else None
    try:
        scored = accuracies(
            subjects_of({reference: targets[reference], **missing}), reference, data.load(),
            bench.workspace.pool,
            lambda fraction, note: display.update("accuracy", fraction, note),
            device,
            observe=observe or (None if kept else recording),
            size=data.batch,
            known=Recorded(*kept) if kept else None,
        )  # fmt: skip
    except DatasetError:
        raise
    except WorkbenchError as error:  # the reference's own: nothing can be scored against it
        scored = {reference: error}
    seconds["accuracy"] = time.perf_counter() - began
    for name, scores in scored.items():
        if isinstance(scores, Scores):
            cache.store(key_for(name), scores.to_json())
    if arrays := recording.arrays(evaluation.samples):
        cache.make(outputs, lambda folder: save(folder, arrays))
    cache.used.discard(outputs)  # who has the scores needs no outputs
    display.done("accuracy")
    return {**kept_scores, **scored}


def placements_of(targets: Targets, bench: Bench) -> dict[str, Placement]:
    """Where the nodes of every target ran. One that cannot be told has a note that says why."""
    device, cache = bench.device, bench.workspace.cache
    placements: dict[str, Placement] = {}
    inputs = None
    # A step's worker has imported what is asked here, for the files; it is asked for all.
    with bench.workspace.pool.lend("step") as worker:
        for name, target in targets.items():
            if not isinstance(target.subject, Artifact) and device.provider == "cpu":
                continue  # PyTorch has one place there, and no nodes to count
            key = key_of(
                "placement", target.identity, device.to_json(), probe.host(device.provider),
                probe.versions(RUNTIMES), bench.data.facts.inputs,
                code=("workbench.device.placement",),
            )  # fmt: skip
            record = cache.record(key)
            if record is not None:
                placements[name] = from_plain(record, Placement)
                continue
            if inputs is None and target.inputs is None:
                inputs = bench.data.examples(1)
            try:
                placement: Placement = worker.call(
                    "placement", target.subject, dict(target.inputs or inputs or {}), device
                )
            except WorkbenchError as error:
                note = f"where its nodes ran is not known: {error.what}"
                placements[name] = Placement(notes=(note,))
                continue
            placements[name] = placement
            cache.store(key, to_plain(placement))
    return placements
