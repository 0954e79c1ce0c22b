"""Trials in processes of this machine, as many side by side as its cores and memory take."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from workbench.errors import CrashError
from workbench.process import Worker
from workbench.sweep.trial import thread_settings

MEMORY = 3 << 30  # bytes a trial: torch, TensorFlow's converter and a small network's files
TRIES = 2  # of a trial whose process dies: the kernel may have ended it for another's sake

Notice = Callable[[str], None]


class Executor(Protocol):
    """Where trials are made.

    Attributes:
        jobs: how many at once.
        apart: not on this machine, which may measure meanwhile.
        finishes: it writes run folders too.
    """

    jobs: int
    apart: bool
    finishes: bool

    def submit(self, number: int, job: str, *arguments: Any) -> None:
        """Begin a job, `make` or `finish`, for a trial."""

    def wait(self) -> list[tuple[int, Any]]:
        """Wait for some that were begun: each trial's number with its result or exception."""
        ...

    def close(self) -> None:
        """End what was begun, and let go of what ran it."""


class Local:
    """Worker processes; each keeps what it imported for the next trial."""

    apart = False
    finishes = True

    def __init__(self, jobs: int, notice: Notice) -> None:
        self.jobs, self._notice = jobs, notice
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="trial")
        self._idle: SimpleQueue[Worker | None] = SimpleQueue()
        for _ in range(jobs):
            self._idle.put(None)
        self._begun: dict[Future[Any], int] = {}
        self._all: set[Worker] = set()
        self._closed = False

    def submit(self, number: int, job: str, *arguments: Any) -> None:
        """Begin a job in a thread that waits for its process."""
        future = self._threads.submit(self._run, number, job, arguments)
        self._begun[future] = number

    def wait(self) -> list[tuple[int, Any]]:
        """Wait for some that were begun: each trial's number with its result or exception."""
        # In short waits: a signal is seen between two of them.
        while not (done := wait(self._begun, 0.2, FIRST_COMPLETED).done):
            pass
        return [(self._begun.pop(future), future.exception() or future.result()) for future in done]

    def _run(self, number: int, job: str, arguments: tuple[Any, ...]) -> Any:
        for left in reversed(range(TRIES)):
            worker = self._idle.get() or self._start()
            try:
                result = worker.call(f"trial_{job}", *arguments)
            except CrashError as error:
                worker.close()
                self._all.discard(worker)
                self._idle.put(None)
                if not left or self._closed:
                    raise
                self._notice(
                    f"trial {number}: its process died, and it is tried again: {error.why}"
                )
                continue
            except BaseException:
                self._idle.put(worker)
                raise
            self._idle.put(worker)
            return result
        return None

    def _start(self) -> Worker:
        worker = Worker(thread_settings(max(1, cores() // self.jobs)))
        self._all.add(worker)
        return worker

    def close(self) -> None:
        """End every process, whatever it is doing."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._all):
            worker.close()


def trials_side_by_side() -> int:
    """How many trials this machine takes side by side: by its cores, and by memory that is free."""
    return max(1, min(cores(), _free() // MEMORY))


def cores() -> int:
    """CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _free() -> int:
    """Bytes of memory that may be taken: the system's, or what a container has left."""
    free = _meminfo().get("MemAvailable", MEMORY)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):  # fmt: skip
        try:
            limit_bytes, used_bytes = (
                int(Path(path).read_text(encoding="ascii")) for path in (limit, used)
            )
        except (OSError, ValueError):
            continue
        free = min(free, max(0, limit_bytes - used_bytes))
    return free


def _meminfo() -> Mapping[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs}
