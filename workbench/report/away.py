"""Artifacts on devices with a runner: measured there, scored here; a block for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench import inspect
from workbench.artifact import Artifact
from workbench.errors import WorkbenchError
from workbench.measure import device_scores
from workbench.measure.fleet import profiled
from workbench.measure.remote import Wanted
from workbench.report.blocks import block
from workbench.report.data import Report

if TYPE_CHECKING:
    from workbench.cache import Cache
    from workbench.dataset import Dataset
    from workbench.device.profile import Device
    from workbench.display import Display
    from workbench.measure.host import Target
    from workbench.measure.latency import Preset
    from workbench.worker_pool import Pool

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What devices are asked.

    targets: artifacts by row key, and maybe a model source, which gives the original's outputs here
    and runs on no device. reference: the key of the original. timed: canonical inputs of a run, by
    key. dataset, count: whose evaluation samples, and how many, are run for their outputs; without
    any, the timed inputs are, and held against this machine's outputs alone. operators: whether
    the time of each operator is asked for. resume: an interrupted run's rounds are kept.
    """

    targets: Mapping[str, Target]
    reference: str
    timed: Mapping[str, Inputs]
    dataset: Dataset | None
    count: int
    preset: Preset
    operators: bool = False
    resume: bool = False


def blocks(
    devices: Sequence[Device],
    bare: Report,
    asked: Asked,
    host: Device,
    pool: Pool,
    cache: Cache,
    display: Display,
) -> dict[str, Report]:
    """A report for each device by its name, with the rows of `bare`, which has no figures.

    host: this machine, as it gives the outputs that a device's are held against.
    """
    if not devices:
        return {}
    files = {key: one for key, one in asked.targets.items() if isinstance(one, Artifact)}
    samples = None
    if asked.dataset is not None and asked.count:
        samples = device_scores.chosen(asked.dataset, asked.count)
    inputs: dict[str, Inputs] = {}
    if asked.count:
        inputs = {
            key: samples.inputs if samples is not None else asked.timed[key]
            for key in asked.targets
        }
    here = device_scores.host_outputs(
        asked.targets if inputs else {}, inputs, pool, host, whole=samples is None
    )
    wanted = Wanted(
        targets=files,
        facts={key: inspect.read(one.path) for key, one in files.items()},
        timed={key: asked.timed[key] for key in files},
        samples={key: inputs[key] for key in files if key in inputs},
        preset=asked.preset,
        operators=asked.operators,
        whole=samples is None,
    )
    found = profiled(devices, wanted, cache, display, resume=asked.resume)
    heads = {key: next((spec.head for spec in one.outputs), "") for key, one in files.items()}
    original = here.get(asked.reference)
    own = None
    if samples is not None and original is not None and not isinstance(original, WorkbenchError):
        own = device_scores.reference_scores(original, samples, asked.dataset)
    made = {}
    for device in devices:
        one = found[device.name]
        scored = device_scores.scored(
            one.outputs, here, heads, asked.reference, samples, asked.dataset
        )
        made[device.name] = block(bare, one, scored, len(samples) if samples else 0, own)
    for key, wrong in here.items():
        if isinstance(wrong, WorkbenchError):
            display.message(f"{key} gives no outputs on this machine: {wrong.what}")
    return made
