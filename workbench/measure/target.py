"""What is measured, on which samples, and where: values that recipes and given files share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.measure.host import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.dataset.core import Dataset
    from workbench.dataset.facts import DatasetFacts
    from workbench.device.profile import Device
    from workbench.errors import WorkbenchError
    from workbench.measure.host import Target
    from workbench.workspace import Workspace

    Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class MeasureTarget:
    """A line of the table before it is measured: a file, a live model, or why there is neither.

    Attributes:
        key: `eager`, the id of the step that made the file, or the name of a given one; unique.
        label: what readers call it.
        format, precision, bytes, sha256: of the file; of a model its fingerprint is the last.
        path: where readers find it; '' where it is no file.
        head: what the file applies to the original's outputs, "softmax" or "argmax".
        subject: what is run; None where there is nothing to run.
        identity: what decides its results, in keys of the cache: a digest.
        inputs: canonical ones of one run, where it takes others than the dataset's.
        notes: for its row.
        quantization: what the engine did, see `Row.quantization`.
        error: why it cannot be run.
    """

    key: str
    label: str
    format: str
    precision: str = ""
    bytes: int | None = None
    sha256: str = ""
    path: str = ""
    head: str = ""
    subject: Target | None = None
    identity: str = ""
    inputs: Inputs | None = None
    notes: tuple[str, ...] = ()
    quantization: Mapping[str, Any] | None = None
    error: WorkbenchError | None = None


def runnable(targets: tuple[MeasureTarget, ...]) -> dict[str, MeasureTarget]:
    """The targets that can be run, by key; the others are held against the first of them."""
    return {
        target.key: target
        for target in targets
        if target.subject is not None and target.error is None
    }


def subjects_of(targets: Mapping[str, MeasureTarget]) -> dict[str, Target]:
    """What runs, by key."""
    return {key: target.subject for key, target in targets.items() if target.subject is not None}


@dataclass(frozen=True, kw_only=True)
class MeasureData:
    """The samples that targets are run on: their facts at once, themselves where they are needed.

    Attributes:
        facts: of the dataset. Without an evaluation split nothing is scored.
        load: reads it. What is in the cache already needs no samples.
        seed: of random inputs, where there are no samples.
        batch: samples in a batch, when outputs are scored.
    """

    facts: DatasetFacts
    load: Callable[[], Dataset]
    seed: int = 0
    batch: int = BATCH

    def examples(self, count: int) -> dict[str, NDArray[Any]]:
        """A few canonical inputs [count, ...]."""
        return self.load().examples(count, self.seed)


@dataclass(frozen=True)
class Bench:
    """Where targets are measured, and on what.

    Attributes:
        device: that runs them.
        data: their samples.
        workspace: who does the work, and where results are kept.
    """

    device: Device
    data: MeasureData
    workspace: Workspace
