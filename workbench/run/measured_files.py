"""Model files measured by this package's own processes: a report with a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.cache import Cache
from workbench.device import probe, providers
from workbench.errors import InputError, WorkbenchError
from workbench.measure.accuracy import Scores
from workbench.measure.host import accuracies, latencies
from workbench.measure.latency import Latency
from workbench.report.build import PACKAGES
from workbench.report.data import Report, Row
from workbench.run.subjects import Array, Subject
from workbench.worker_pool import Pool

if TYPE_CHECKING:
    from workbench.dataset.core import Dataset
    from workbench.device.placement import Placement
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.measure.latency import Preset

Observe = Callable[[Mapping[str, list[Array]]], None]


def planned(count: int, preset: Preset) -> dict[str, float]:
    """What is done with so many files, with the seconds that it may take."""
    seconds = count * preset.processes * (preset.seconds + 1)
    return {"files": float(count), "latency": seconds, "accuracy": 2.0 * count}


def measured(
    subjects: Sequence[Subject],
    example: Mapping[str, Array],
    dataset: Dataset | None,
    device: Device,
    preset: Preset,
    pool: Pool,
    display: Display,
    *,
    own: Mapping[str, Mapping[str, Array]] | None = None,
    observe: Observe | None = None,
    metric: Dataset | None = None,
) -> Report:
    """Latency and, with a dataset, scores of the subjects that can run; a row for each.

    The first that runs is the reference of the scores and the baseline of the ratios. metric: the
    dataset that names the metric and has labels or not, where nothing is scored now.
    """
    targets = {one.label: one.artifact for one in subjects if one.error is None}
    timed = _timed(targets, example, device, preset, display, own)
    scored = _scored(targets, dataset, device, pool, display, observe)
    places = _placements(targets, example, device, pool, own)
    rows = tuple(_row(one, timed, scored, places, device) for one in subjects)
    named = dataset or metric
    split = named.evaluation if named is not None else None
    first = next(iter(targets), "") if scored or metric else ""
    baseline = next((row.key for row in rows if row.error is None), rows[0].key)
    notes = []
    if named is not None and split is None:
        notes.append(f"{named.name} has no evaluation samples: accuracy was not measured")
    return Report(
        recipe="",
        model="",
        dataset=named.name if named is not None else "random inputs",
        device=device.name,
        threads=device.threads,
        preset=preset.name,
        metric=(named.metric_name.rpartition(":")[2] if named else "") or "top-1",
        samples=len(split) if split is not None and scored else 0,
        labelled=split is not None and split.labels is not None,
        rows=rows,
        eager="",
        onnx=baseline,
        reference=first,
        host={**probe.host(device.provider), "INT8": device.quantization},
        versions=probe.versions(PACKAGES),
        notes=tuple(notes),
    )


def _timed(
    targets: Mapping[str, Artifact],
    example: Mapping[str, Array],
    device: Device,
    preset: Preset,
    display: Display,
    own: Mapping[str, Mapping[str, Array]] | None,
) -> dict[str, Latency | WorkbenchError]:
    here = {label: one for label, one in targets.items() if not providers.runs_on_cpu(device, one)}
    if not preset.processes or not here:
        display.done("latency", "skipped")
        return {}
    display.update("latency", 0.0)
    # Two at once would measure each other.
    with (
        closing(Cache()) as cache,
        cache.locked(
            device.lock,
            lambda: display.message(f"{device.name} is being measured by another run: waiting"),
        ),
    ):
        found = latencies(
            here, example, device, preset,
            lambda fraction, note: display.update("latency", fraction, note), own,
        )  # fmt: skip
    display.done("latency")
    return found


def _scored(
    targets: Mapping[str, Artifact],
    dataset: Dataset | None,
    device: Device,
    pool: Pool,
    display: Display,
    observe: Observe | None,
) -> dict[str, Any]:
    if dataset is None or dataset.evaluation is None or not targets:
        display.done("accuracy", "skipped")
        return {}
    display.update("accuracy", 0.0)
    reference = next(iter(targets))
    try:
        found: dict[str, Any] = accuracies(
            targets, reference, dataset, pool,
            lambda fraction, note: display.update("accuracy", fraction, note), device, observe,
        )  # fmt: skip
    except InputError:
        raise
    except WorkbenchError as error:  # the reference's own: nothing can be scored against it
        found = {reference: error}
    display.done("accuracy")
    return found


def _placements(
    targets: Mapping[str, Artifact],
    example: Mapping[str, Array],
    device: Device,
    pool: Pool,
    own: Mapping[str, Mapping[str, Array]] | None,
) -> dict[str, Placement]:
    """Where the nodes ran, on a device with a provider of its own: it may have left them."""
    if device.provider == "cpu":
        return {}
    found = {}
    for label, artifact in targets.items():
        try:
            given = dict((own or {}).get(label, example))
            found[label] = pool.call("placement", artifact, given, device)
        except WorkbenchError:
            continue  # what keeps it from running is said by its latency
    return found


def _row(
    subject: Subject,
    timed: Mapping[str, Latency | WorkbenchError],
    scored: Mapping[str, Scores | WorkbenchError],
    places: Mapping[str, Placement],
    device: Device,
) -> Row:
    latency, scores = timed.get(subject.label), scored.get(subject.label)
    errors = [one for one in (latency, scores) if isinstance(one, WorkbenchError)]
    place = places.get(subject.label)
    notes = [*subject.mapping, *(place.notes if place else ())]
    if providers.runs_on_cpu(device, subject.own):
        notes.append(f"its runtime knows nothing of {device.name}: latency was not measured")
    return Row(
        key=subject.label,
        label=subject.label,
        format=str(subject.own.format),
        precision=subject.own.precision,
        path=str(subject.own.path),
        bytes=subject.bytes,
        sha256=subject.own.sha256,
        latency=latency if isinstance(latency, Latency) else None,
        scores=None if isinstance(scores, WorkbenchError) else scores,
        error=subject.error or next(iter(errors), None),
        notes=tuple(notes),
        head=next((spec.head for spec in subject.artifact.outputs), ""),
        placement=place.nodes if place else {},
        left=place.left if place else {},
    )
