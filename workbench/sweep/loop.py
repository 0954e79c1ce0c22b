"""A sweep: trials asked for, made side by side, measured one at a time, told."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

from workbench.errors import DiskFullError, InputError, WorkbenchError
from workbench.sweep.local_executor import Executor, Local
from workbench.sweep.spec import FILE, SweepRecord, read
from workbench.sweep.study import Study, Trial

# So many trials that all end with one error, and none without: the next would too.
ALIKE = 3

Told = Callable[[Trial], None]


def prepared(record: SweepRecord, *, resume: bool) -> Study:
    """The sweep's study and its folder, new or gone on with. Raises InputError where the folder is
    not as asked, or the storage does not answer.
    """
    folder, spec = record.folder, record.spec
    if resume:
        known = read(folder)
        if {**known.spec.to_json(), "trials": 0} != {**spec.to_json(), "trials": 0}:
            raise InputError(
                f"{folder} is another sweep",
                "its recipe, options, space, goals or limits differ from those given now",
                "repeat the command that began it, or give --out another folder",
            )
        if known.storage != record.storage:
            raise InputError(
                f"{folder} keeps its trials in another storage", "", "repeat --storage"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(
            f"{folder} has {'a sweep' if (folder / FILE).is_file() else 'other files'} already",
            "",
            "--resume goes on with a sweep; --out names another folder",
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        study = Study(spec, record.storage, record.study)
    except BaseException:
        if not resume:  # nothing has begun
            shutil.rmtree(folder, ignore_errors=True)
        raise
    record.write()
    return study


@contextmanager
def alone(record: SweepRecord) -> Iterator[None]:
    """Hold a sweep's folder; a process that dies lets go of it. Raises InputError where held."""
    from filelock import FileLock, Timeout

    lock = FileLock(record.folder / ".lock")
    try:
        lock.acquire(timeout=0.05)
    except Timeout:
        raise InputError(
            f"{record.folder} is being swept by another process", "", "wait for it, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def swept(
    record: SweepRecord, study: Study, executor: Executor, told: Told, notice: Callable[[str], None]
) -> None:
    """Run a sweep's trials until there are as many as it asks for; those begun before, again.

    told: is called with each that ends. Raises the WorkbenchError that ended the sweep: a full
    disk, a storage that is gone, or an error that every trial ends with.
    """
    with closing(Local(1, notice)) as measuring:
        _Sweep(record, study, executor, measuring, told).run()


class _Sweep:
    """measuring: where trials are finished that were made elsewhere, or must be measured alone."""

    def __init__(
        self, record: SweepRecord, study: Study, executor: Executor, measuring: Local, told: Told
    ) -> None:
        self.record, self.study, self.told = record, study, told
        self.spec = record.spec.to_json()
        self.executor, self.measuring = executor, measuring
        _, plan = record.spec.request(())
        here = record.spec.timed and not all(one.remote for one in plan.devices)
        # What is made beside a measurement on this machine would be measured with it.
        self.alone = here and not executor.apart
        self.twice = here or not executor.finishes
        self.together = 2 * executor.jobs if self.alone else record.spec.trials
        self.began: dict[int, float] = {}
        self.settings: dict[int, tuple[str, ...]] = {}
        self.errors: list[str] = []
        self.good = 0

    def run(self) -> None:
        known = self.study.trials()
        self.good = sum(one.state == "done" for one in known)
        again, left = deque(self.study.begun()), self.record.spec.trials - len(known)
        making, since, ready = 0, 0, deque[int]()
        most = self.executor.jobs * (2 if self.executor.apart else 1)
        while again or left > 0 or making or ready:
            while making < most and since < self.together and (again or left > 0):
                left -= not again
                self._begin(again.popleft() if again else self.study.ask())
                making, since = making + 1, since + 1
            if making:
                ended = self.executor.wait()
                making -= len(ended)
                ready += [number for number, found in ended if self._made(number, found)]
            if ready and not (self.alone and making):
                since = 0
                while ready:
                    self._measure(ready.popleft())
            elif not making:
                since = 0

    def _begin(self, trial: Trial) -> None:
        number = trial.number
        self.began[number], self.settings[number] = time.perf_counter(), trial.settings
        if self.twice:
            self.executor.submit(number, "make", self.spec, trial.settings)
        else:
            self.executor.submit(number, "finish", *self._finishing(number))

    def _finishing(self, number: int) -> tuple[Any, ...]:
        return self.spec, self.settings[number], str(self.record.trial(number).resolve())

    def _made(self, number: int, found: Any) -> bool:
        """Whether a trial that was made is to be measured still."""
        if self.twice and not isinstance(found, BaseException):
            return True
        self._ended(number, found)
        return False

    def _measure(self, number: int) -> None:
        self.measuring.submit(number, "finish", *self._finishing(number))
        ((_, found),) = self.measuring.wait()
        self._ended(number, found)

    def _ended(self, number: int, found: Any) -> None:
        seconds = time.perf_counter() - self.began[number]
        if isinstance(found, DiskFullError) or (
            isinstance(found, BaseException) and not isinstance(found, WorkbenchError)
        ):
            raise found  # the trial stays begun: --resume runs it again
        if isinstance(found, WorkbenchError):
            trial = self.study.fail(number, found, seconds)
        else:
            trial = self.study.tell(number, found, seconds)
        self.told(trial)
        if trial.state == "done":
            self.good += 1
            return
        self.errors.append(trial.error)
        if not self.good and len(self.errors) >= ALIKE and len(set(self.errors)) == 1:
            raise found if isinstance(found, WorkbenchError) else InputError(trial.error)
