"""Calibration samples: batches of torch tensors by input name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.arrays import batch_size

if TYPE_CHECKING:
    import torch

Feeds = Mapping[str, "torch.Tensor"]  # one batch: [N, ...] by input name
Samples = Sequence[Feeds]


def count_samples(samples: Samples) -> int:
    """How many samples are in all batches."""
    return sum(batch_size(feeds) for feeds in samples)


def first_samples(samples: Samples, count: int) -> Samples:
    """The batches that hold the first `count` samples, one at least."""
    taken: list[Feeds] = []
    for feeds in samples:
        if taken and count_samples(taken) >= count:
            break
        taken.append(feeds)
    return taken
