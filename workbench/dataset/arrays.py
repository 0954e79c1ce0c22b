"""The `numpy` source (`.npy` memory-mapped, `.npz`) and the `python` source (a factory)."""

from __future__ import annotations

import hashlib
import mmap
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size
from workbench.errors import DatasetError

if TYPE_CHECKING:
    from workbench.dataset.core import Source

Array = NDArray[Any]


def _hash(arrays: Mapping[str, Array]) -> bytes:
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        hashed.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.digest()


class Arrays:
    """Samples that are rows of named arrays [N, ...], all of one length."""

    def __init__(self, arrays: Mapping[str, Array], labels: Array | None, origin: str) -> None:
        single = next((name for name, array in arrays.items() if not array.ndim), None)
        if not arrays or single is not None:
            raise DatasetError(
                f"{origin} has no arrays"
                if single is None
                else f"{origin}: {single} is one number",
                "samples are the rows of arrays",
            )
        lengths = {name: len(array) for name, array in arrays.items()}
        if labels is not None:
            lengths["labels"] = len(labels) if labels.ndim else 0
        if len(set(lengths.values())) > 1:
            listing = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DatasetError(f"{origin}: arrays of different lengths", listing)
        self.arrays = dict(arrays)
        self.labels = labels
        self.origin = origin
        self._reads = 0

    def __len__(self) -> int:
        return batch_size(self.arrays)

    def sample(self, index: int) -> Mapping[str, Array]:
        """The row of that number of every array, by the arrays' names."""
        rows = {name: np.array(array[index]) for name, array in self.arrays.items()}
        self._reads += 1
        if self._reads % 64 == 0:
            self._release()
        return rows

    def _release(self) -> None:
        """Give back the pages of mapped files: read ones count as this process's memory."""
        for array in self.arrays.values():
            mapped = getattr(array, "_mmap", None)
            if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def where(self, index: int) -> str:
        """The row's place, for a message."""
        return f"{self.origin}, row {index}"

    def identity(self, index: int) -> bytes:
        """A digest of the row's content."""
        return _hash(self.sample(index))


def open_npy(path: Path) -> Array:
    """A `.npy` file, memory-mapped. Raises DatasetError where it is not one, or holds objects."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {path}") from error
    except Exception as error:  # a header that is not whole may raise anything
        raise DatasetError(f"{path} cannot be read as .npy", str(error)) from error
    if not isinstance(array, np.ndarray):
        raise DatasetError(f"{path} cannot be read as .npy", "it is an .npz archive", "rename it")
    return array


def open_npz(path: Path, names: Sequence[str], labels: str | None) -> tuple[dict[str, Array], Any]:
    """Named arrays of an `.npz` and its labels. Members are unpacked to disk and memory-mapped."""
    # Deleted when the last array that maps a file in it is gone: the map keeps the inode.
    with tempfile.TemporaryDirectory(prefix="wb-npz-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
                members_read = list(names) or [name for name in members if name != labels]
                missing = [name for name in [*members_read, *([labels] if labels else [])]
                           if name not in members]  # fmt: skip
                if missing:
                    raise DatasetError(
                        f"{path} has no array '{missing[0]}'", f"it has {', '.join(members)}"
                    )
                for name in [*members_read, *([labels] if labels else [])]:
                    archive.extract(f"{name}.npy", folder)
        except FileNotFoundError as error:
            raise DatasetError(f"there is no file {path}") from error
        except (DatasetError, OSError):
            raise
        except Exception as error:  # each way of packing has its own
            raise DatasetError(f"{path} cannot be read as .npz", str(error)) from error
        arrays = {name: open_npy(Path(folder) / f"{name}.npy") for name in members_read}
        return arrays, open_npy(Path(folder) / f"{labels}.npy") if labels else None


class IndexedSamples:
    """A user's object with `__len__` and `__getitem__(i)`: a sample, or (sample, label).

    A sample is an array, or a dict of named arrays. Labels are all of them or none.
    """

    def __init__(self, items: Any, origin: str, name: str = "input") -> None:
        self.items = items
        self.origin = origin
        self.name = name
        self.labelled = bool(len(items)) and isinstance(items[0], tuple) and len(items[0]) == 2

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def labels(self) -> Array | None:
        """Read on first use: a user's object may decode a whole sample to give its label."""
        if not self.labelled:
            return None
        return np.asarray([self._read(index)[1] for index in range(len(self.items))])

    def sample(self, index: int) -> Mapping[str, Array]:
        """The item of that number, as arrays by name, without its label."""
        return self._read(index)[0]

    def _read(self, index: int) -> tuple[dict[str, Array], Any]:
        try:
            item = self.items[index]
            item, label = (item[0], _label(item[1])) if self.labelled else (item, None)
            named = item if isinstance(item, Mapping) else {self.name: item}
            return {name: np.asarray(array) for name, array in named.items()}, label
        except Exception as error:
            raise DatasetError(
                f"{self.where(index)} cannot be read", f"{type(error).__name__}: {error}"
            ) from error

    def where(self, index: int) -> str:
        """The item's place, for a message."""
        return f"{self.origin}, sample {index}"

    def identity(self, index: int) -> bytes:
        """A digest of the item's content."""
        return _hash(self.sample(index))


def _label(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def from_factory(factory: Callable[..., Any], arguments: Mapping[str, Any], origin: str) -> Source:
    """The source that a user's factory gives: `(x, y)` arrays, a dict of arrays, or a sequence."""
    try:
        return _source_of(factory(**arguments), origin)
    except DatasetError:
        raise
    except (Exception, SystemExit) as error:
        raise DatasetError(f"{origin} failed", f"{type(error).__name__}: {error}") from error


def _source_of(samples: Any, origin: str) -> Source:
    if isinstance(samples, np.ndarray):
        return Arrays({"input": samples}, None, origin)
    if isinstance(samples, Mapping):
        return Arrays({name: np.asarray(value) for name, value in samples.items()}, None, origin)
    if isinstance(samples, tuple) and len(samples) == 2 and hasattr(samples[1], "__array__"):
        inputs = samples[0] if isinstance(samples[0], Mapping) else {"input": samples[0]}
        return Arrays(
            {name: np.asarray(value) for name, value in inputs.items()},
            np.asarray(samples[1]),
            origin,
        )
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise DatasetError(
            f"{origin} gave a {type(samples).__name__}",
            "samples are read more than once and in any order",
            "return arrays, or an object with __len__ and __getitem__",
        )
    return IndexedSamples(samples, origin)
