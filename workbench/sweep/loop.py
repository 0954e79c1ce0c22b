"""A sweep: trials asked for, made side by side, measured one at a time, told."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from workbench.errors import DiskFullError, InputError, WorkbenchError
from workbench.sweep.local_executor import Executor, Local
from workbench.sweep.spec import FILE, SweepRecord, read
from workbench.sweep.study import Study, Trial

# So many trials that all end with one error, and none without: the next would too.
ALIKE = 3

ReportTrial = Callable[[Trial], None]


def prepare_sweep(record: SweepRecord, *, resume: bool) -> Study:
    """The sweep's study and its folder, new or gone on with. Raises InputError where the folder is
    not as asked, or the storage does not answer.
    """
    folder, spec = record.folder, record.spec
    if resume:
        earlier = read(folder)
        if replace(earlier.spec, trials=0) != replace(spec, trials=0):
            raise InputError(
                f"{folder} is another sweep",
                "its recipe, options, space, goals or limits differ from those given now",
                "repeat the command that began it, or give --out another folder",
            )
        if earlier.storage != record.storage:
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
def hold_folder(record: SweepRecord) -> Iterator[None]:
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


def run_trials(
    record: SweepRecord,
    study: Study,
    executor: Executor,
    report: ReportTrial,
    notice: Callable[[str], None],
) -> None:
    """Run a sweep's trials until there are as many as it asks for; those begun before, again.

    report: is called with each that ends; notice: with what the user should know. Raises the
    WorkbenchError that ended the sweep: a full disk, a storage that is gone, or an error that every
    trial ends with.
    """
    with closing(Local(1, notice)) as measuring:
        _Sweep(record, study, executor, measuring, report).run()


class _Sweep:
    """measuring: where trials are finished that were made elsewhere, or must be measured alone."""

    def __init__(
        self,
        record: SweepRecord,
        study: Study,
        executor: Executor,
        measuring: Local,
        report: ReportTrial,
    ) -> None:
        self.record, self.study, self.report = record, study, report
        self.spec = record.spec.to_json()
        self.executor, self.measuring = executor, measuring
        _, plan = record.spec.request(())
        here = record.spec.timed and not all(device.remote for device in plan.devices)
        # What is made beside a measurement on this machine would be measured with it.
        self.alone = here and not executor.apart
        self.twice = here or not executor.finishes
        self.together = 2 * executor.jobs if self.alone else record.spec.trials
        self.began: dict[int, float] = {}
        self.settings: dict[int, tuple[str, ...]] = {}
        self.errors: list[str] = []
        self.good = 0

    def run(self) -> None:
        begun = self.study.trials()
        self.good = sum(trial.state == "done" for trial in begun)
        again, left = deque(self.study.unfinished()), self.record.spec.trials - len(begun)
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
                ready += [number for number, outcome in ended if self._to_measure(number, outcome)]
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
            self.executor.submit(number, "finish", *self._arguments(number))

    def _arguments(self, number: int) -> tuple[Any, ...]:
        return self.spec, self.settings[number], str(self.record.trial(number).resolve())

    def _to_measure(self, number: int, outcome: Any) -> bool:
        """Whether a trial that was made is to be measured still."""
        if self.twice and not isinstance(outcome, BaseException):
            return True
        self._end(number, outcome)
        return False

    def _measure(self, number: int) -> None:
        self.measuring.submit(number, "finish", *self._arguments(number))
        ((_, outcome),) = self.measuring.wait()
        self._end(number, outcome)

    def _end(self, number: int, outcome: Any) -> None:
        seconds = time.perf_counter() - self.began[number]
        if isinstance(outcome, DiskFullError) or (
            isinstance(outcome, BaseException) and not isinstance(outcome, WorkbenchError)
        ):
            raise outcome  # the trial stays begun: --resume runs it again
        if isinstance(outcome, WorkbenchError):
            trial = self.study.fail(number, outcome, seconds)
        else:
            trial = self.study.tell(number, outcome, seconds)
        self.report(trial)
        if trial.state == "done":
            self.good += 1
            return
        self.errors.append(trial.error)
        if not self.good and len(self.errors) >= ALIKE and len(set(self.errors)) == 1:
            raise outcome if isinstance(outcome, WorkbenchError) else InputError(trial.error)
