"""Datasets: samples as named arrays with labels, in disjoint splits, streamed."""

from workbench.dataset.config import load
from workbench.dataset.core import Batch, Dataset, Source, Split, random_dataset

__all__ = ["Batch", "Dataset", "Source", "Split", "load", "random_dataset"]
