"""Targets on devices with a runner: measured there, scored here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from workbench import inspect
from workbench.artifact import Artifact
from workbench.device.bundle import RUNTIMES
from workbench.errors import WorkbenchError
from workbench.measure import device_scores
from workbench.measure.checks import checks_of
from workbench.measure.device_run import Assignment
from workbench.measure.fleet import run_on_devices
from workbench.measure.measurement import DeviceMeasurements, Measurement
from workbench.measure.operator_times import operator_times
from workbench.measure.target import runnable, subjects_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.dataset.core import Dataset
    from workbench.device.health.identity import Identity
    from workbench.device.health.state import Health
    from workbench.device.profile import Device
    from workbench.measure.accuracy import Scores
    from workbench.measure.checks import Checks
    from workbench.measure.device_run import DeviceRun
    from workbench.measure.device_scores import EvaluationSamples, Scored
    from workbench.measure.plan import MeasurePlan
    from workbench.measure.target import Bench, Inputs, MeasureTarget


def measure_away(
    devices: Sequence[Device],
    targets: tuple[MeasureTarget, ...],
    bench: Bench,
    plan: MeasurePlan,
    exported: Artifact | None = None,
) -> dict[str, DeviceMeasurements]:
    """What each device gave, by its name.

    bench: this machine, whose outputs a device's are held against; a model runs nowhere else.
    exported: the ONNX graph whose nodes a recipe's files are compared with. Without a dataset's
    samples each target's own inputs are run.
    """
    workspace = bench.workspace
    checks = _checks(targets, bench, plan, exported)
    running = {key: target for key, target in runnable(targets).items() if _runs_away(target, plan)}
    reference = next(iter(runnable(targets)), "")
    files = {
        key: subject
        for key, subject in subjects_of(running).items()
        if isinstance(subject, Artifact)
    }
    dataset = bench.data.load() if bench.data.facts.evaluation is not None else None
    samples = device_scores.choose_samples(dataset, plan.samples) if dataset is not None else None
    timed = _timed_inputs(running, bench)
    inputs: dict[str, Inputs] = {}
    if plan.samples:
        inputs = {key: samples.inputs if samples is not None else timed[key] for key in running}
    here = device_scores.host_outputs(
        subjects_of(running) if inputs else {},
        inputs,
        workspace.pool,
        bench.device,
        whole=samples is None,
    )
    assignment = Assignment(
        targets=files,
        facts={key: inspect.read(artifact.path) for key, artifact in files.items()},
        timed={key: timed[key] for key in files},
        samples={key: inputs[key] for key in files if key in inputs},
        preset=plan.preset,
        operators=plan.operators,
        whole=samples is None,
    )
    runs = run_on_devices(
        devices, assignment, workspace.cache, workspace.display, resume=plan.resume
    )
    heads = {key: running[key].head for key in files}
    original = _original_scores(running, reference, here, samples, dataset)
    measurements = {}
    for name, run in runs.items():
        scored = device_scores.score_outputs(run.outputs, here, heads, reference, samples, dataset)
        of_targets = {
            key: _measurement(key, run, scored.get(key), checks.get(key))
            for key in runnable(targets)
        }
        if original is not None:
            of_targets[reference] = replace(of_targets[reference], scores=original)
        measurements[name] = _of_device(run, of_targets, len(samples) if samples else 0)
    for key, outputs in here.items():
        if isinstance(outputs, WorkbenchError):
            workspace.display.message(f"{key} gives no outputs on this machine: {outputs.what}")
    return measurements


def _runs_away(target: MeasureTarget, plan: MeasurePlan) -> bool:
    """Whether devices are asked to run it; a model is run here alone, for its outputs."""
    if plan.users_files or not isinstance(target.subject, Artifact):
        return True
    return target.subject.format in RUNTIMES and (not plan.only or target.key in plan.only)


def _timed_inputs(targets: Mapping[str, MeasureTarget], bench: Bench) -> dict[str, Inputs]:
    """The inputs of one run, by target."""
    example: Inputs = {}
    if any(target.inputs is None for target in targets.values()):
        example = bench.data.examples(1)
    return {
        key: example if target.inputs is None else target.inputs for key, target in targets.items()
    }


def _checks(
    targets: tuple[MeasureTarget, ...], bench: Bench, plan: MeasurePlan, exported: Artifact | None
) -> dict[str, Checks]:
    """What this machine finds of a recipe's files: it is true of them on the devices too."""
    if plan.users_files:
        return {}
    return checks_of(subjects_of(runnable(targets)), exported, bench)


def _original_scores(
    targets: Mapping[str, MeasureTarget],
    reference: str,
    here: Mapping[str, list[NDArray[Any]] | WorkbenchError],
    samples: EvaluationSamples | None,
    dataset: Dataset | None,
) -> Scores | None:
    """The scores of a model that runs here alone, which the devices' are compared with."""
    outputs = here.get(reference)
    if samples is None or outputs is None or isinstance(outputs, WorkbenchError):
        return None
    if isinstance(targets[reference].subject, Artifact):
        return None  # each device has its own
    return device_scores.reference_scores(outputs, samples, dataset)


def _measurement(
    key: str, run: DeviceRun, scored: Scored | WorkbenchError | None, checks: Checks | None
) -> Measurement:
    error = run.failed.get(key)
    if error is None and isinstance(scored, WorkbenchError):
        error = scored
    scores = None if scored is None or isinstance(scored, WorkbenchError) else scored
    return Measurement(
        latency=run.latencies().get(key),
        scores=scores.scores if scores else None,
        fidelity=scores.fidelity if scores else None,
        checks=checks,
        operators=operator_times(run.operators.get(key, "")),
        error=error,
    )


def _of_device(
    run: DeviceRun, of_targets: Mapping[str, Measurement], samples: int
) -> DeviceMeasurements:
    notes = list(run.notes)
    for word, health in (("before", run.before), ("after", run.after)):
        if health is not None and (text := _health_words(health)):
            notes.append(f"{word} the measurement: {text}")
    return DeviceMeasurements(
        device=run.device,
        targets=of_targets,
        samples=samples,
        host=_host(run.device, run.identity) if run.identity else {},
        notes=tuple(notes),
        error=run.error,
    )


def _host(device: Device, identity: Identity) -> dict[str, Any]:
    """A device as a report names it. No serial numbers."""
    parts = ", ".join(
        f"{count}× {name}" + (f" at {speed} MHz" if speed else "")
        for name, count, speed in identity.cpus
    )
    facts = {
        "device": identity.model,
        "soc": identity.soc,
        "cpu": parts,
        "cores": identity.cores,
        "architecture": identity.architecture,
        "isa": list(device.isa),
        "memory_gib": round(identity.memory_bytes / 2**30, 1),
        "system": f"{identity.system} {identity.release}",
        "runner": f"{device.runner} over {device.transport}",
        "INT8": device.quantization,
        "emulated": identity.emulator or ("the profile says so" if device.emulated else ""),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _health_words(health: Health) -> str:
    parts = []
    if health.temperature_c is not None:
        parts.append(f"{health.temperature_c:.0f} °C")
    if health.throttling is not None:
        parts.append(f"thermal status {health.throttling}")
    if health.battery_percent is not None:
        charging = ", charging" if health.charging else ""
        parts.append(f"battery {health.battery_percent:.0f} %{charging}")
    if health.load_1min is not None:
        parts.append(f"load {health.load_1min:.1f}")
    return ", ".join(parts)
