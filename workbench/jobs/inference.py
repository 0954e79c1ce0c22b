"""The jobs that open a target in a worker and ask it for outputs, batch by batch."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from workbench.artifact import Artifact
from workbench.device.profile import Device
from workbench.device.runtimes.base import Session
from workbench.device.session import infer, open_session
from workbench.errors import DeviceError, WorkbenchError, first_line
from workbench.model import ModelSource
from workbench.progress import Progress

_open: list[tuple[Artifact | ModelSource, Session]] = []


def open_target(
    target: Artifact | ModelSource,
    threads: int,
    examples: Any,
    device: Device | None = None,
    *,
    progress: Progress,
) -> None:
    """Load an artifact, to be asked with `infer_batch`; on the CPU without a device."""
    _open[:] = [(target, open_session(target, threads, examples, device))]


def drop_target(progress: Progress) -> None:
    """Close what `open_target` loaded."""
    _open.clear()


def infer_batch(inputs: Any, progress: Progress) -> list[Any]:
    """Outputs of the artifact that `open_target` loaded."""
    target, session = _open[0]
    with running_target(target):
        return infer(session, inputs)


@contextlib.contextmanager
def running_target(target: Artifact | ModelSource) -> Iterator[None]:
    """What a runtime raises on a file's operators is the file's error, not one of ours."""
    try:
        yield
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        if not isinstance(target, Artifact):  # a user's code: its traceback says where
            raise
        # ONNX Runtime names its own source file and function on the way.
        cause = re.sub(r" ?/\S+\.(h|cc):\d+ [^)]*\)", "", first_line(error))
        raise DeviceError(
            f"{target.path.name} fails on inputs of its shape", f"{type(error).__name__}: {cause}"
        ) from error
