"""Measuring what is not measured yet: latencies and scores, from the cache where they are there."""

from __future__ import annotations

import dataclasses
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.cache import Cache, key_of
from workbench.codec import from_plain, to_plain
from workbench.device import probe
from workbench.device.placement import Placement
from workbench.device.providers import runs_on_cpu
from workbench.display import Display
from workbench.engine.outcome import Outcome
from workbench.engine.request import Request
from workbench.errors import DatasetError, WorkbenchError
from workbench.measure.latency import Latency, Preset

if TYPE_CHECKING:
    from workbench.measure.host import Target
    from workbench.worker_pool import Pool

EAGER = "eager"
RUNTIMES = ("torch", "onnxruntime", "ai-edge-litert")


def targets_of(request: Request, outcome: Outcome) -> dict[str, Target]:
    """What is measured, by row key: PyTorch eager first, then every artifact of the table."""
    targets: dict[str, Target] = {}
    if outcome.start is None:
        targets[EAGER] = request.source
    for result in outcome.table:
        if result.artifact is not None:
            targets[result.located.id] = result.artifact
    return targets


def _identity(key: str, target: Target, outcome: Outcome) -> str:
    return target.sha256 if isinstance(target, Artifact) else outcome.model.fingerprint


def latencies_of(
    request: Request,
    preset: Preset,
    outcome: Outcome,
    targets: dict[str, Target],
    cache: Cache,
    display: Display,
) -> tuple[dict[str, Latency | WorkbenchError], str]:
    """Latency of every target that runs on the device, and when it was measured.

    Kept as one record: rounds pair the targets, so figures of two sessions do not mix.
    """
    if not preset.processes:
        display.done("latency", "skipped")
        return {}, ""
    targets = {key: one for key, one in targets.items() if not runs_on_cpu(request.device, one)}
    identities = {key: _identity(key, target, outcome) for key, target in targets.items()}
    key = key_of(
        "latency", identities, dataclasses.asdict(preset), request.device.to_json(),
        probe.host(request.device.provider), probe.versions(RUNTIMES),
        outcome.dataset.inputs, code=("workbench.measure.host",),
    )  # fmt: skip
    found = cache.record(key)
    if found is not None:
        display.done("latency", "cached")
        timed = {name: Latency.from_json(one) for name, one in found["latencies"].items()}
        return dict(timed), found["measured"]
    from workbench.dataset.loading import load_dataset
    from workbench.measure.host import latencies

    display.update("latency", 0.0)
    inputs = load_dataset(request.data).examples(1, request.source.seed)
    # Two runs at once would measure each other.
    with cache.locked(
        request.device.lock,
        lambda: display.message(f"{request.device.name} is being measured by another run: waiting"),
    ):
        began = time.perf_counter()
        made = latencies(
            targets, inputs, request.device, preset,
            lambda fraction, note: display.update("latency", fraction, note),
        )  # fmt: skip
        outcome.timings["latency"] = time.perf_counter() - began
    when = datetime.now().astimezone().isoformat(timespec="seconds")
    good = {name: one.to_json() for name, one in made.items() if isinstance(one, Latency)}
    if len(good) == len(made):  # a crash may have been a passing one: try it again next time
        cache.store(key, {"latencies": good, "measured": when})
    display.done("latency")
    return made, when


def scores_of(
    request: Request,
    outcome: Outcome,
    targets: dict[str, Target],
    cache: Cache,
    pool: Pool,
    display: Display,
) -> dict[str, Any]:
    """Scores of every target that has none in the cache; empty without an evaluation split."""
    from workbench.measure.accuracy import Scores

    evaluation = outcome.dataset.evaluation
    if evaluation is None:
        display.done("accuracy")
        return {}
    reference = next(iter(targets))
    against = (
        _identity(reference, targets[reference], outcome), evaluation.fingerprint,
        request.device.runtime, probe.versions(RUNTIMES),
    )  # fmt: skip

    def key_for(name: str) -> str:
        return key_of(
            "scores", _identity(name, targets[name], outcome), against,
            outcome.dataset.metric, outcome.dataset.metric_digest,
            code=("workbench.measure.host",),
        )  # fmt: skip

    found: dict[str, Any] = {}
    for name in targets:
        record = cache.record(key_for(name))
        if record is not None:
            found[name] = Scores.from_json(record)
    missing = {name: one for name, one in targets.items() if name not in found}
    if not missing:
        display.done("accuracy", "cached")
        return found
    from workbench.dataset.loading import load_dataset
    from workbench.measure.host import BATCH, accuracies
    from workbench.measure.recorded import Recorded, Recording, save

    display.update("accuracy", 0.0)
    began = time.perf_counter()
    outputs = key_of("outputs", against, code=("workbench.measure.host",))
    recording = Recording(reference)
    known = cache.entry(outputs)
    try:
        made = accuracies(
            {reference: targets[reference], **missing}, reference, load_dataset(request.data),
            pool,
            lambda fraction, note: display.update("accuracy", fraction, note),
            request.device,
            observe=None if known else recording,
            size=1 if outcome.model.mixes_samples else BATCH,
            known=Recorded(*known) if known else None,
        )  # fmt: skip
    except DatasetError:
        raise
    except WorkbenchError as error:  # the reference's own: nothing can be scored against it
        made = {reference: error}
    outcome.timings["accuracy"] = time.perf_counter() - began
    for name, scores in made.items():
        if isinstance(scores, Scores):
            cache.store(key_for(name), scores.to_json())
    if arrays := recording.arrays(evaluation.samples):
        cache.make(outputs, lambda folder: save(folder, arrays))
    cache.used.discard(outputs)  # who has the scores needs no outputs
    display.done("accuracy")
    return {**found, **made}


def placements_of(
    request: Request, outcome: Outcome, targets: dict[str, Target], cache: Cache, pool: Pool
) -> dict[str, Placement]:
    """Where the nodes of every target ran. One that cannot be told has a note that says why."""
    found: dict[str, Placement] = {}
    worker = None
    inputs = None
    for name, target in targets.items():
        if not isinstance(target, Artifact) and request.device.provider == "cpu":
            continue  # PyTorch has one place there, and no nodes to count
        key = key_of(
            "placement", _identity(name, target, outcome), request.device.to_json(),
            probe.host(request.device.provider), probe.versions(RUNTIMES),
            outcome.dataset.inputs, code=("workbench.device.placement",),
        )  # fmt: skip
        known = cache.record(key)
        if known is not None:
            found[name] = from_plain(known, Placement)
            continue
        if inputs is None:
            from workbench.dataset.loading import load_dataset

            inputs = dict(load_dataset(request.data).examples(1, request.source.seed))
        # A step's worker has imported what is asked here, for the files; it is asked for all.
        worker = worker or pool.take("step")
        try:
            found[name] = worker.call("placement", target, inputs, request.device)
        except WorkbenchError as error:
            found[name] = Placement(notes=(f"where its nodes ran is not known: {error.what}",))
            worker.close()
            worker = None
            continue
        cache.store(key, to_plain(found[name]))
    if worker is not None:
        pool.give(worker)
    return found
