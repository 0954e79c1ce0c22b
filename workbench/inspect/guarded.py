"""Reading the formats whose readers a damaged file can crash or hang: in a worker, with limits."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from workbench.artifact import Format
from workbench.errors import CrashError, ModelError, WorkbenchError, first_line
from workbench.inspect.facts import Facts
from workbench.progress import Progress
from workbench.worker_pool import Pool, RenewedWorker

SECONDS = 120  # the longest that a reader may take

_NAMES = {
    Format.ORT: "an ORT file", Format.TFLITE: "TFLite", Format.PT2: "a .pt2",
    Format.TORCHSCRIPT: "TorchScript",
}  # fmt: skip


def read(path: Path, kind: Format, worker: RenewedWorker | None = None) -> Facts:
    """The facts of a file, read in a worker. Raises ModelError, also where the reader died.

    worker: one that other jobs on the file share; without, one of its own.
    """
    if worker is None:
        with contextlib.closing(Pool()) as pool, pool.lend() as own:
            return read(path, kind, own)
    try:
        facts: Facts = worker.call("inspect", path, kind)
    except CrashError as error:
        if "signal" not in error.why:  # nothing that a file can do to a reader
            raise
        raise ModelError(
            f"{path} cannot be read as {_NAMES[kind]}",
            f"its reader died: {_cause(error)}",
            "the file is damaged: get it again",
        ) from error
    if kind is not Format.TFLITE:
        return facts
    try:
        taken: str = worker.call("xnnpack", path)
    except ModelError:
        raise
    except WorkbenchError as error:
        return replace(facts, notes=(*facts.notes, f"LiteRT cannot load it: {_cause(error)}"))
    return replace(facts, takes={"XNNPACK": taken})


def _cause(error: WorkbenchError) -> str:
    """What ended the reader, without what it printed."""
    cause = error.why.partition(";")[0]
    return f"it took longer than {SECONDS} s" if "SIGALRM" in cause else cause


def inspect_file(path: Path, kind: Format, progress: Progress) -> Facts:
    """The job `inspect`: the facts of a file, read in this process. Raises ModelError."""
    from workbench.inspect import ort_file, pt2_file, tflite_file, torchscript_file

    readers = {
        Format.ORT: ort_file.read,
        Format.TFLITE: tflite_file.read,
        Format.PT2: pt2_file.read,
        Format.TORCHSCRIPT: torchscript_file.read,
    }
    with _limited():
        try:
            return readers[kind](path)
        except (WorkbenchError, MemoryError):
            raise
        # Generated readers believe the offsets that a file holds: what a wrong one raises is
        # struct.error, IndexError, UnicodeDecodeError or whatever came of the bytes it led to.
        except Exception as error:
            raise ModelError(
                f"{path} cannot be read as {_NAMES[kind]}",
                f"it is damaged: {first_line(error) or type(error).__name__}",
                "get the file again",
            ) from error


def delegate_file(path: Path, progress: Progress) -> str:
    """The job `xnnpack`: what the XNNPACK delegate takes of a `.tflite` file, by LiteRT itself."""
    from workbench.inspect import tflite_delegate

    with _limited():
        return tflite_delegate.delegated_nodes(path)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """An end after SECONDS, and to memory where a size in the file is absurd: the process dies."""
    alarm = getattr(signal, "alarm", None)  # Windows has none
    with _memory_limit():
        if alarm is None:
            yield
            return
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        alarm(SECONDS)
        try:
            yield
        finally:
            alarm(0)


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """No more memory than the machine has, where the system has such limits; as before after it."""
    unlimited = None
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource

        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        unlimited = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (memory, unlimited[1]))
    try:
        yield
    finally:
        if unlimited is not None:
            resource.setrlimit(resource.RLIMIT_DATA, unlimited)
