"""Which predictions of a quantized graph are right, sample by sample: what a budget is held on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size
from workbench.artifact import is_fixed_to_one, stored_inputs
from workbench.errors import StepError
from workbench.onnxgraph.session import working_session

if TYPE_CHECKING:
    import onnx

    from workbench.artifact import Artifact
    from workbench.dataset.core import Dataset
    from workbench.quantization.core.engine import CalibratedNetwork

Array = NDArray[Any]

BATCH = 8
MOST = 5000  # evaluation samples that a budget is held on: more would take longer than they tell
SEED = 0


class PredictionScore(Protocol):
    """Numbered samples, and whether a graph is right on each."""

    @property
    def count(self) -> int:
        """How many samples there are."""

    @property
    def what(self) -> str:
        """The words for the share of right predictions."""

    @property
    def unseen(self) -> bool:
        """Whether quantization never used the samples."""

    def reference(self, rows: Sequence[int]) -> Array:
        """bool [rows]: whether the float graph is right; all are, where agreement is measured."""

    def __call__(self, model: onnx.ModelProto, rows: Sequence[int]) -> Array:
        """bool [rows]: whether a quantized graph is right on these samples, in ONNX Runtime."""


@dataclass
class ClassPredictions:
    """A PredictionScore of the classes in the first output, [N, classes].

    Calling it raises StepError where the outputs are no classes.

    Attributes:
        model: the float graph.
        feeds: samples by number, in batches, as the graph takes them.
        labels: [count], None without.
    """

    model: onnx.ModelProto
    feeds: Callable[[Sequence[int]], Iterable[Mapping[str, Array]]]
    count: int
    labels: Array | None = None
    unseen: bool = True
    _predicted: dict[int, int] = field(default_factory=dict)  # by the float graph, by sample

    @property
    def what(self) -> str:
        """The words for the share of right predictions."""
        return "agreement with FP32" if self.labels is None else "top-1"

    def reference(self, rows: Sequence[int]) -> Array:
        """bool [rows]: whether the float graph is right."""
        right: Array = self._float_classes(rows) == self._expected(rows)
        return right

    def __call__(self, model: onnx.ModelProto, rows: Sequence[int]) -> Array:
        """bool [rows]: whether a quantized graph is right."""
        right: Array = predict_classes(model, self.feeds(rows)) == self._expected(rows)
        return right

    def _expected(self, rows: Sequence[int]) -> Array:
        if self.labels is None:
            return self._float_classes(rows)
        labels: Array = self.labels[np.asarray(rows, int)]
        return labels

    def _float_classes(self, rows: Sequence[int]) -> Array:
        missing = [row for row in rows if row not in self._predicted]
        if missing:
            predicted = predict_classes(self.model, self.feeds(missing))
            self._predicted.update(zip(missing, predicted.tolist(), strict=True))
        return np.array([self._predicted[row] for row in rows], int)


def predict_classes(model: onnx.ModelProto, batches: Iterable[Mapping[str, Array]]) -> Array:
    """The predicted class of each sample, [N], as ONNX Runtime computes it."""
    session = working_session(model)
    first = session.get_outputs()[0].name
    parts = []
    for feeds in batches:
        logits = session.run([first], dict(feeds))[0]
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise StepError(
                "an accuracy budget needs a classifier",
                f"the first output is {'x'.join(map(str, logits.shape))}, not [samples, classes]",
                "leave max_drop out; 'wb sensitivity' tells which layers to exclude",
            )
        parts.append(logits.argmax(axis=1))
    return np.concatenate(parts)


def evaluation_predictions(
    model: onnx.ModelProto, subject: Artifact, dataset: Dataset, *, single: bool = False
) -> ClassPredictions | None:
    """The score on a dataset's evaluation samples (MOST, drawn by a fixed seed), None without.

    Labels are used where they are classes; a metric of the user's is not, for it tells nothing of
    single samples.

    Args:
        subject: the float file that `model` was read from.
        single: samples one at a time, for graphs that take ranges from a batch.
    """
    split = dataset.evaluation
    if split is None:
        return None
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(split))[:MOST])
    size = 1 if single or is_fixed_to_one(subject.inputs) else BATCH

    def feeds(rows: Sequence[int]) -> Iterable[Mapping[str, Array]]:
        part = replace(split, indices=split.indices[drawn[np.asarray(rows, int)]])
        for batch in part.batches(size):
            yield stored_inputs(subject.inputs, batch.inputs)

    labels = split.labels
    usable = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    kept = labels[drawn] if usable and labels is not None and dataset.metric is None else None
    return ClassPredictions(model, feeds, len(drawn), kept)


def calibration_predictions(ready: CalibratedNetwork) -> ClassPredictions:
    """Agreement on the calibration samples: where nothing else is given, and said to be so."""
    inputs = {
        name: np.concatenate([feeds[name].numpy() for feeds in ready.samples])
        for name in ready.samples[0]
    }
    size = 1 if all(batch_size(feeds) == 1 for feeds in ready.samples) else BATCH

    def feeds(rows: Sequence[int]) -> Iterable[Mapping[str, Array]]:
        indices = np.asarray(rows, int)
        for start in range(0, len(indices), size):
            yield {name: array[indices[start : start + size]] for name, array in inputs.items()}

    return ClassPredictions(ready.network.model, feeds, batch_size(inputs), unseen=False)
