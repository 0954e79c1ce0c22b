"""Activations of many samples: in memory as long as they are few, in files beyond that."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    import torch

HELD = 256 * 2**20  # bytes, of all shelves of one store, that stay in memory


class Store:
    """Where shelves keep what memory is not for: a temporary folder, gone with the store.

    Used as a context manager. Reading one batch brings that batch alone back into memory.
    """

    def __init__(self, held: int = HELD) -> None:
        self.left = held
        self._number = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def path(self) -> Path:
        """A new file's path."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="wb-activations-")
        self._number += 1
        return Path(self._folder.name) / f"{self._number}.npy"


class Shelf(Sequence["torch.Tensor"]):
    """The batches of one tensor, in order."""

    def __init__(self, store: Store) -> None:
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
            return [self[place] for place in range(*index.indices(len(self)))]
        return _loaded(self._batches[index])

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (_loaded(one) for one in list(self._batches))

    def append(self, value: torch.Tensor) -> None:
        """Put a batch behind the others."""
        self._batches.append(self._kept(value))

    def replace(self, index: int, value: torch.Tensor) -> None:
        """Put a batch, of the same shape, in another's place."""
        before = self._batches[index]
        if isinstance(before, Path):
            np.save(before, value.numpy())
        else:
            self._batches[index] = value

    def clear(self) -> None:
        """Give back memory and files."""
        for one in self._batches:
            if isinstance(one, Path):
                one.unlink()
            else:
                self._store.left += one.numel() * one.element_size()
        self._batches = []

    def _kept(self, value: torch.Tensor) -> torch.Tensor | Path:
        size = value.numel() * value.element_size()
        if size <= self._store.left:
            self._store.left -= size
            return value
        path = self._store.path()
        np.save(path, value.numpy())
        return path


def _loaded(one: torch.Tensor | Path) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.load(one)) if isinstance(one, Path) else one
