"""What transports over a far shell share: commands that arrive as they are, and honest exit codes.

The exit code of `ssh` or `adb shell` may be the client's own. A far command is therefore followed
by a line with its code, and preceded by one with the shell's process: without the last line the
connection was lost, whatever the client's code.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from workbench.device.transport.base import Done, Interrupted, Unreachable, quote_command
from workbench.device.transport.calls import Beat, Calls, Ended
from workbench.errors import DependencyError, DeviceError

MARK = "wb-far"
PARTIAL = ".part"  # of a file that is not whole yet
SHORT = 10.0  # seconds that a small thing on a device may take

# Ends a far shell and all under it. It is known by a word in its command, for its number may be
# another's by now. All numbers are found before any is ended: orphans lose their parent.
_END = r"""
grep -q "$2" /proc/$1/cmdline 2>/dev/null || exit 0
tree=$(for s in /proc/[0-9]*/stat; do
  { read -r l < $s; } 2>/dev/null || continue
  r=${l##*) }; r=${r#* }; echo "${l%% *} ${r%% *}"
done)
all=" $1 "
for round in 1 2 3 4 5; do
  while read -r pid parent; do
    case $all in *" $pid "*) continue;; esac
    case $all in *" $parent "*) all="$all$pid ";; esac
  done <<EOT
$tree
EOT
done
kill -9 $all
"""


def wrap_command(argv: Sequence[str], nonce: str) -> str:
    """A command as a line for a far POSIX shell, between the lines that tell how it went."""
    # In quotes the first word is no keyword, assignment or alias; in parentheses `exit` and the
    # like end a shell of their own.
    program = quote_command(argv[:1])
    if program == argv[0]:
        program = f"'{program}'"
    line = f"{program} {quote_command(argv[1:])}"
    return (
        f"printf '{MARK}:%s:begin:%d\\n' {nonce} $$; ({line}); "
        f"printf '\\n{MARK}:%s:%d\\n' {nonce} $?"
    )


def unwrap_output(stdout: bytes, nonce: str) -> tuple[bytes, int] | None:
    """What a wrapped command wrote, and its exit code; None where it did not come to its end."""
    mark = re.escape(f"{MARK}:{nonce}:".encode())
    begin = re.search(mark + rb"begin:\d+(\r?\n)", stdout)
    if begin is None:
        return None
    after, line = stdout[begin.end() :], begin[1]  # old adb ends lines with two characters
    ends = list(re.finditer(line + mark + rb"(\d+)" + line, after))
    return (after[: ends[-1].start()], int(ends[-1][1])) if ends else None


class Shell:
    """A transport over the system's client of a far shell. Subclasses say how to call it.

    Attributes:
        address: of the device, for messages.
        program: the client.
        remedy: how to get it.
    """

    program: str
    remedy: str

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self._calls = Calls(name)
        self._left: list[list[str]] = []  # commands that tidy up after an interrupt

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        """Run a program on the device and wait for it; its exit code is not judged here."""
        return self._run(argv, timeout, label=_label(argv))

    def reconnect(self) -> None:
        """Try to reach the device anew."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """End what runs now, from another thread: its caller gets Interrupted."""
        self._calls.interrupt()

    def resume(self) -> None:
        """Allow commands again after `interrupt`, and end what it left running on the device."""
        self._calls.resume()
        left, self._left = self._left, []
        for command in left:
            self._quietly(command)

    def close(self) -> None:
        """Leave the device."""

    def _far(self, script: str) -> list[str]:
        """The client's command that has a far shell run a script."""
        raise NotImplementedError

    def _lost(self, text: str, label: str) -> Unreachable | None:
        """What the client's own message says of the connection; None where it says nothing."""
        raise NotImplementedError

    def _diagnose(self) -> str:
        """What the client says of the device, asked again."""
        return ""

    def _beat(self) -> Beat | None:
        return None

    def _run(
        self, argv: Sequence[str], timeout: float, label: str, stdin: Path | None = None
    ) -> Done:
        nonce, out = secrets.token_hex(8), bytearray()
        try:
            ended = self._client(
                self._far(wrap_command(argv, nonce)), timeout, label,
                stdin=stdin, into=out, beat=self._beat(),
            )  # fmt: skip
        except BaseException as error:
            self._abandon(out, nonce, error)
            raise
        answer = unwrap_output(ended.stdout, nonce)
        if answer is None:
            self._raise_lost(ended, label)
        return Done(answer[1], answer[0].decode(errors="replace"), ended.stderr_text)

    def _client(
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
        """Run the client. Raises DependencyError where this machine has none."""
        try:
            return self._calls.call(
                argv, timeout, label, stdin=stdin, stdout=stdout, into=into, beat=beat
            )
        except (FileNotFoundError, PermissionError) as error:
            if error.filename != argv[0]:
                raise
            raise DependencyError(
                f"{self.name} is reached with {self.program}, which does not start here",
                f"{argv[0]}: {error.strerror}",
                self.remedy,
            ) from error

    def _raise_lost(self, ended: Ended, label: str) -> NoReturn:
        lost = self._lost(ended.stderr_text, label) or self._lost(self._diagnose(), label)
        if lost is not None:
            raise lost
        raise Unreachable(
            f"the connection to {self.name} was lost while {label} ran",
            last_line(ended.stderr_text) or f"{self.program} ended with code {ended.code}",
            f"check that {self.address} is on and connected, and run again",
        )

    def _abandon(self, out: bytearray, nonce: str, error: BaseException) -> None:
        """End on the device what was given up here."""
        begin = re.search(rf"{MARK}:{nonce}:begin:(\d+)".encode(), out)
        if begin is not None:
            self._tidy(["sh", "-c", _END, "sh", begin[1].decode(), nonce], error)

    def _tidy(self, command: list[str], error: BaseException) -> None:
        """Tidy up on the device after an error: at once, or when commands may run again."""
        if isinstance(error, Interrupted) or not isinstance(error, DeviceError):
            self._left.append(command)  # the user ended it, and waits for nothing now
        elif not isinstance(error, Unreachable):
            self._quietly(command)

    def _quietly(self, command: list[str]) -> None:
        # Best effort: what cannot be reached now has a limit of its own.
        with contextlib.suppress(DeviceError, DependencyError, OSError):
            script = wrap_command(command, secrets.token_hex(8))
            self._calls.call(self._far(script), SHORT, "tidying up")

    def _script(
        self,
        text: str,
        *arguments: str,
        label: str,
        timeout: float = SHORT,
        stdin: Path | None = None,
    ) -> Done:
        return self._run(["sh", "-c", text, "sh", *arguments], timeout, label, stdin)

    def _judge_copy(self, text: str, code: int, label: str, path: str) -> None:
        """Raise DeviceError for a copy that failed on a device that is still there."""
        if code == 0:
            return
        raise full(self.name, text) or DeviceError(
            f"{self.name}: {label} failed",
            last_line(text) or f"exit code {code}",
            _advice(text, path),
        )


def full(name: str, text: str) -> DeviceError | None:
    """The error of a device without room, where that is what was said."""
    if re.search(r"no space left|quota exceeded|ENOSPC", text, re.IGNORECASE) is None:
        return None
    return DeviceError(
        f"{name} is full",
        last_line(text),
        "free some of its storage, or set folder in its profile to one with room",
    )


def last_line(text: str) -> str:
    """The last line of what a program said, fit for a message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", lines[-1])[:200] if lines else ""


def plain(path: str) -> str:
    """A far path that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """A name beside `target`, which it becomes when the block ends well, and is gone otherwise."""
    part = target.with_name(f".{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _label(argv: Sequence[str]) -> str:
    """A command's name for a message: of a script no more than that it is one."""
    name = argv[0].rsplit("/", 1)[-1]
    return "a script" if name == "sh" else re.sub(r"[^\x20-\x7e]", "?", name)[:60]


def _advice(text: str, path: str) -> str:
    if re.search(r"permission denied|read-only", text, re.IGNORECASE):
        return f"{path}: choose a folder that the device lets you write, as its profile's folder"
    return ""
