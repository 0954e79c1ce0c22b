"""The child's end of `workbench.process`: reads jobs, runs them, answers."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from workbench.errors import StepError, WorkbenchError, pack
from workbench.process import JOBS, receive, send


def job_function(name: str) -> Callable[..., Any]:
    """The function of a job. Raises KeyError where there is none of that name."""
    module, _, function = JOBS[name].partition(":")
    job: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return job


def main() -> None:
    """Answer jobs, one after another, until the input closes."""
    # The pipes move to descriptors of their own, and 0 and 1 to the log and nothing: a library
    # that prints must not break the protocol.
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    requests = _Requests(source)
    while (request := requests.next()) is not None:
        name, arguments = request
        send(sink, _answer(name, arguments, sink))


class _Requests:
    """Jobs as they come. A thread reads them, so that a closed input ends even a busy process."""

    def __init__(self, source: BinaryIO) -> None:
        import queue

        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: BinaryIO) -> None:
        while True:
            try:
                self._queue.put(receive(source))
            except EOFError:
                os._exit(0)  # the parent is gone: nobody waits for an answer

    def next(self) -> Any:
        return self._queue.get()


def _answer(job: str, arguments: Any, sink: BinaryIO) -> tuple[str, Any]:
    lock = threading.Lock()

    def progress(fraction: float, note: str) -> None:
        with lock:
            send(sink, ("progress", (fraction, note)))

    try:
        return "result", job_function(job)(*arguments, progress=progress)
    except WorkbenchError as error:
        return "error", pack(error)
    except MemoryError:
        return "error", pack(StepError("memory ran out", "", "free memory, or use a smaller model"))
    except OSError as error:
        return "error", pack(_system(error))
    except BaseException as error:  # noqa: BLE001 - SystemExit too: converters raise it
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        return "unexpected", (type(error).__name__, f"{error}".strip() or "no message")


def _system(error: OSError) -> WorkbenchError:
    from workbench.cache import describe_os_error

    return describe_os_error(error)


if __name__ == "__main__":
    main()
