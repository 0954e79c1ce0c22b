"""What is known of a dataset before its samples are used: `DatasetFacts`.

Finding it out reads every sample once; the cache keeps it, as `workbench.codec` writes it, and
everything that asks about the inputs of a run reads it here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import TensorSpec, digest
from workbench.codec import to_plain
from workbench.dataset.preprocess import Preprocess
from workbench.identity import digest_of

if TYPE_CHECKING:
    from workbench.dataset.core import Dataset, Split


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """One split of a dataset.

    Attributes:
        samples: how many it has.
        fingerprint: SHA-256 over every sample's content, its label and the preprocessing.
        labelled: whether its samples have labels.
        highest_label: the largest of whole-number labels [N]; None where they are of another kind.
    """

    samples: int
    fingerprint: str
    labelled: bool = False
    highest_label: int | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """A dataset: what it feeds, what is scored on it, and what its samples are.

    Attributes:
        name: for tables.
        inputs: the model's inputs, the batch axis first and open.
        metric: the name of the user's metric; '' for top-1.
        metric_digest: SHA-256 of the file that defines it; None where there is none.
        metric_identity: SHA-256 of all that decides what it gives, see `workbench.identity`.
        splits: by name, `calibration` and `evaluation`; empty for random inputs.
        preprocess: what an app must do to a sample of its own; None for random inputs.
        raw: dtype and shape of each input as it is stored, before preprocessing.
        depends: the files and folders that all this rests on.
    """

    name: str
    inputs: tuple[TensorSpec, ...] = ()
    metric: str = ""
    metric_digest: str | None = None
    metric_identity: str = ""
    splits: Mapping[str, SplitFacts] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    raw: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    depends: tuple[str, ...] = ()

    @property
    def calibration(self) -> SplitFacts | None:
        """The samples that ranges are taken from."""
        return self.splits.get("calibration")

    @property
    def evaluation(self) -> SplitFacts | None:
        """The samples that accuracy is scored on."""
        return self.splits.get("evaluation")

    def to_manifest(self) -> dict[str, Any]:
        """The dataset's entry in manifest.json."""
        plain: dict[str, Any] = to_plain(self)
        names = ["name", "metric", "metric_digest", "splits", "inputs", "preprocess", "raw"]
        if not self.splits:  # random inputs have no more to tell
            names = ["name", "metric", "splits", "inputs"]
        return {name: plain[name] for name in names}


def dataset_facts(dataset: Dataset, splits: Sequence[Split | None]) -> DatasetFacts:
    """A dataset's facts, with those of some of its splits, every sample of which is read.

    Raises DatasetError for a sample that cannot be read. `depends` is left to who opened the files.
    """
    first = dataset.evaluation or dataset.calibration
    raw = first.source.sample(int(first.indices[0])) if first is not None else {}
    return DatasetFacts(
        name=dataset.name,
        metric=dataset.metric_name,
        metric_digest=_source_digest(dataset.metric),
        metric_identity=digest_of(dataset.metric),
        splits={split.name: _split_facts(split) for split in splits if split is not None},
        inputs=dataset.inputs,
        preprocess=first.preprocess if first is not None else None,
        raw={name: (str(array.dtype), array.shape) for name, array in raw.items()},
    )


def _split_facts(split: Split) -> SplitFacts:
    labels = split.labels
    numeric = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
    return SplitFacts(
        samples=len(split),
        fingerprint=split.fingerprint,
        labelled=labels is not None,
        highest_label=int(labels.max()) if numeric and labels is not None else None,
    )


def _source_digest(function: Any) -> str | None:
    """The digest of the file that a user's function is in: another metric, other scores."""
    try:
        return digest(Path(inspect.getfile(inspect.unwrap(function))))
    except (TypeError, OSError):
        return None
