"""`wb profile FILE…`: model files measured as they are, in the same table as a recipe's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import dataset as datasets
from workbench.cache import Cache
from workbench.dataset.core import random_inputs
from workbench.device import profile, provider_check
from workbench.device.selection import select_devices
from workbench.errors import InputError
from workbench.inspect import artifacts
from workbench.measure.latency import PRESETS
from workbench.model import parse_inputs
from workbench.report.data import Report
from workbench.run.measured_files import measured, planned
from workbench.run.run_options import check_samples
from workbench.run.subjects import SEED, Array, Subject, fitted, opened
from workbench.worker_pool import Pool

if TYPE_CHECKING:
    from workbench.artifact import TensorSpec
    from workbench.dataset.core import Dataset
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.measure.latency import Preset

SAMPLES = 64  # whose outputs come back from a device, where nothing else is asked


def command(
    paths: list[Path],
    data: str | None,
    inputs: list[str],
    devices: Sequence[str],
    preset: Preset,
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
    check_samples(data, inputs)
    given = parse_inputs(inputs)
    places = select_devices(devices or ["cpu"])
    local = [one for one in places if not one.remote]
    _check_operators(operators, local)
    if out is not None:
        _check_folder(out, paths)
    display.plan(planned(len(paths), preset))
    display.update("files", 0.0)
    own: dict[str, dict[str, Array]] = {}
    with closing(Pool()) as pool:
        with _warming(pool, paths if len(local) < len(places) else []):
            subjects = opened(paths)
            dataset = datasets.load(data) if data is not None else None
        for one in local:
            provider_check.require(one, pool)
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
        from workbench.run import folder as rundir

        rundir.write_report(out, report)
    return report


@contextmanager
def _warming(pool: Pool, paths: Sequence[Path]) -> Iterator[None]:
    """While the block opens the files, what will run them is imported."""
    suffixes = {path.suffix for path in paths}
    modules = ["ai_edge_litert.interpreter"] if ".tflite" in suffixes else []
    modules += ["onnxruntime"] if suffixes & {".onnx", ".ort"} else []
    if not modules:
        yield
        return
    with pool.warming("open", *modules):
        yield


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
    from workbench.run import folder as rundir

    folder = rundir.free(out).resolve()
    inside = next((path for path in paths if path.resolve().is_relative_to(folder)), None)
    if inside is not None:
        raise InputError(
            f"{inside} lies in {out}", "a run replaces its folder", "give --out a new folder"
        )


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
        specs = artifacts.closed_inputs(subject.own, given)
        asked = [artifacts.request_for(spec, subject.own, given) for spec in subject.own.inputs]
        used |= {one.name for one in asked if one is not None}
        batch = artifacts.fixed_batch(subject.own) or 1
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
