"""The files that `wb profile` and `wb compare` are given, fitted to the samples they are run on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.dataset.arrays import Arrays
from workbench.dataset.core import Dataset, Split, random_inputs
from workbench.dataset.preprocess import Preprocess
from workbench.errors import ModelError, StepError, WorkbenchError
from workbench.inspect import artifacts as files
from workbench.run import align

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.worker_pool import Pool

Array = NDArray[Any]

EXAMPLES = 4  # samples by which names and layouts are told
RANDOM = 16  # random samples that files are compared on where there are no real ones
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A file, under a label that no other has.

    Attributes:
        label: its name, with as many folders as tell it from others.
        own: the artifact as the file has it.
        artifact: under the reference's names, order and layout, once it is fitted.
        bytes: of the file and what belongs to it.
        error: what keeps it from being run; the others stand.
    """

    label: str
    own: Artifact
    artifact: Artifact
    bytes: int
    error: WorkbenchError | None = None

    @property
    def mapping(self) -> tuple[str, ...]:
        """What of the fitting is not the identity, in words."""
        return align.mapping_lines(self.artifact, self.own)


def open_files(paths: Sequence[Path]) -> list[Subject]:
    """Every file as a subject. Raises the ModelError of one that is absent, damaged or none."""
    with ThreadPoolExecutor(2) as threads:
        artifacts = list(threads.map(files.open_artifact, paths))
    return [
        Subject(label=label, own=artifact, artifact=artifact, bytes=files.total_bytes(artifact))
        for label, artifact in zip(labels(paths), artifacts, strict=True)
    ]


def labels(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its own, with as many folders as it takes to tell it from others."""
    whole = [path.expanduser().resolve() for path in paths]
    unique = []
    for at, path in enumerate(whole):
        others = [other for other in whole if other != path]
        length = next(
            n
            for n in range(1, len(path.parts) + 1)
            if all(other.parts[-n:] != path.parts[-n:] for other in others)
        )
        label = "/".join(path.parts[-length:])
        before = whole[:at].count(path)
        unique.append(f"{label} ({before + 1})" if before else label)
    return unique


def random_samples(specs: Sequence[TensorSpec], count: int = RANDOM) -> Dataset:
    """Seeded random samples as a dataset's evaluation split, without labels."""
    arrays = random_inputs(tuple(specs), count, SEED)
    source = Arrays(arrays, None, "random inputs")
    split = Split("evaluation", source, np.arange(count), Preprocess())
    return Dataset("random inputs", None, split, specs=tuple(specs))


def fit_files(
    subjects: Sequence[Subject],
    dataset: Dataset,
    device: Device,
    pool: Pool,
    origin: Format | None = None,
    *,
    partial: bool = False,
) -> list[Subject]:
    """The subjects under the dataset's input names and the outputs of the first that runs.

    Each is run on a few samples; one that does not run, or whose tensors have no counterparts, has
    the error. origin: the format that the dataset's names and layout are from, where they are a
    file's. partial: outputs of the first without a counterpart are left out of both, of two files.
    """
    samples = _Samples(dataset, device, pool, origin)
    results = list(subjects)
    reference = None
    expected: list[Array] = []
    for position, subject in enumerate(subjects):
        try:
            mapped = samples.placed(subject)
            expected = samples.outputs(mapped.artifact)
            mapped = replace(mapped, artifact=files.with_outputs(mapped.artifact, expected))
        except WorkbenchError as error:
            results[position] = replace(subject, error=error)
            continue
        reference = results[position] = mapped
        break
    if reference is None:
        return results
    for position, subject in enumerate(subjects):
        failed = results[position].error
        # Which of its inputs is which, the reference may tell now.
        if results[position] is reference or not (failed is None or isinstance(failed, ModelError)):
            continue
        try:
            aligned = samples.aligned(subject, reference, expected)
            if not partial:
                _check_outputs(subject, reference, aligned.kept)
        except WorkbenchError as error:
            results[position] = replace(subject, error=error)
            continue
        if partial:
            first = results.index(reference)
            results[first] = _reduced(reference, aligned.kept)
        results[position] = replace(subject, artifact=aligned.artifact, error=None)
    return results


def _reduced(subject: Subject, kept: Sequence[int]) -> Subject:
    """The subject with some of its outputs only."""
    outputs = tuple(subject.artifact.outputs[i] for i in kept)
    return replace(subject, artifact=replace(subject.artifact, outputs=outputs))


def _check_outputs(subject: Subject, reference: Subject, kept: Sequence[int]) -> None:
    missing = [spec.name for i, spec in enumerate(reference.artifact.outputs) if i not in kept]
    if missing:
        raise ModelError(
            f"{subject.label} has no counterpart of output {', '.join(missing)}",
            f"it gives {', '.join(map(str, subject.own.outputs))}; {reference.label} "
            f"{', '.join(map(str, reference.own.outputs))}",
            "give files of the same model",
        )


@dataclass(frozen=True)
class _Samples:
    """What the subjects are run on, and where."""

    dataset: Dataset
    device: Device
    pool: Pool
    origin: Format | None

    @cached_property
    def examples(self) -> dict[str, Array]:
        """The samples by which names and layouts are told."""
        return self.dataset.examples(EXAMPLES, SEED)

    def placed(self, subject: Subject) -> Subject:
        """The subject on the dataset's inputs, where names and shapes tell which is which."""
        _check_batch(subject)
        specs = self.specs(subject)
        artifact = subject.own
        # On random samples of its own, there is nothing to find out.
        own = [spec.name for spec in specs] == [spec.name for spec in artifact.inputs]
        if self.origin is not None and own:
            return replace(subject, artifact=replace(artifact, inputs=tuple(specs)))
        return replace(subject, artifact=align.onto_data(artifact, specs))

    def aligned(
        self, subject: Subject, reference: Subject, expected: Sequence[Array]
    ) -> align.Aligned:
        """The subject's tensors as the reference's."""
        _check_batch(subject)
        wanted = reference.artifact.outputs
        return align.align_artifact(
            subject.own, self.specs(subject), wanted, expected, self.outputs, self.origin
        )

    def outputs(self, artifact: Artifact) -> list[Array]:
        """Outputs on the examples, in a process of its own; what it raises is a WorkbenchError."""
        with self.pool.lend() as worker:
            worker.call("open", artifact, 1, self.examples, self.device)
            arrays: list[Array] = worker.call("infer", self.examples)
            return arrays

    def specs(self, subject: Subject) -> Sequence[TensorSpec]:
        """The dataset's inputs; for a file that takes 8-bit pixels, images with theirs."""
        inputs = self.dataset.inputs
        split = self.dataset.calibration or self.dataset.evaluation
        if split is None or all(spec.dtype != "uint8" for spec in subject.own.inputs):
            return inputs
        from workbench.steps.bake_preprocess import from_pixels

        taken = []
        for spec in inputs:
            image = len(spec.shape) == 4 and np.dtype(spec.dtype).kind == "f"
            try:
                array = self.examples[spec.name]
                taken.append(from_pixels(spec, array, split.preprocess) if image else spec)
            except StepError:
                taken.append(spec)  # then the file does not take it, which is said there
        return taken


def _check_batch(subject: Subject) -> None:
    """Samples go one by one, or in batches of any size: a fixed batch of many takes neither."""
    sizes = {spec.shape[0] for spec in subject.own.inputs if spec.shape}
    if sizes <= {None, 1}:
        return
    fixed = max(size for size in sizes if size is not None)
    raise ModelError(
        f"{subject.label} takes no single samples",
        f"its inputs are {', '.join(map(str, subject.own.inputs))}: the first axis is {fixed}",
        "convert the model with a dynamic batch or one of 1",
    )
