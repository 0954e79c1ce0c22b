"""What a model file holds: `read` gives its `Facts`.

ONNX is read in this process, for its reader is robust and a process of its own costs time. All
other formats are read in a worker with a deadline: a damaged one can crash or hang its runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.artifact import Format
from workbench.file_format import format_of
from workbench.inspect.facts import Facts, Tensor

if TYPE_CHECKING:
    from workbench.worker_pool import RenewedWorker

__all__ = ["Facts", "Tensor", "read"]


def read(path: Path, worker: RenewedWorker | None = None) -> Facts:
    """The facts of a model file of any format. Raises ModelError for one that cannot be read.

    worker: where all formats but ONNX are read; without, one of its own.
    """
    kind = format_of(path)
    if kind is Format.ONNX:
        from workbench.inspect import onnx_file

        return onnx_file.read(path)
    from workbench.inspect import guarded

    return guarded.read(path, kind, worker)
