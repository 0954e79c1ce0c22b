"""Accuracy: per-sample scores of an artifact's outputs, and every figure derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DatasetError
from workbench.intervals import Estimate, paired_difference
from workbench.parity import apply_head, sqnr

Array = NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """What is kept of each evaluation sample, as arrays [N].

    top1, top5: whether the label was found, None without labels or classes. agree: whether the
    predicted class is the reference's. signal, noise: power of the reference's outputs, and of
    the difference from them. metric: a user's figure and its paired difference to the reference.
    head: what the artifact applies to the reference's outputs; of classes alone ("argmax") there
    is neither a top-5 nor an SQNR.
    """

    top1: Array | None
    top5: Array | None
    agree: Array | None
    signal: Array
    noise: Array
    metric: float | None = None
    metric_delta: Estimate | None = None
    head: str = ""

    def __len__(self) -> int:
        return len(self.signal)

    @property
    def accuracy(self) -> float | None:
        """Top-1 in percent, or the user's metric."""
        if self.metric is not None:
            return self.metric
        return None if self.top1 is None else 100 * float(self.top1.mean())

    @property
    def top5_accuracy(self) -> float | None:
        """In percent; None without labels or with fewer than five classes."""
        return None if self.top5 is None else 100 * float(self.top5.mean())

    @property
    def agreement(self) -> float | None:
        """The share of samples with the reference's class, in percent."""
        return None if self.agree is None else 100 * float(self.agree.mean())

    @property
    def sqnr(self) -> float | None:
        """Of all outputs of all samples, in dB; infinite where they are equal."""
        if self.head == "argmax":
            return None
        return sqnr(float(self.signal.sum()), float(self.noise.sum()))

    def delta(self, baseline: Scores) -> Estimate | None:
        """The difference from a baseline on the same samples, in points, with its interval."""
        if self.metric_delta is not None:
            return self.metric_delta
        if self.top1 is None or baseline.top1 is None:
            return None
        return paired_difference(baseline.top1, self.top1)

    def to_json(self) -> dict[str, Any]:
        """As the cache keeps them: one number a sample."""

        def bits(array: Array | None) -> list[int] | None:
            return None if array is None else array.astype(int).tolist()

        return {
            "top1": bits(self.top1),
            "top5": bits(self.top5),
            "agree": bits(self.agree),
            "signal": self.signal.tolist(),
            "noise": self.noise.tolist(),
            "metric": self.metric,
            "metric_delta": self.metric_delta.to_json() if self.metric_delta else None,
            "head": self.head,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scores:
        """What `to_json` gave."""

        def bits(values: list[int] | None) -> Array | None:
            return None if values is None else np.asarray(values, bool)

        delta = data["metric_delta"]
        return cls(
            bits(data["top1"]),
            bits(data["top5"]),
            bits(data["agree"]),
            np.asarray(data["signal"], float),
            np.asarray(data["noise"], float),
            data["metric"],
            Estimate(**delta) if delta else None,
            data["head"],
        )


def score(
    outputs: Sequence[Array],
    reference: Sequence[Array],
    labels: Array | None,
    head: str = "",
    reference_head: str = "",
) -> Scores:
    """Scores of one batch: lists of outputs [N, ...] and labels [N].

    head: what the file of `outputs` applies to the original's, "softmax" or "argmax"; it is
    applied to the reference's too, whose file may have one already. Classes are read off the first
    output where it is [N, classes]. Raises DatasetError for a label that is no class.
    """
    count = len(reference[0])
    reference = apply_head(reference, "" if reference_head else head)
    signal, noise = np.zeros(count), np.zeros(count)
    for expected_output, output in zip(reference, outputs, strict=True):
        # Boolean outputs (masks) count as 0 and 1.
        expected = expected_output.astype(np.float64).reshape(count, -1)
        signal += (expected**2).sum(axis=1)
        noise += ((output.astype(np.float64).reshape(count, -1) - expected) ** 2).sum(axis=1)
    if reference[0].ndim != 2 or reference[0].shape[1] < 2:
        return Scores(None, None, None, signal, noise, head=head)
    # As float64, for the negative of an unsigned or a boolean is not its opposite.
    ranked = np.argsort(-outputs[0].astype(np.float64), axis=1, kind="stable")[:, :5]
    agree = ranked[:, 0] == np.argmax(reference[0], axis=1)
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return Scores(None, None, agree, signal, noise, head=head)
    classes = reference[0].shape[1]
    if len(labels) and (labels.max() >= classes or labels.min() < 0):
        raise DatasetError(
            f"labels out of range: {int(labels.min())} to {int(labels.max())}, "
            f"but the model has {classes} classes",
            "",
            "check the dataset's labels, and that it is the model's",
        )
    found5 = (ranked == labels[:, None]).any(axis=1) if classes > 5 and head != "argmax" else None
    return Scores(ranked[:, 0] == labels, found5, agree, signal, noise, head=head)


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of consecutive batches as one."""

    def join(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else np.concatenate(values)

    return Scores(
        join("top1"), join("top5"), join("agree"), join("signal"), join("noise"),
        head=parts[0].head,
    )  # fmt: skip
