"""`wb profile FILE…`: model files measured as they are, in the same table as a recipe's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import dataset as datasets
from workbench.cache import Cache
from workbench.dataset.core import random_inputs
from workbench.device import probe, profile, provider_check
from workbench.device.selection import select_devices
from workbench.errors import InputError
from workbench.inspect import artifacts
from workbench.measure.plan import MeasurePlan
from workbench.model import parse_inputs
from workbench.report.data import Report
from workbench.run.file_measuring import FileSet, expected_seconds, measure_files
from workbench.run.packages import PACKAGES
from workbench.run.run_options import STANDARD, check_samples, find_preset
from workbench.run.subjects import SEED, Array, Subject, fit_files, open_files
from workbench.worker_pool import Pool
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.artifact import TensorSpec
    from workbench.dataset.core import Dataset
    from workbench.device.profile import Device
    from workbench.display import Display

SAMPLES = 64  # whose outputs come back from a device, where nothing else is asked


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """What `wb profile` is asked for, in the words of the command line.

    Attributes:
        files: model files of any formats; the others are held against the first.
        data: a dataset's name or .toml file, or one that is loaded.
        inputs: NAME:SHAPE[:DTYPE] of each input, where there is no data.
        devices: names of profiles, tag:NAME, class:NAME, or all.
        preset: how long is measured: quick, standard or strict.
        samples: evaluation samples whose outputs a device gives back, and which are scored.
        resume: keep what an interrupted run finished on the devices.
        operators: ask devices for the time of each operator.
        out: a folder for the report; none is written without.
    """

    files: tuple[Path, ...]
    data: str | Dataset | None = None
    inputs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu",)
    preset: str = STANDARD
    samples: int = SAMPLES
    resume: bool = False
    operators: bool = False
    out: Path | None = None

    def plan(self) -> MeasurePlan:
        """On which devices, how long. Raises InputError for words that are wrong."""
        return MeasurePlan(
            devices=tuple(select_devices(self.devices or ("cpu",))),
            preset=find_preset(self.preset),
            samples=self.samples,
            operators=self.operators,
            resume=self.resume,
            users_files=True,
        )


def profile_files(options: ProfileOptions, display: Display) -> Report:
    """Measure the files on one device or several, and write a folder where one is asked for.

    Raises InputError for words and files that are wrong; what keeps a file from running is an error
    of its row, what keeps a device from it one of its block.
    """
    started, created = time.perf_counter(), datetime.now().astimezone()
    paths, data, out = options.files, options.data, options.out
    check_samples(data, options.inputs)
    shapes = parse_inputs(list(options.inputs))
    plan = options.plan()
    local = [device for device in plan.devices if not device.remote]
    _check_operators(plan.operators, local)
    if out is not None:
        _check_folder(out, paths)
    display.plan(expected_seconds(len(paths), plan.preset))
    display.update("files", 0.0)
    own: dict[str, dict[str, Array]] = {}
    with closing(Pool()) as pool, closing(Cache()) as cache:
        with _warming(pool, paths if len(local) < len(plan.devices) else ()):
            subjects = open_files(paths)
            dataset = datasets.load(data) if isinstance(data, str) else data
        for device in local:
            provider_check.require(device, pool)
        host = local[0] if local else profile.load("cpu")
        if dataset is None:
            subjects, own = _sized(subjects, shapes)
        else:
            dataset.check()
            subjects = fit_files(subjects, dataset, host, pool)
        display.done("files")
        files = FileSet(subjects=subjects, dataset=dataset, inputs=own)
        blocks = measure_files(files, plan, Workspace(cache, pool, display), host)
    date = created.isoformat(timespec="seconds")
    labels = [subject.label for subject in subjects]
    report = Report(
        recipe="profile",
        model=", ".join(labels[:3]) + (", …" if len(labels) > 3 else ""),
        blocks=blocks,
        versions=probe.versions(PACKAGES),
        created=date,
        measured=date,
        seconds=round(time.perf_counter() - started, 2),
    )
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
    subjects: Sequence[Subject], shapes: tuple[TensorSpec, ...]
) -> tuple[list[Subject], dict[str, dict[str, Array]]]:
    """Each file with random inputs of its own, in its own shapes.

    Raises ModelError where a shape is not known, InputError where an --input is no file's.
    """
    inputs = {}
    sized = []
    used: set[str] = set()
    for subject in subjects:
        specs = artifacts.closed_inputs(subject.own, shapes)
        requests = [artifacts.request_for(spec, subject.own, shapes) for spec in subject.own.inputs]
        used |= {request.name for request in requests if request is not None}
        batch = artifacts.fixed_batch(subject.own) or 1
        label = subject.label if batch == 1 else f"{subject.label} (batch {batch})"
        inputs[label] = _filled(specs, batch)
        artifact = replace(subject.own, inputs=specs)
        sized.append(replace(subject, label=label, artifact=artifact))
    unused = [spec.name for spec in shapes if spec.name not in used]
    if unused:
        names = sorted({spec.name for subject in subjects for spec in subject.own.inputs})
        raise InputError(
            f"--input {unused[0]}: no file has such an input", "", f"they have {', '.join(names)}"
        )
    return sized, inputs


def _filled(specs: Sequence[TensorSpec], batch: int) -> dict[str, Array]:
    """Random inputs, the first axis as the file has it: with states, it is not always the batch."""
    arrays: dict[str, Array] = {}
    for position, spec in enumerate(specs):
        count = (spec.shape[0] if spec.shape else None) or batch
        arrays |= random_inputs((spec,), count, SEED + position)
    return arrays
