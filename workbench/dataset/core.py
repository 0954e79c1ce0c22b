"""`Dataset` and `Split`: what every source of samples looks like from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size
from workbench.artifact import TensorSpec
from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError

Array = NDArray[Any]


class Source(Protocol):
    """Random access to raw samples; one may be read many times, and not all at once."""

    @property
    def labels(self) -> Array | None:
        """Labels [N], or None."""

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Mapping[str, Array]:
        """One sample's named arrays, as stored, without a batch axis."""

    def where(self, index: int) -> str:
        """The sample's place, for a message: a file's name, a row of a file."""

    def identity(self, index: int) -> bytes:
        """A digest of the sample's content: equal samples, equal digests."""


@dataclass(frozen=True)
class Batch:
    """Samples that stand together.

    Attributes:
        inputs: arrays [N, ...] by input name.
        labels: [N], or None.
        start: the first sample's number in its split.
    """

    inputs: dict[str, Array]
    labels: Array | None
    start: int

    def __len__(self) -> int:
        return batch_size(self.inputs)


@dataclass(frozen=True)
class Split:
    """Some of a source's samples, in a fixed order, preprocessed as they are read.

    Attributes:
        name: `calibration` or `evaluation`.
        source: where the samples come from.
        indices: numbers of the samples in the source, int [N].
        preprocess: what makes inputs of them.
    """

    name: str
    source: Source
    indices: Array
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def labels(self) -> Array | None:
        """Labels [N] in the split's order, or None."""
        labels = self.source.labels
        return None if labels is None else labels[self.indices]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every sample's content, its label and the preprocessing."""
        hashed = hashlib.sha256(repr(self.preprocess).encode())
        for index in self.indices:
            hashed.update(self.source.identity(int(index)))
        if self.labels is not None:
            hashed.update(np.ascontiguousarray(self.labels).tobytes())
        return hashed.hexdigest()

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, dtypes and shapes of the samples, with a dynamic batch axis in front."""
        return tuple(
            TensorSpec(name=name, dtype=str(array.dtype), shape=(None, *array.shape))
            for name, array in self._read(0).items()
        )

    def batches(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """The split's first `limit` samples (all, by default) in batches of at most `size`.

        Raises DatasetError for a sample that cannot be read, is not finite, or is shaped unlike
        the others, naming it.
        """
        total = len(self) if limit is None else min(limit, len(self))
        shapes: dict[str, tuple[int, ...]] = {}
        for start in range(0, total, size):
            samples = [self._read(position) for position in range(start, min(start + size, total))]
            shapes = shapes or {name: array.shape for name, array in samples[0].items()}
            for offset, sample in enumerate(samples):
                self._check(sample, shapes, start + offset)
            stacked = {name: np.stack([sample[name] for sample in samples]) for name in shapes}
            labels = None if self.labels is None else self.labels[start : start + len(samples)]
            yield Batch(stacked, labels, start)

    def _read(self, position: int) -> dict[str, Array]:
        index = int(self.indices[position])
        return self.preprocess(self.source.sample(index), self.source.where(index))

    def _check(
        self, sample: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], position: int
    ) -> None:
        where = self.source.where(int(self.indices[position]))
        if sample.keys() != shapes.keys():
            raise DatasetError(
                f"{where} has inputs {', '.join(sample)}, others {', '.join(shapes)}"
            )
        for name, array in sample.items():
            if array.shape != shapes[name]:
                raise DatasetError(
                    f"{where}: input '{name}' has shape {array.shape}, others {shapes[name]}",
                    "samples of one dataset must have one shape",
                    "give preprocess.resize and preprocess.crop, or pad the samples",
                )
            if array.dtype.kind not in "fiub":
                raise DatasetError(f"{where}: input '{name}' is of {array.dtype}, not of numbers")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DatasetError(
                    f"{where}: input '{name}' contains NaN or Inf", "", "mend or remove the sample"
                )


@dataclass(frozen=True)
class Dataset:
    """Named samples in disjoint calibration and evaluation splits.

    Attributes:
        name: that of its file.
        calibration: the split that ranges are taken from, or None.
        evaluation: the split that outputs are scored on, or None.
        metric: a function `(predictions, labels) -> float`, higher is better, in place of top-1.
        metric_name: as the dataset's file names it, `metrics.py:f1`.
        specs: the inputs, where there are no samples.
    """

    name: str
    calibration: Split | None
    evaluation: Split | None
    metric: Callable[[Array, Array], float] | None = None
    metric_name: str = ""
    specs: tuple[TensorSpec, ...] = field(default=())

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, type and shape of every input that a sample has."""
        split = self.evaluation or self.calibration
        return split.inputs if split is not None else self.specs

    def check(self) -> None:
        """Read every sample's content once: no sample may stand in both splits.

        Raises DatasetError, naming the first that does, or where the splits' shapes differ.
        """
        first, second = self.calibration, self.evaluation
        if first is None or second is None or first.source is second.source:
            return
        seen = {first.source.identity(int(index)) for index in first.indices}
        shared = [int(i) for i in second.indices if second.source.identity(int(i)) in seen]
        if shared:
            raise DatasetError(
                f"{self.name}: {len(shared)} of {len(second)} evaluation samples are calibration "
                "samples too",
                f"the first is {second.source.where(shared[0])}; accuracy on them would flatter",
                "remove them from one of the two",
            )
        if first.inputs != second.inputs:
            raise DatasetError(
                f"{self.name}: calibration and evaluation samples differ in shape or type",
                f"{', '.join(map(str, first.inputs))} against {', '.join(map(str, second.inputs))}",
            )

    def calibrating(self, samples: int | None) -> tuple[Split, int]:
        """The calibration split and how many of its samples to use, all where `samples` is None.

        Raises DatasetError where there are none, or too few.
        """
        if self.calibration is None:
            raise DatasetError(
                "there are no calibration samples",
                "static INT8 needs samples like those the model will meet",
                "give a dataset with --data",
            )
        have = len(self.calibration)
        if samples is not None and samples > have:
            raise DatasetError(
                f"{samples} calibration samples asked for, {self.name} has {have}",
                "",
                f"set samples={have} or less, or add samples",
            )
        return self.calibration, samples or have

    def examples(self, count: int = 8, seed: int = 0) -> dict[str, Array]:
        """A few real inputs [N, ...] for parity checks; random ones where there is no data."""
        split = self.calibration or self.evaluation
        if split is not None:
            return next(split.batches(count)).inputs
        return random_inputs(self.specs, count, seed)


def random_inputs(specs: tuple[TensorSpec, ...], count: int, seed: int) -> dict[str, Array]:
    """Seeded inputs for specs: standard normal floats, zeros and ones for integers."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, Array] = {}
    for spec in specs:
        shape = tuple(count if axis == 0 else (size or 1) for axis, size in enumerate(spec.shape))
        if np.dtype(spec.dtype).kind == "f":
            arrays[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        else:
            arrays[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
    return arrays


def random_dataset(specs: tuple[TensorSpec, ...]) -> Dataset:
    """No samples at all, only the shapes given with --input."""
    return Dataset("random inputs", None, None, specs=specs)
