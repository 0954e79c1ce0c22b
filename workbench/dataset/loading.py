"""Datasets by what names them, each loaded once in a process."""

from __future__ import annotations

from functools import lru_cache

from workbench.artifact import TensorSpec
from workbench.dataset.config import load
from workbench.dataset.core import Dataset, random_dataset

Data = str | tuple[TensorSpec, ...]  # a dataset's name or path; or specs of random inputs


@lru_cache(maxsize=4)
def load_dataset(data: Data) -> Dataset:
    """A dataset by name or path, or one of random inputs by their specs.

    Raises DatasetError where there is none, or where its file is none.
    """
    return load(data) if isinstance(data, str) else random_dataset(data)
