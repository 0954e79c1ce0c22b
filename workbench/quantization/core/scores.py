"""Which predictions of a quantized graph are right, sample by sample: what a budget is held on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError
from workbench.onnxgraph.session import working_session

if TYPE_CHECKING:
    import onnx

    from workbench.artifact import Artifact
    from workbench.dataset.core import Dataset
    from workbench.quantization.core.engine import Calibrated

Array = NDArray[Any]
Feeds = Mapping[str, Array]

BATCH = 8
MOST = 5000  # evaluation samples that a budget is held on: more would take longer than they tell
SEED = 0


class Score(Protocol):
    """Numbered samples, and whether a graph is right on each.

    count: how many there are. what: "top-1", or "agreement with FP32" where there are no labels.
    unseen: whether quantization never used them.
    """

    @property
    def count(self) -> int: ...

    @property
    def what(self) -> str: ...

    @property
    def unseen(self) -> bool: ...

    def reference(self, rows: Sequence[int]) -> Array:
        """bool [rows]: whether the float graph is right; all are, where agreement is measured."""

    def __call__(self, model: onnx.ModelProto, rows: Sequence[int]) -> Array:
        """bool [rows]: whether a quantized graph is right on these samples, in ONNX Runtime."""


@dataclass
class Classes:
    """A Score of the classes in the first output, [N, classes].

    model: the float graph. feeds: samples by number, in batches, as the graph takes them. labels
    [count]: None without. Raises StepError where the outputs are no classes.
    """

    model: onnx.ModelProto
    feeds: Callable[[Sequence[int]], Iterable[Feeds]]
    count: int
    labels: Array | None = None
    unseen: bool = True
    _known: dict[int, int] = field(default_factory=dict)  # the float graph's class by sample

    @property
    def what(self) -> str:
        return "agreement with FP32" if self.labels is None else "top-1"

    def reference(self, rows: Sequence[int]) -> Array:
        found = self._float(rows)
        return np.ones(len(rows), bool) if self.labels is None else found == self._labels(rows)

    def __call__(self, model: onnx.ModelProto, rows: Sequence[int]) -> Array:
        found = classes(model, self.feeds(rows))
        right: Array = found == (self._float(rows) if self.labels is None else self._labels(rows))
        return right

    def _labels(self, rows: Sequence[int]) -> Array:
        assert self.labels is not None
        found: Array = self.labels[np.asarray(rows, int)]
        return found

    def _float(self, rows: Sequence[int]) -> Array:
        missing = [row for row in rows if row not in self._known]
        if missing:
            found = classes(self.model, self.feeds(missing))
            self._known.update(zip(missing, found.tolist(), strict=True))
        return np.array([self._known[row] for row in rows], int)


def classes(model: onnx.ModelProto, batches: Iterable[Feeds]) -> Array:
    """The predicted class of each sample, [N], as ONNX Runtime computes it."""
    session = working_session(model)
    first = session.get_outputs()[0].name
    parts = []
    for feeds in batches:
        found = session.run([first], dict(feeds))[0]
        if found.ndim != 2 or found.shape[1] < 2:
            raise StepError(
                "an accuracy budget needs a classifier",
                f"the first output is {'x'.join(map(str, found.shape))}, not [samples, classes]",
                "leave max_drop out; 'wb sensitivity' tells which layers to exclude",
            )
        parts.append(found.argmax(axis=1))
    return np.concatenate(parts)


def of_dataset(
    model: onnx.ModelProto,
    subject: Artifact,
    dataset: Dataset,
    most: int = MOST,
    *,
    each: bool = False,
) -> Classes | None:
    """The score on a dataset's evaluation samples (`most`, drawn by a fixed seed), None without.

    subject: the float file that `model` was read from. each: samples one at a time, for graphs that
    take ranges from a batch. Labels are used where they are classes; a
    metric of the user's is not, for it tells nothing of single samples.
    """
    from workbench.artifact import fed, is_fixed_to_one

    split = dataset.evaluation
    if split is None:
        return None
    chosen = np.sort(np.random.default_rng(SEED).permutation(len(split))[:most])
    size = 1 if each or is_fixed_to_one(subject.inputs) else BATCH

    def feeds(rows: Sequence[int]) -> Iterable[Feeds]:
        part = replace(split, indices=split.indices[chosen[np.asarray(rows, int)]])
        for batch in part.batches(size):
            yield fed(subject.inputs, batch.inputs)

    labels = split.labels
    usable = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    kept = labels[chosen] if usable and labels is not None and dataset.metric is None else None
    return Classes(model, feeds, len(chosen), kept)


def of_calibration(ready: Calibrated) -> Classes:
    """Agreement on the calibration samples: where nothing else is given, and said to be so."""
    joined = {
        name: np.concatenate([one[name].numpy() for one in ready.samples])
        for name in ready.samples[0]
    }
    count = len(next(iter(joined.values())))
    one = all(len(next(iter(feeds.values()))) == 1 for feeds in ready.samples)
    size = 1 if one else BATCH

    def feeds(rows: Sequence[int]) -> Iterable[Feeds]:
        places = np.asarray(rows, int)
        for start in range(0, len(places), size):
            yield {name: array[places[start : start + size]] for name, array in joined.items()}

    return Classes(ready.network.model, feeds, count, unseen=False)
