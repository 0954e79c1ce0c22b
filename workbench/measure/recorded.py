"""Outputs of a reference on the evaluation split, kept for the next artifact held against them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.dataset import Batch

Array = NDArray[Any]
LIMIT = 128 << 20  # bytes: logits of most datasets; masks and images are inferred again


class Recording:
    """What one target gives on consecutive batches, in memory while it is within `LIMIT` bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._batches: list[Sequence[Array]] = []
        self._bytes = 0

    def __call__(self, outputs: Mapping[str, Sequence[Array]]) -> None:
        """Add a batch's outputs, by target."""
        self._bytes += sum(array.nbytes for array in outputs[self.name])
        if self._bytes <= LIMIT:
            self._batches.append(outputs[self.name])
        else:
            self._batches.clear()

    def arrays(self, count: int) -> list[Array]:
        """The outputs of all `count` samples [N, ...]; none where they are too many bytes, or not
        of one shape a sample.
        """
        whole = []
        for parts in zip(*self._batches, strict=True):
            if len({part.shape[1:] for part in parts}) > 1 or not all(part.ndim for part in parts):
                return []
            whole.append(np.concatenate(parts))
        return whole if all(len(array) == count for array in whole) else []


def save(folder: Path, arrays: Sequence[Array]) -> dict[str, Any]:
    """Write outputs as files of `folder`; what `Recorded` must know of them."""
    for at, array in enumerate(arrays):
        np.save(folder / f"{at}.npy", array, allow_pickle=False)
    return {"outputs": len(arrays)}


class Recorded:
    """Outputs that `save` wrote, by batch, without reading more of them."""

    def __init__(self, folder: Path, data: Mapping[str, Any]) -> None:
        self._arrays = [
            np.load(folder / f"{at}.npy", mmap_mode="r", allow_pickle=False)
            for at in range(data["outputs"])
        ]

    def __call__(self, batch: Batch) -> list[Array]:
        """The outputs [n, ...] of a batch of n samples."""
        return [array[batch.start : batch.start + len(batch)] for array in self._arrays]
