"""Worker processes: jobs run in a process of their own, so that a crash costs a job, not the run.

The two ends speak length-prefixed pickles over pipes that only they hold. A worker ends when its
input closes, so none outlives a parent that was killed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any

from workbench.errors import CrashError, StepError, unpack
from workbench.progress import Progress

HEADER = struct.Struct("<Q")

# Every job by name, as `module:function`: a worker imports what it is asked for and nothing else.
JOBS = {
    "warm": "workbench.jobs.loaded:warm",
    "describe_dataset": "workbench.jobs.description:describe_dataset",
    "describe_model": "workbench.jobs.description:describe_model",
    "step": "workbench.jobs.step:run_step",
    "release": "workbench.jobs.loaded:release",
    "open": "workbench.jobs.inference:open_target",
    "infer": "workbench.jobs.inference:infer_batch",
    "drop": "workbench.jobs.inference:drop_target",
    "latency": "workbench.jobs.timing:measure_latency",
    "layers": "workbench.measure.divergence:layers",
    "placement": "workbench.device.placement:find_placement",
    "provider": "workbench.device.provider_check:start",
    "probe": "workbench.measure.robustness:probe",
    "saved_model": "workbench.tflite.tensorflow_jobs:make_saved_model",
    "flatbuffer": "workbench.tflite.tensorflow_jobs:make_flatbuffer",
    "trial_make": "workbench.sweep.trial:make",
    "trial_finish": "workbench.sweep.trial:finish",
    "inspect": "workbench.inspect.guarded:inspect_file",
    "xnnpack": "workbench.inspect.guarded:delegate_file",
}

_alive: weakref.WeakSet[Worker] = weakref.WeakSet()


def packed(message: Any) -> bytes:
    """A message as it travels; one that goes to several workers is packed once."""
    return pickle.dumps(message, protocol=5)


def send(stream: IO[bytes], message: Any) -> None:
    """Write a message to the other end."""
    send_packed(stream, packed(message))


def send_packed(stream: IO[bytes], payload: bytes) -> None:
    """Write a message that `packed` made."""
    stream.write(HEADER.pack(len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """The next message. Raises EOFError where the other end is gone."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    # The other end is our own process, on a pipe that nothing else holds.
    return pickle.loads(payload)  # noqa: S301


class Worker:
    """A child process that runs jobs one after another, keeping what they imported and loaded.

    Whatever libraries print goes to `log`, whose end is quoted when the process dies. settings:
    environment variables beside `_settings`.
    """

    def __init__(self, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        # A real file, not a pipe: a worker that prints much must never block on it.
        self._log = tempfile.NamedTemporaryFile(prefix="wb-log-", suffix=".txt", delete=False)  # noqa: SIM115
        self.log = Path(self._log.name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workbench.jobs.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Out of the terminal's foreground group: Ctrl-C reaches the parent, which cleans up.
            start_new_session=True,
            env={**os.environ, **_settings(), **settings},
        )
        self.jobs: set[str] = set()
        self._kept = False
        _alive.add(self)
        for stream in (self._process.stdin, self._process.stdout):
            _widen(stream)

    def call(self, job: str, *arguments: Any, progress: Progress | None = None) -> Any:
        """A job's result. Raises the WorkbenchError that it raised, or CrashError."""
        self.start(job, *arguments)
        return self.result(progress)

    def start(self, job: str, *arguments: Any) -> None:
        """Begin a job without waiting for it."""
        self.start_packed(job, packed((job, arguments)))

    def start_packed(self, job: str, payload: bytes) -> None:
        """`start` with a request that `packed` made, for one that several workers get."""
        assert self._process.stdin is not None
        self.jobs.add(job)
        try:
            send_packed(self._process.stdin, payload)
        except (BrokenPipeError, OSError) as error:
            raise self._crashed() from error

    def result(self, progress: Progress | None = None) -> Any:
        """Wait for the job that `start` began."""
        assert self._process.stdout is not None
        while True:
            try:
                kind, value = receive(self._process.stdout)
            except EOFError as error:
                raise self._crashed() from error
            if kind == "progress":
                if progress is not None:
                    progress(*value)
            elif kind == "result":
                return value
            elif kind == "error":
                raise unpack(value)
            else:
                raise StepError(
                    f"unexpected {value[0]}", value[1], f"the whole log: {self._keep()}"
                )

    def _crashed(self) -> CrashError:
        code = self._process.wait(timeout=30)
        if code < 0:
            try:
                ending = f"signal {signal.Signals(-code).name}"
            except ValueError:
                ending = f"signal {-code}"
            if -code == signal.SIGKILL:
                ending += ", as the kernel does when memory runs out"
        else:
            ending = f"exit code {code}"
        tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        last_words = f"; it last said: {' | '.join(tail)}" if tail else ""
        return CrashError("a worker process died", f"{ending}{last_words}")

    def _keep(self) -> Path:
        self._kept = True
        return self.log

    def close(self) -> None:
        """End the process at once, whatever it is doing, and everything it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        if not self._kept:
            self.log.unlink(missing_ok=True)
        _alive.discard(self)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def close_all() -> None:
    """End every worker of this process: on Ctrl-C, and on the way out."""
    for worker in list(_alive):
        worker.close()


def _settings() -> dict[str, str]:
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "PYTHONWARNINGS": "ignore",
        # glibc gives large blocks back to the system and asks for them anew: PyTorch eager, which
        # has no arena of its own, then spends most of a small network's time in page faults, and a
        # speed-up over it says more of the allocator than of the runtime. Keep what was taken.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    }


def _widen(stream: IO[bytes] | None) -> None:
    """A larger pipe, where the system has them: batches of images pass in fewer pieces."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if stream is not None:
            fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)
