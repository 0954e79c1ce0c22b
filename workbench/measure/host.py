"""The running of measurements: fresh processes for latency, lock-step workers for accuracy."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import Artifact, Format
from workbench.dataset import Batch, Dataset, Split
from workbench.device.profile import Device
from workbench.errors import WorkbenchError
from workbench.intervals import paired_metric_difference
from workbench.measure import accuracy
from workbench.measure.accuracy import Scores
from workbench.measure.latency import Latency, Preset, ProcessSamples
from workbench.model import ModelSource
from workbench.process import Worker, packed
from workbench.progress import Progress
from workbench.worker_pool import Pool

Target = Artifact | ModelSource
BATCH = 4  # larger ones cost more in fresh memory than they save in calls


def latencies(
    targets: Mapping[str, Target],
    inputs: Mapping[str, NDArray[Any]],
    device: Device,
    preset: Preset,
    progress: Progress,
    own: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> dict[str, Latency | WorkbenchError]:
    """Latency of every target, or the error that ended it.

    inputs: canonical ones, of one sample; own: those of targets that take others.
    Each round runs every target once, one at a time in a fresh process, before the next begins.
    """
    samples: dict[str, list[ProcessSamples]] = {name: [] for name in targets}
    failed: dict[str, WorkbenchError] = {}
    total = preset.processes * len(targets)
    done = 0
    for _ in range(preset.processes):
        for name, target in targets.items():
            done += 1
            if name in failed:
                continue
            progress((done - 1) / total, name)
            try:
                with Worker() as worker:
                    raw = worker.call(
                        "latency", target, dict((own or {}).get(name, inputs)), device,
                        preset.warmup, preset.runs, preset.seconds,
                    )  # fmt: skip
            except WorkbenchError as error:
                failed[name] = error
                continue
            raw["samples_ns"] = tuple(raw["samples_ns"])
            samples[name].append(ProcessSamples(**raw))
    return {
        name: failed[name] if name in failed else Latency(tuple(samples[name])) for name in targets
    }


def accuracies(
    targets: Mapping[str, Target],
    reference: str,
    dataset: Dataset,
    pool: Pool,
    progress: Progress,
    device: Device | None = None,
    observe: Callable[[Mapping[str, list[NDArray[Any]]]], None] | None = None,
    size: int = BATCH,
    known: Callable[[Batch], list[NDArray[Any]]] | None = None,
) -> dict[str, Scores | WorkbenchError]:
    """Scores of every target on the evaluation split, against the target named `reference`.

    Outputs are the device's own, of the runtimes that it has; the CPU's without a device.

    Every sample is read and preprocessed once and goes to all targets, each in a process of its
    own; only scores are kept, so memory does not grow with the outputs. `observe` sees the outputs
    of every batch. size: samples in a batch. known: the reference's outputs of a batch, where they
    need not be inferred.
    """
    split = dataset.evaluation
    assert split is not None
    parts: dict[str, list[Scores]] = {name: [] for name in targets}
    running = {
        name: target for name, target in targets.items() if known is None or name != reference
    }
    sessions = _Sessions(running, pool, device)
    with tempfile.TemporaryDirectory(prefix="wb-outputs-") as folder, closing(sessions):
        keep = _Predictions(Path(folder), len(split)) if dataset.metric else None

        def score(batch: Batch, outputs: dict[str, list[NDArray[Any]]]) -> None:
            if observe is not None:
                observe(outputs)
            for name, arrays in outputs.items():
                heads = _head(targets[name]), _head(targets[reference])
                parts[name].append(accuracy.score(arrays, outputs[reference], batch.labels, *heads))
                if keep is not None:
                    keep.add(name, batch, arrays[0])
            done = batch.start + len(batch)
            progress(done / len(split), f"{done}/{len(split)}")

        sessions.open(next(split.batches(1)).inputs)
        pending: tuple[Batch, dict[str, list[NDArray[Any]]]] | None = None
        for batch in _ahead(split, size):
            sessions.ask(batch.inputs)
            if pending is not None:  # scored while the workers are busy with the next
                score(*pending)
            outputs = sessions.answers()
            if known is not None:
                outputs[reference] = known(batch)
            if reference in sessions.failed:
                raise sessions.failed[reference]
            pending = batch, outputs
        if pending is not None:
            score(*pending)
        scores: dict[str, Scores | WorkbenchError] = {
            name: sessions.failed.get(name) or accuracy.joined(parts[name]) for name in targets
        }
        sessions.give_back()
        if keep is not None and split.labels is not None and dataset.metric is not None:
            for name, score_of_target in scores.items():
                if isinstance(score_of_target, Scores):
                    scores[name] = keep.scored(
                        name, reference, score_of_target, dataset, split.labels
                    )
    return scores


class _Sessions:
    """A process for each target, in lock-step; an error ends its own target, and is in `failed`."""

    def __init__(self, targets: Mapping[str, Target], pool: Pool, device: Device | None) -> None:
        self.targets, self.pool, self.device = targets, pool, device
        self.failed: dict[str, WorkbenchError] = {}
        self._workers: dict[str, Worker] = {}

    def open(self, examples: Mapping[str, NDArray[Any]]) -> None:
        """Load every target, on one thread each: there is a process for every one."""
        for name, target in self.targets.items():
            # PyTorch goes to the worker that has described the model, and so has imported it.
            like = "describe_model" if isinstance(target, ModelSource) else "step"
            self._workers[name] = worker = self.pool.take(like)
            worker.start("open", target, 1, examples, self.device)
        for name in self.targets:
            with self._noting(name):
                self._workers[name].result()

    def ask(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Begin a batch in all of them."""
        request = packed(("infer", (inputs,)))
        for name in self._alive():
            with self._noting(name):
                self._workers[name].start_packed("infer", request)

    def answers(self) -> dict[str, list[NDArray[Any]]]:
        """The outputs of the batch that was begun."""
        outputs = {}
        for name in self._alive():
            with self._noting(name):
                outputs[name] = self._workers[name].result()
        return outputs

    def give_back(self) -> None:
        """Let the pool have those processes that are as they were: the next job begins sooner."""
        for name in self._alive():
            if not _leaves_nothing(self.targets[name], self.device):
                continue
            with self._noting(name):
                self._workers[name].call("drop")
                self.pool.give(self._workers.pop(name))

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def _alive(self) -> list[str]:
        return [name for name in self.targets if name not in self.failed]

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except WorkbenchError as error:
            self.failed[name] = error


def _leaves_nothing(target: Target, device: Device | None) -> bool:
    """Whether a process is as it was once a session is dropped: PyTorch's threads are set for all
    of it, and a GPU's context stays.
    """
    files = (Format.ONNX, Format.ORT, Format.TFLITE)
    own = isinstance(target, Artifact) and target.format in files
    return own and (device is None or device.provider == "cpu")


def _head(target: Target) -> str:
    """What a target applies to the original's first output."""
    outputs = target.outputs if isinstance(target, Artifact) else ()
    return outputs[0].head if outputs else ""


def _ahead(split: Split, size: int) -> Iterator[Batch]:
    """Batches, the next one being read while the one before is worked on."""
    batches = split.batches(size)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


class _Predictions:
    """First outputs of every target on disk, for a user's metric, which wants them all at once."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.files: dict[str, Any] = {}

    def add(self, name: str, batch: Batch, output: NDArray[Any]) -> None:
        if name not in self.files:
            path = self.folder / f"{len(self.files)}.npy"
            shape = (self.count, *output.shape[1:])
            self.files[name] = np.lib.format.open_memmap(path, "w+", output.dtype, shape)
        self.files[name][batch.start : batch.start + len(batch)] = output

    def scored(
        self, name: str, reference: str, scores: Scores, dataset: Dataset, labels: Any
    ) -> Scores:
        import dataclasses

        assert dataset.metric is not None
        value = float(dataset.metric(self.files[name], labels))
        delta = paired_metric_difference(
            dataset.metric, self.files[reference], self.files[name], labels
        )
        return dataclasses.replace(scores, metric=value, metric_delta=delta)
