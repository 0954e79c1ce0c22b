"""Workers between jobs: a pool, one that is replaced after a crash, one kept for a library."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from workbench.errors import CrashError, WorkbenchError
from workbench.process import Worker
from workbench.progress import Progress

_kept: dict[str, tuple[Worker, int]] = {}  # with how often it has served
SERVES = 16  # how often a kept worker serves: what a library leaves behind in it must not grow


@contextlib.contextmanager
def kept_worker(kind: str) -> Iterator[Worker]:
    """A worker of this process for jobs of a kind, kept for the next where all went well.

    For libraries that take seconds to import and want a process of their own. It ends with this
    process, or by `end_kept_workers`.
    """
    worker, served = _kept.pop(kind) if kind in _kept else (Worker(), 0)
    try:
        yield worker
    except BaseException:
        worker.close()
        raise
    if served + 1 < SERVES:
        _kept[kind] = worker, served + 1
    else:
        worker.close()


def end_kept_workers() -> None:
    """End what `kept_worker` keeps: their memory is wanted for something else."""
    while _kept:
        _kept.popitem()[1][0].close()


class Pool:
    """Idle workers kept for the next job: imports are paid once. Safe to use from threads."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self._lock = threading.Lock()

    def call(
        self, job: str, *arguments: Any, progress: Progress | None = None, like: str = ""
    ) -> Any:
        """A job's result, in a worker that has run the like before where one is idle."""
        worker = self.take(like or job)
        try:
            result = worker.call(job, *arguments, progress=progress)
        except BaseException:
            worker.close()
            raise
        if like:
            worker.jobs.add(like)
        self.give(worker)
        return result

    def release(self) -> None:
        """Let idle workers end the processes that they keep for their next job."""
        with self._lock:
            idle = [worker for worker in self._idle if "step" in worker.jobs]
            self._idle = [worker for worker in self._idle if worker not in idle]
        for worker in idle:
            worker.call("release")
            self.give(worker)

    def take(self, like: str) -> Worker:
        """An idle worker, one that has run the job `like` before where there is one; or a new one.

        Whoever takes a worker gives it back, or closes it.
        """
        with self._lock:
            fitting = [worker for worker in self._idle if like in worker.jobs] or self._idle
            if fitting:
                worker = fitting[-1]
                self._idle.remove(worker)
                return worker
        # Jobs run side by side: OpenMP's threads, spinning while they wait for one another, would
        # take the cores from the others' (two quantizations at once took eight times as long).
        return Worker({"OMP_WAIT_POLICY": "PASSIVE"})

    @contextlib.contextmanager
    def warming(self, like: str, *modules: str) -> Iterator[None]:
        """While the block runs, a worker imports what the job `like` will need."""
        worker = self.take(like)
        try:
            worker.start("warm", modules)
            yield
            worker.result()
        except BaseException:
            worker.close()
            raise
        worker.jobs.add(like)  # ready for it
        self.give(worker)

    def give(self, worker: Worker) -> None:
        """Take back a worker that can do another job."""
        with self._lock:
            self._idle.append(worker)

    @contextlib.contextmanager
    def lend(self, like: str = "") -> Iterator[RenewedWorker]:
        """A worker for jobs that may crash it, the others going on; `like` as of `call`."""
        lent = RenewedWorker(self, like)
        try:
            yield lent
        finally:
            lent.give_back()

    def trim(self, count: int) -> None:
        """End the idle workers over `count`, those that waited longest."""
        with self._lock:
            extra = max(0, len(self._idle) - count)
            ended, self._idle = self._idle[:extra], self._idle[extra:]
        for worker in ended:
            worker.close()

    def close(self) -> None:
        """End the idle workers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()


class RenewedWorker:
    """A pool's worker for one job after another; one that a job crashed is replaced for the next.

    The worker is kept after an error that is not a crash: its process is as it was.
    """

    def __init__(self, pool: Pool, like: str = "") -> None:
        self._pool, self._like = pool, like
        self._worker: Worker | None = None

    def call(self, job: str, *arguments: Any) -> Any:
        """A job's result. Raises the WorkbenchError that it raised, or CrashError."""
        if self._worker is None:
            self._worker = self._pool.take(self._like or job)
        try:
            return self._worker.call(job, *arguments)
        except CrashError:
            self.close()
            raise
        except WorkbenchError:
            raise
        except BaseException:  # Ctrl-C: it may be in the middle of anything
            self.close()
            raise

    def give_back(self) -> None:
        """Let the pool have its worker again."""
        if self._worker is not None:
            self._pool.give(self._worker)
            self._worker = None

    def close(self) -> None:
        """End the worker, where there is one; the next job gets another."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
