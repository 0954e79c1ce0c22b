"""Files that `wb profile` and `wb compare` are given, measured: a block for each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.cache import key_of
from workbench.dataset.core import random_dataset
from workbench.dataset.facts import DatasetFacts, dataset_facts
from workbench.measure.devices import measure_on_devices
from workbench.measure.target import Bench, MeasureData, MeasureTarget
from workbench.report.blocks import Baselines, Terms, block_of
from workbench.run.subjects import SEED, Array, Subject

if TYPE_CHECKING:
    from workbench.dataset.core import Dataset
    from workbench.device.profile import Device
    from workbench.measure.cached import Observe
    from workbench.measure.latency import Preset
    from workbench.measure.measurement import DeviceMeasurements
    from workbench.measure.plan import MeasurePlan
    from workbench.report.data import Block
    from workbench.workspace import Workspace


def expected_seconds(count: int, preset: Preset) -> dict[str, float]:
    """What is done with so many files, with the seconds that it may take."""
    seconds = count * preset.processes * (preset.seconds + 1)
    return {"files": float(count), "latency": seconds, "accuracy": 2.0 * count}


@dataclass(frozen=True, kw_only=True)
class FileSet:
    """Files and what they are run on.

    Attributes:
        subjects: the files, fitted to the dataset or to inputs of their own.
        dataset: None where each file has inputs of its own.
        inputs: those, of one run, by label.
    """

    subjects: Sequence[Subject]
    dataset: Dataset | None
    inputs: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)


def measure_files(
    files: FileSet,
    plan: MeasurePlan,
    workspace: Workspace,
    host: Device,
    observe: Observe | None = None,
) -> tuple[Block, ...]:
    """A row for each file, in a block for each of the plan's devices.

    The first file that runs is what the others are held against. host: this machine. observe: as
    `measure_on_devices` has it.
    """
    targets, data = _targets(files), _data(files.dataset)
    measurements = measure_on_devices(targets, Bench(host, data, workspace), plan, observe=observe)
    return tuple(
        block_of(targets, device, _terms(targets, data.facts, device, plan.preset.name))
        for device in measurements
    )


def _targets(files: FileSet) -> tuple[MeasureTarget, ...]:
    return tuple(
        MeasureTarget(
            key=subject.label,
            label=subject.label,
            format=str(subject.own.format),
            precision=subject.own.precision,
            path=str(subject.own.path),
            bytes=subject.bytes,
            sha256=subject.own.sha256,
            head=next((spec.head for spec in subject.artifact.outputs), ""),
            subject=subject.artifact,
            # Of the same file under other names or in another layout, results are others.
            identity=key_of(
                subject.own.sha256, subject.artifact.inputs, subject.artifact.outputs, code=()
            ),
            inputs=files.inputs.get(subject.label),
            notes=subject.mapping,
            error=subject.error,
        )
        for subject in files.subjects
    )


def _data(dataset: Dataset | None) -> MeasureData:
    """A dataset's evaluation samples; without one nothing is scored."""
    if dataset is None:
        nothing = random_dataset(())
        return MeasureData(facts=DatasetFacts(name=nothing.name), load=lambda: nothing)
    return MeasureData(
        facts=dataset_facts(dataset, [dataset.evaluation]), load=lambda: dataset, seed=SEED
    )


def _terms(
    targets: tuple[MeasureTarget, ...],
    facts: DatasetFacts,
    measurements: DeviceMeasurements,
    preset: str,
) -> Terms:
    evaluation = facts.evaluation
    notes = []
    if facts.inputs and evaluation is None:
        notes.append(f"{facts.name} has no evaluation samples: accuracy was not measured")
    return Terms(
        dataset=facts.name,
        preset=preset,
        metric=facts.metric.rpartition(":")[2] or "top-1",
        labelled=evaluation is not None and evaluation.labelled,
        baselines=_baselines(targets, facts, measurements),
        notes=tuple(notes),
    )


def _baselines(
    targets: tuple[MeasureTarget, ...], facts: DatasetFacts, measurements: DeviceMeasurements
) -> Baselines:
    """The first file: that runs, of the scores; and that was measured without an error, of speed.

    A device with a runner may lose a file for a moment: there it stays the one that runs here.
    """
    running = [target.key for target in targets if target.error is None]
    away = measurements.device.remote
    well = [key for key in running if away or measurements.targets[key].error is None]
    scored = facts.evaluation is not None or (away and bool(facts.inputs))
    return Baselines(
        onnx=next(iter(well), targets[0].key),
        reference=next(iter(running), "") if scored else "",
    )
