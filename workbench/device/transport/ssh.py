"""A machine over SSH, through the system's `ssh`: its agent, jump hosts and known hosts hold."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

from workbench.device.transport.base import Unreachable
from workbench.device.transport.shell import (
    PARTIAL,
    SHORT,
    Shell,
    beside,
    full,
    last_line,
    plain,
)  # fmt: skip
from workbench.errors import DeviceError, ProfileError

CONNECT = 10  # seconds for a connection
ALIVE, MISSES = 5, 3  # seconds between questions to a silent far side, and how many it may miss

# `cat` over the connection that is there already, and not scp: boards with dropbear often have no
# sftp-server, which scp needs. The size decides, for a cut stream ends like a whole one.
_PUSH = (
    'cat > "$1" && [ "$(wc -c < "$1")" -eq "$3" ] && mv -f -- "$1" "$2" '
    '|| { rm -f -- "$1"; exit 1; }'
)
# The size goes beside the content, where nothing that the far shell prints can get between.
_PULL = 'echo "wb-size:$(wc -c < "$1")" >&2 && cat < "$1"'

# What ssh says of a connection that failed: why, and what to do.
_SAID = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .*has changed",
        "its host key is another than the one known: another machine, or one set up anew",
        "where that is expected, remove the old key with 'ssh-keygen -R HOST' and connect once "
        "with 'ssh HOST'",
    ),
    (
        r"Host key verification failed|No .*host key is known",
        "its host key is not known here",
        "connect once by hand with 'ssh HOST', and compare the key before you accept it",
    ),
    (
        r"Permission denied|Too many authentication failures|No supported authentication",
        "it does not accept your key, and no password is asked for here",
        "make 'ssh HOST true' work without a password: ssh-copy-id, and ssh-add for a key with "
        "a passphrase",
    ),
    (
        r"Could not resolve hostname",
        "its name is not known",
        "correct host in the profile, or add it to ~/.ssh/config",
    ),
    (
        r"Connection refused",
        "no SSH server listens there",
        "start the server on it, or correct host and port in the profile",
    ),
    (
        r"timed out|Timeout, server|No route to host|Network is unreachable|Host is down",
        "it does not answer",
        "check that it is on and in reach, and host and port in the profile",
    ),
    (
        r"Bad configuration option|Bad owner or permissions|keyword .* extra arguments|Bad port",
        "ssh does not accept its own configuration",
        "correct ~/.ssh/config",
    ),
)
_BROKEN = r"Connection (to .* )?(closed|reset)|Broken pipe|kex_exchange|mux_client|Control socket"


class SshTransport(Shell):
    """A machine that the user's `ssh HOST` reaches without a question.

    host: as it is typed after ssh. options: more of them, before the host. program: the client.
    Raises ProfileError for a host that ssh would take for an option.
    """

    remedy = "install OpenSSH's client, such as Debian's package openssh-client"

    def __init__(
        self,
        name: str,
        host: str,
        port: int | None = None,
        *,
        options: tuple[str, ...] = (),
        program: str = "ssh",
    ) -> None:
        super().__init__(name, f"{host}:{port}" if port else host)
        if not host or host.startswith("-"):
            raise ProfileError(
                f"{name}: {host!r} is no host", "", "give it as you type it after ssh"
            )
        self.program = program
        self._host = host
        self._options = [*options, *(["-p", str(port)] if port else [])]
        self._folder: Path | None = None
        self._shut: weakref.finalize[[list[str], Path], SshTransport] | None = None

    def push(self, source: Path, target: str, timeout: float = 600) -> None:
        """Copy a file to a path on the device, whose folder exists: whole, or not at all."""
        label, target = f"copying {source.name}", plain(target)
        part = f"{target}{PARTIAL}"
        try:
            size = str(source.stat().st_size)
            done = self._script(
                _PUSH, part, target, size, label=label, timeout=timeout, stdin=source
            )
        except OSError as error:
            raise DeviceError(f"{label} failed", f"{source}: {error.strerror}") from error
        except DeviceError as error:
            self._tidy(["rm", "-f", "--", part], error)
            raise
        self._judge_copy(done.stderr, done.code, label, target)

    def pull(self, source: str, target: Path, timeout: float = 600) -> None:
        """Copy a file from the device: whole, or `target` is as it was."""
        label, source = f"copying {source.rsplit('/', 1)[-1]} from it", plain(source)
        script = f"set -- {shlex.quote(source)}; {_PULL}"
        try:
            with beside(target) as part:
                ended = self._client(self._far(script), timeout, label, stdout=part)
                size = re.search(r"wb-size:\s*(\d+)\s", ended.stderr_text)
                if ended.code > 127 or (ended.code == 0 and size is None):
                    self._raise_lost(ended, label)
                self._judge_copy(ended.stderr_text, ended.code, label, source)
                if size is None or part.stat().st_size != int(size[1]):
                    raise Unreachable(
                        f"{self.name}: {label} brought other bytes than the file's",
                        "the stream was cut, or the far shell prints something of its own",
                        "run again; its start-up files must print nothing without a terminal",
                    )
        except OSError as error:
            raise full("this machine", str(error)) or DeviceError(
                f"{self.name}: {label} failed", f"{error.filename or target}: {error.strerror}"
            ) from error

    def reconnect(self) -> None:
        """Try once to reach the device again, over a new connection."""
        self._leave()
        self._run(["true"], CONNECT + SHORT, "reconnecting")

    def close(self) -> None:
        """End the connection that calls share."""
        self._leave()

    def _far(self, script: str) -> list[str]:
        # The far user's shell may be any: `exec sh -c` is understood by all.
        return [*self._client_options(), "--", self._host, f"exec sh -c {shlex.quote(script)}"]

    def _client_options(self) -> list[str]:
        settings = (
            "BatchMode=yes",
            f"ConnectTimeout={CONNECT}",
            f"ServerAliveInterval={ALIVE}",
            f"ServerAliveCountMax={MISSES}",
            "ControlMaster=auto",
            f"ControlPath={self._socket()}",
            "ControlPersist=60",
            # A banner is no message of ours; what the user set for sessions at a terminal neither.
            "LogLevel=ERROR",
            "RemoteCommand=none",
            "ClearAllForwardings=yes",
            "EscapeChar=none",
        )
        return [self.program, "-T", *(f"-o{setting}" for setting in settings), *self._options]

    def _socket(self) -> Path:
        if self._folder is None:
            folder = Path(tempfile.mkdtemp(prefix="wb-ssh-"))
            # A socket's path has room for 108 bytes, and ssh appends 17 while it makes one.
            if len(str(folder)) > 80 or re.search(r"[^\w/.-]", str(folder), re.ASCII):
                folder.rmdir()
                folder = Path(tempfile.mkdtemp(prefix="wb-ssh-", dir="/tmp"))
            self._folder = folder
            leave = [*self._client_options(), "-O", "exit", "--", self._host]
            # Also where nobody closes it: the shared connection would stay for a minute.
            self._shut = weakref.finalize(self, _leave, leave, folder)
        return self._folder / "c"

    def _leave(self) -> None:
        if self._shut is not None:
            self._shut()
            self._folder = self._shut = None

    def _lost(self, text: str, label: str) -> Unreachable | None:
        for pattern, why, fix in _SAID:
            if re.search(pattern, text, re.IGNORECASE):
                reason = _excerpt(text, pattern)
                return Unreachable(
                    f"{self.name} cannot be reached at {self.address}",
                    f"{why} ({reason})",
                    fix.replace("HOST", self._typed()),
                )
        if re.search(_BROKEN, text, re.IGNORECASE):
            return Unreachable(
                f"the connection to {self.name} was lost while {label} ran",
                last_line(text),
                f"check that {self.address} is on and connected, and run again",
            )
        return None

    def _typed(self) -> str:
        return shlex.join([*self._options, self._host])


def _excerpt(text: str, pattern: str) -> str:
    lines = (line for line in text.splitlines() if re.search(pattern, line, re.IGNORECASE))
    return last_line(next(lines, text))


def _leave(argv: list[str], folder: Path) -> None:
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SHORT,
            start_new_session=True,
        )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
