"""Programs of this machine as child processes that another thread can end: what transports call."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from workbench.device.transport.base import Interrupted, TimedOut, Unreachable
from workbench.errors import DeviceError

TICK = 0.1  # seconds until an interrupt is seen
LARGEST = 64 << 20  # bytes of stdout that are kept in memory
STDERR = 1 << 20  # bytes of stderr of which the end is kept


@dataclass(frozen=True)
class Ended:
    """A child process that ended.

    Attributes:
        code: as a POSIX shell counts, 128 + n for signal n.
    """

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def stderr_text(self) -> str:
        """What the process wrote to stderr."""
        return self.stderr.decode(errors="replace")


@dataclass
class Beat:
    """Asks every few seconds whether a device still answers, beside a command that takes long.

    Attributes:
        ask: a command of this machine that succeeds while it does.
    """

    ask: Sequence[str]
    every: float = 10.0
    limit: float = 5.0  # seconds that an answer may take

    misses = 0

    def __post_init__(self) -> None:
        self._asked: subprocess.Popen[bytes] | None = None
        self._since = time.monotonic()

    def lost(self) -> bool:
        """Whether two questions in a row got no answer. Never waits."""
        now = time.monotonic()
        if self._asked is None:
            if now - self._since >= self.every:
                self._asked, self._since = _start(self.ask, subprocess.DEVNULL), now
            return False
        code = self._asked.poll()
        if code is None and now - self._since < self.limit:
            return False
        self.close()
        self._since = now
        self.misses = 0 if code == 0 else self.misses + 1
        return self.misses >= 2

    def close(self) -> None:
        """End the question that has no answer yet."""
        if self._asked is not None:
            _end(self._asked)
            self._asked = None


class Calls:
    """The child processes of one transport, one at a time. name: the device's, for messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._stopped = threading.Event()

    def interrupt(self) -> None:
        """End the process that runs, and let none start until `resume`."""
        self._stopped.set()

    def resume(self) -> None:
        """Let processes start again."""
        self._stopped.clear()

    def check(self) -> None:
        """Raises Interrupted where nothing may run."""
        if self._stopped.is_set():
            raise Interrupted(f"{self.name}: interrupted")

    def call(
        self,
        argv: Sequence[str],
        timeout: float,
        label: str,
        *,
        stdin: Path | None = None,
        stdout: Path | None = None,
        into: bytearray | None = None,
        beat: Beat | None = None,
    ) -> Ended:
        """Run a program to its end. stdin, stdout: files in place of nothing and of memory.

        into: gets stdout while it comes, for whoever needs what came before an error. Raises
        TimedOut, Interrupted, Unreachable as the beat has it, DeviceError for too much output, and
        FileNotFoundError or PermissionError where the program does not start.
        """
        self.check()
        out, err = bytearray() if into is None else into, bytearray()
        with contextlib.ExitStack() as stack:
            source = subprocess.DEVNULL if stdin is None else stack.enter_context(stdin.open("rb"))
            sink = subprocess.PIPE if stdout is None else stack.enter_context(stdout.open("wb"))
            child = _start(argv, source, sink, subprocess.PIPE)
            stack.callback(_end, child)
            if beat is not None:
                stack.callback(beat.close)
            due = time.monotonic() + timeout

            def check() -> None:
                self.check()
                if len(out) > LARGEST:
                    raise DeviceError(
                        f"{self.name}: {label} wrote more than {LARGEST >> 20} MB",
                        "its standard output is kept in memory",
                        "let it write to a file",
                    )
                if time.monotonic() > due:
                    raise TimedOut(
                        f"{self.name}: {label} took longer than {timeout:g} s",
                        "",
                        "give it more time, or see what keeps the device busy",
                    )
                if beat is not None and beat.lost():
                    raise Unreachable(
                        f"{self.name} does not answer any more",
                        f"it was silent twice while {label} ran",
                        "check its cable or network, wake it, and run again",
                    )

            _drain(child, out, err, check)
            return Ended(shell_code(child.returncode), bytes(out), bytes(err))


def shell_code(code: int) -> int:
    """An exit code of `subprocess` as a POSIX shell counts it."""
    return 128 - code if code < 0 else code


def _start(
    argv: Sequence[str],
    stdin: int | IO[bytes],
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        # Out of the terminal's foreground group: Ctrl-C reaches wb alone, which cleans up.
        start_new_session=True,
        # What clients say is matched against their English texts.
        env={**os.environ, "LC_ALL": "C"},
    )


def _drain(
    child: subprocess.Popen[bytes], out: bytearray, err: bytearray, check: Callable[[], None]
) -> None:
    with selectors.DefaultSelector() as selector:
        for stream, kept in ((child.stdout, out), (child.stderr, err)):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ, kept)
        while True:
            # The end of the process decides, not the end of its output: adb's server and ssh's
            # master, which clients start, may hold the pipes for as long as they live.
            ended = child.poll() is not None
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(TICK)
            came = False
            for key, _ in selector.select(0 if ended or not selector.get_map() else TICK):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                came = True
                key.data.extend(data)
                if key.data is err and len(err) > 2 * STDERR:
                    del err[:-STDERR]
            if ended and not came:
                return
            check()


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, where it still runs."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
