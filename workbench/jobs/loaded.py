"""What a process has loaded it keeps: the model that one job described, the next one exports."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.dataset.loading import Data, load_dataset
from workbench.model import ModelSource
from workbench.progress import Progress
from workbench.sources import loading
from workbench.worker_pool import end_kept_workers


@lru_cache(maxsize=2)
def load_model(source: ModelSource, data: Data, folder: Path) -> Any:
    """A source's model, tried on samples; for an ONNX file its artifact in `folder`."""
    return loading.load(source, load_dataset(data).examples(8, source.seed), folder)


def release(progress: Progress) -> None:
    """End the processes that steps have kept for their next job."""
    end_kept_workers()


def warm(modules: Sequence[str], progress: Progress) -> None:
    """Import what a later job takes, while this process has nothing else to do."""
    for name in modules:
        importlib.import_module(name)
