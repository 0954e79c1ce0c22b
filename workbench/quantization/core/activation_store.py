"""Activations of many samples: in memory as long as they are few, in files beyond that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    import torch

HELD = 256 * 2**20  # bytes, of all tensors of one store, that stay in memory whatever there is
PART = 16  # of the memory that is free, several steps being made at once


def affordable_memory() -> int:
    """Bytes that one store may hold: a sixteenth of what is free now, HELD at least."""
    import psutil

    return max(HELD, int(psutil.virtual_memory().available) // PART)


class ActivationStore:
    """Where activations are kept that memory is not for: a temporary folder, gone with the store.

    Used as a context manager. Reading one batch brings that batch alone back into memory.

    Attributes:
        left: bytes that may still be held in memory.
    """

    def __init__(self, held: int | None = None) -> None:
        self.left = affordable_memory() if held is None else held
        self._number = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def new_path(self) -> Path:
        """A new file's path."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="wb-activations-")
        self._number += 1
        return Path(self._folder.name) / f"{self._number}.npy"


class StoredBatches(Sequence["torch.Tensor"]):
    """The batches of one tensor, in order."""

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        self._batches: list[torch.Tensor | Path] = []

    def __len__(self) -> int:
        return len(self._batches)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return _load(self._batches[index])

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (_load(batch) for batch in list(self._batches))

    def append(self, value: torch.Tensor) -> None:
        """Put a batch behind the others, in a file where no memory is left."""
        size = value.numel() * value.element_size()
        if size <= self._store.left:
            self._store.left -= size
            self._batches.append(value)
            return
        path = self._store.new_path()
        np.save(path, value.numpy())
        self._batches.append(path)

    def replace(self, index: int, value: torch.Tensor) -> None:
        """Put a batch, of the same shape, in another's place."""
        before = self._batches[index]
        if isinstance(before, Path):
            np.save(before, value.numpy())
        else:
            self._batches[index] = value

    def clear(self) -> None:
        """Give back memory and files."""
        for batch in self._batches:
            if isinstance(batch, Path):
                batch.unlink()
            else:
                self._store.left += batch.numel() * batch.element_size()
        self._batches = []


def _load(batch: torch.Tensor | Path) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.load(batch)) if isinstance(batch, Path) else batch
