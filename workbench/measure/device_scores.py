"""A device's outputs scored here: against labels, the original, and this machine's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size, concatenate
from workbench.artifact import Artifact
from workbench.dataset import Dataset
from workbench.errors import DeviceError, WorkbenchError
from workbench.intervals import paired_metric_difference
from workbench.measure import accuracy
from workbench.measure.accuracy import Scores
from workbench.measure.host import BATCH, Target

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.worker_pool import Pool

Array = NDArray[Any]
Inputs = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class EvaluationSamples:
    """The evaluation samples whose outputs come back from devices: inputs and labels [N]."""

    inputs: Inputs
    labels: Array | None

    def __len__(self) -> int:
        return batch_size(self.inputs)


def choose_samples(dataset: Dataset, count: int) -> EvaluationSamples | None:
    """Evenly spread evaluation samples, as many as there are at most; None without any."""
    split = dataset.evaluation
    if split is None or not count:
        return None
    at = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    batches = list(replace(split, indices=np.asarray(split.indices)[at]).batches(len(at)))
    (batch,) = batches
    return EvaluationSamples(inputs=batch.inputs, labels=batch.labels)


def host_outputs(
    targets: Mapping[str, Target],
    inputs: Mapping[str, Inputs],
    pool: Pool,
    host: Device,
    whole: bool = False,
) -> dict[str, list[Array] | WorkbenchError]:
    """This machine's outputs [N, ...] of every target, each in a process of its own, by label.

    whole: all inputs are one run, whose first axis need not be the samples'.
    """
    outputs: dict[str, list[Array] | WorkbenchError] = {}
    for label, target in targets.items():
        target_inputs = inputs[label]
        count = batch_size(target_inputs)
        size = count if whole else BATCH
        worker = pool.take("open" if isinstance(target, Artifact) else "describe_model")
        try:
            first = {name: array[:1] for name, array in target_inputs.items()}
            worker.call("open", target, host.threads, target_inputs if whole else first, host)
            parts = [
                worker.call("infer", {k: v[at : at + size] for k, v in target_inputs.items()})
                if not whole
                else worker.call("infer", dict(target_inputs))
                for at in range(0, count, size)
            ]
            outputs[label] = concatenate(parts)
        except WorkbenchError as error:
            worker.close()
            outputs[label] = error
            continue
        except BaseException:
            worker.close()
            raise
        pool.give(worker)
    return outputs


@dataclass(frozen=True, kw_only=True)
class Scored:
    """scores: of a device's outputs against the original's and the labels; None without samples of
    a dataset. fidelity: against this machine's outputs of the same file.
    """

    scores: Scores | None = None
    fidelity: Scores | None = None


def score_outputs(
    outputs: Mapping[str, Sequence[Array]],
    here: Mapping[str, list[Array] | WorkbenchError],
    heads: Mapping[str, str],
    reference: str,
    samples: EvaluationSamples | None,
    dataset: Dataset | None,
) -> dict[str, Scored | WorkbenchError]:
    """Scores of every artifact that gave outputs, by label.

    here: this machine's; heads: what each applies to the original's first output. reference: the
    label of the original, in `here`. Where a device's outputs have other shapes, DeviceError.
    """
    by_label: dict[str, Scored | WorkbenchError] = {}
    original = here.get(reference)
    for label, device_outputs in outputs.items():
        host_output_arrays = here.get(label)
        if host_output_arrays is None or isinstance(host_output_arrays, WorkbenchError):
            continue
        shapes = (
            [array.shape for array in device_outputs],
            [array.shape for array in host_output_arrays],
        )
        if shapes[0] != shapes[1]:
            by_label[label] = DeviceError(
                "the device gave outputs of other shapes than this machine",
                f"{shapes[0]} instead of {shapes[1]}",
                "its runner or its runtime is not what the profile says: build it anew",
            )
            continue
        head = heads.get(label, "")
        device_scores = Scored(
            fidelity=accuracy.score(device_outputs, host_output_arrays, None, head, head)
        )
        if samples is not None and original is not None and not isinstance(original, Exception):
            scores = accuracy.score(
                device_outputs, original, samples.labels, head, heads.get(reference, "")
            )
            device_scores = replace(
                device_scores,
                scores=_with_metric(scores, device_outputs, original, samples, dataset),
            )
        by_label[label] = device_scores
    return by_label


def reference_scores(
    original: list[Array], samples: EvaluationSamples, dataset: Dataset | None, head: str = ""
) -> Scores:
    """The original's own scores on the samples."""
    scores = accuracy.score(original, original, samples.labels, head, head)
    return _with_metric(scores, original, original, samples, dataset)


def _with_metric(
    scores: Scores,
    outputs: Sequence[Array],
    original: Sequence[Array],
    samples: EvaluationSamples,
    dataset: Dataset | None,
) -> Scores:
    if dataset is None or dataset.metric is None or samples.labels is None:
        return scores
    value = float(dataset.metric(outputs[0], samples.labels))
    delta = paired_metric_difference(dataset.metric, original[0], outputs[0], samples.labels)
    return replace(scores, metric=value, metric_delta=delta)
