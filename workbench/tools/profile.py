"""`wb profile FILE…`: model files measured as they are, in the same table as a recipe's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import dataset as datasets
from workbench import files
from workbench.artifact import Artifact
from workbench.cache import Cache
from workbench.commands import check_samples, chosen_preset
from workbench.dataset.core import random_inputs
from workbench.device import probe, profile, providers
from workbench.device.choice import chosen
from workbench.errors import InputError, WorkbenchError
from workbench.measure.accuracy import Scores
from workbench.measure.latency import PRESETS, Latency
from workbench.measure.run import accuracies, latencies
from workbench.model import parse_inputs
from workbench.process import Pool
from workbench.report.build import PACKAGES
from workbench.report.data import Report, Row
from workbench.tools.subjects import SEED, Array, Subject, fitted, opened

if TYPE_CHECKING:
    from workbench.artifact import TensorSpec
    from workbench.dataset.core import Dataset
    from workbench.device.placement import Placement
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.measure.latency import Preset

SAMPLES = 64  # whose outputs come back from a device, where nothing else is asked

Observe = Callable[[Mapping[str, list[Array]]], None]


def command(
    paths: list[Path],
    data: str | None,
    inputs: list[str],
    devices: Sequence[str],
    presets: dict[str, bool],
    display: Display,
    out: Path | None = None,
    *,
    samples: int = SAMPLES,
    resume: bool = False,
    operators: bool = False,
) -> Report:
    """Measure the files on one device or several, and write a folder where one is asked for.

    samples: whose outputs come back from a device and are scored. resume: what an interrupted run
    finished is kept. operators: the time of each operator is asked for.
    Raises InputError for words and files that are wrong; what keeps a file from running is an error
    of its row, what keeps a device from it one of its block.
    """
    started, created = time.perf_counter(), datetime.now().astimezone()
    preset = chosen_preset(presets)
    check_samples(data, inputs)
    given = parse_inputs(inputs)
    places = chosen(devices or ["cpu"])
    local = [one for one in places if not one.remote]
    _check_operators(operators, local)
    if out is not None:
        _check_folder(out, paths)
    display.plan(planned(len(paths), preset))
    display.update("files", 0.0)
    subjects = opened(paths)
    dataset = datasets.load(data) if data is not None else None
    own: dict[str, dict[str, Array]] = {}
    with closing(Pool()) as pool:
        for one in local:
            providers.require(one, pool)
        host = local[0] if local else profile.load("cpu")
        if dataset is None:
            subjects, own = _sized(subjects, given)
            example = next(iter(own.values()))
        else:
            dataset.check()
            subjects = fitted(subjects, dataset, host, pool)
            example = dataset.examples(1, SEED)
        display.done("files")
        blocks = _away(
            [one for one in places if one.remote], host, subjects, example, dataset, preset, pool,
            display, own, samples=samples, resume=resume, operators=operators,
        )  # fmt: skip
        for one in local:
            blocks[one.name] = measured(
                subjects, example, dataset, one, preset, pool, display, own=own
            )
    named = ", ".join(one.label for one in subjects[:3]) + (", …" if len(subjects) > 3 else "")
    when = created.isoformat(timespec="seconds")
    first, *others = [
        replace(
            blocks[one.name],
            recipe="profile",
            model=named,
            created=when,
            measured=when,
            seconds=round(time.perf_counter() - started, 2),
        )
        for one in places
    ]
    report = replace(first, others=tuple(others))
    if out is not None:
        from workbench import rundir

        rundir.write_report(out, report)
    return report


def _away(
    devices: Sequence[Device],
    host: Device,
    subjects: Sequence[Subject],
    example: Mapping[str, Array],
    dataset: Dataset | None,
    preset: Preset,
    pool: Pool,
    display: Display,
    own: Mapping[str, Mapping[str, Array]],
    *,
    samples: int,
    resume: bool,
    operators: bool,
) -> dict[str, Report]:
    """A block for each device with a runner."""
    if not devices:
        return {}
    from workbench.report import away

    targets = {one.label: one.artifact for one in subjects if one.error is None}
    bare = measured(
        subjects, example, None, host, PRESETS["none"], pool, display, own=own, metric=dataset
    )
    asked = away.Asked(
        targets=targets,
        reference=next(iter(targets), ""),
        timed={label: own.get(label, example) for label in targets},
        dataset=dataset,
        count=samples,
        preset=preset,
        operators=operators,
        resume=resume,
    )
    with closing(Cache()) as cache:
        return away.blocks(
            devices, replace(bare, preset=preset.name), asked, host, pool, cache, display
        )


def _check_operators(operators: bool, local: Sequence[Device]) -> None:
    if operators and local:
        raise InputError(
            f"--op-profile needs a runner, and {local[0].name} has none",
            "this package's own processes time whole runs",
            "use --device cpu-native for this machine",
        )


def _check_folder(out: Path, paths: Sequence[Path]) -> None:
    from workbench import rundir

    folder = rundir.free(out).resolve()
    inside = next((path for path in paths if path.resolve().is_relative_to(folder)), None)
    if inside is not None:
        raise InputError(
            f"{inside} lies in {out}", "a run replaces its folder", "give --out a new folder"
        )


def planned(count: int, preset: Preset) -> dict[str, float]:
    """What is done with so many files, with the seconds that it may take."""
    seconds = count * preset.processes * (preset.seconds + 1)
    return {"files": float(count), "latency": seconds, "accuracy": 2.0 * count}


def _sized(
    subjects: Sequence[Subject], given: tuple[TensorSpec, ...]
) -> tuple[list[Subject], dict[str, dict[str, Array]]]:
    """Each file with random inputs of its own, in its own shapes.

    Raises ModelError where a shape is not known, InputError where an --input is no file's.
    """
    inputs = {}
    found = []
    used: set[str] = set()
    for subject in subjects:
        specs = files.sized(subject.own, given)
        asked = [files.meant(spec, subject.own, given) for spec in subject.own.inputs]
        used |= {one.name for one in asked if one is not None}
        batch = files.fixed_batch(subject.own) or 1
        label = subject.label if batch == 1 else f"{subject.label} (batch {batch})"
        inputs[label] = _filled(specs, batch)
        artifact = replace(subject.own, inputs=specs)
        found.append(replace(subject, label=label, artifact=artifact))
    unused = [spec.name for spec in given if spec.name not in used]
    if unused:
        known = sorted({spec.name for one in subjects for spec in one.own.inputs})
        raise InputError(
            f"--input {unused[0]}: no file has such an input", "", f"they have {', '.join(known)}"
        )
    return found, inputs


def _filled(specs: Sequence[TensorSpec], batch: int) -> dict[str, Array]:
    """Random inputs, the first axis as the file has it: with states, it is not always the batch."""
    arrays: dict[str, Array] = {}
    for place, spec in enumerate(specs):
        count = (spec.shape[0] if spec.shape else None) or batch
        arrays |= random_inputs((spec,), count, SEED + place)
    return arrays


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


def show(report: Report, as_json: bool, out: Path | None) -> None:
    """The report on stdout, as a table or as JSON."""
    if as_json:
        import json
        import sys

        json.dump(report.to_json(), sys.stdout, indent=1)
        print()
        return
    from workbench.commands import console
    from workbench.report import table

    table.show(report, console())
    for row in report.rows:
        for note in row.notes:
            print(f"  {row.label}: {note}")
    for one in report.blocks if report.away or report.others else ():
        for note in one.notes:
            print(f"  {one.device}: {note}")
    said = "" if out is None else f"{out}/report.html  "
    print(f"\n{said}({report.seconds:.1f} s)")
