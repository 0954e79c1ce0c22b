"""What a run knows of its model and its dataset before any step runs.

Workers find it out once; the cache keeps it (as `workbench.codec` writes it), and everything that
asks about the inputs of a run reads it here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.artifact import TensorSpec
from workbench.codec import to_plain
from workbench.dataset.preprocess import Preprocess


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
        splits: by name, `calibration` and `evaluation`; empty for random inputs.
        preprocess: what an app must do to a sample of its own; None for random inputs.
        raw: dtype and shape of each input as it is stored, before preprocessing.
        depends: the files and folders that all this rests on.
    """

    name: str
    inputs: tuple[TensorSpec, ...] = ()
    metric: str = ""
    metric_digest: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model as it was given.

    Attributes:
        fingerprint: SHA-256 of its weights, structure and sources; of an ONNX file, the file's.
        bytes: of all parameters and buffers; of an ONNX file, the file's size.
        parameters: how many; None for an ONNX file.
        notes: for the report.
        classes: the size of the first output [N, classes]; None where it has another shape.
        mixes_samples: whether a sample's outputs depend on the others of its batch.
        depends: the files that it was read from.
        seconds: what reading an ONNX file took.
    """

    fingerprint: str
    bytes: int = 0
    parameters: int | None = None
    notes: tuple[str, ...] = ()
    classes: int | None = None
    mixes_samples: bool = False
    depends: tuple[str, ...] = ()
    seconds: float = 0.0
