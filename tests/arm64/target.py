"""Two real daemons of an arm64 root, in a network of their own: adbd and dropbear.

adbd listens on every interface and asks nobody's leave: it must not be on this machine's network.
`adb` and `ssh` that enter that network are written as wrappers; so both are used as they are.

proot does not know the system call statx, with which `ls` and `stat` then ask of this machine's
files: it is denied to the daemons, and qemu takes an older one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.device.transport import AdbTransport, SshTransport

# The default processor emulates what makes it eight times slower, and gives other outputs than the
# one that /proc/cpuinfo tells of. A word of the command: daemons clear their children's settings.
QEMU = "qemu-aarch64-static -cpu cortex-a72"
ADB_PORT, SSH_PORT = 15555, 20023  # adb takes 5555 to 5585 for emulators


def root() -> Path:
    """Where the root is, or would be."""
    given = os.environ.get("WB_ARM64_ROOT")
    return Path(given) if given else Path.home() / ".cache/workbench-tests/arm64"


def lacking() -> str:
    """Why the daemons cannot run here; '' where they can."""
    if not (root() / "usr/sbin/adbd").exists():
        return f"no arm64 root in {root()}: run tests/arm64/target.sh"
    programs = ("adb", "ssh", "ssh-keygen", "proot", "qemu-aarch64-static", "unshare", "nsenter")
    for one in programs:
        if shutil.which(one) is None:
            return f"{one} is missing: run tests/arm64/target.sh"
    tried = subprocess.run(["unshare", "-rnmpf", "true"], capture_output=True, check=False)
    return f"no namespaces here: {tried.stderr.decode().strip()}" if tried.returncode else ""


class Network:
    """A network, process and mount namespace that ends with this object's `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small = folder / "small"  # a disk of one megabyte, to be filled
        self.small.mkdir()
        script = (
            f"ip link set lo up && mount -t proc proc /proc && "
            f"mount -t tmpfs -o size=1m tmpfs {self.small} && echo up && exec sleep infinity"
        )
        # Its process here; the first process inside is its child.
        self._outer = subprocess.Popen(
            ["unshare", "-rnmpf", "--kill-child", "sh", "-c", script],
            stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == b"up\n"
        outer = self._outer.pid
        inner = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0]
        enter = ["nsenter", "--preserve-credentials", "-U", "-n", "-t", inner]
        self.inside = [*enter, "-m", "-p"]
        for name in ("adb", "ssh"):
            program = folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f'#!/bin/sh\nexec {shlex.join([*enter, shutil.which(name)])} "$@"\n')
            program.chmod(0o755)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._outer.pid, signal.SIGKILL)
        self._outer.wait()
        assert self._outer.stdout is not None
        self._outer.stdout.close()


class Daemon:
    """A daemon inside the root, which sees folders of its own where it writes.

    binds: folders of this machine by what they are in the root; /small is a disk of one megabyte.
    """

    def __init__(
        self, network: Network, port: int, argv: list[str], binds: dict[str, Path]
    ) -> None:
        self.network, self.port = network, port
        self.folders = binds
        base = root()
        binds = {**binds, "/small": network.small}
        for one in binds.values():
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        bound = [word for there, here in binds.items() for word in ("-b", f"{here}:{there}")]
        self._argv = [
            *network.inside, "proot", "-0", "-q", QEMU, "-r", str(base),
            "-b", "/dev", "-b", "/proc", "-b", f"{base}/etc/cpuinfo.arm64:/proc/cpuinfo", *bound,
            "-w", "/",
            "env", "PYTHONPATH=/opt/site", "ORT_DISABLE_TELEMETRY=1", f"ADBD_PORT={port}",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *argv,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self.network.folder / f"{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
                preexec_fn=_deny_statx,  # noqa: PLW1509
            )  # fmt: skip
        due = time.monotonic() + 20
        while not self._listens():
            assert time.monotonic() < due, f"the daemon does not listen: {log.name}"
            assert self._process.poll() is None, Path(log.name).read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and all that it runs, at once."""
        if self._process is not None:
            # From the top: a command that ended before its shell would be told as having failed.
            for pid in [self._process.pid, *_under(self._process.pid)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def running(self, text: str) -> bool:
        """Whether a process with that text in its command runs under it."""
        assert self._process is not None
        return any(text.encode() in _command(pid) for pid in _under(self._process.pid))

    def _listens(self) -> bool:
        said = subprocess.run(
            [*self.network.inside, "cat", "/proc/net/tcp", "/proc/net/tcp6"],
            capture_output=True, text=True, check=False,
        ).stdout  # fmt: skip
        return any(f":{self.port:04X} " in one and " 0A " in one for one in said.splitlines())


STATX = {"x86_64": 332, "aarch64": 291}
LIBC = ctypes.CDLL(None, use_errno=True)


def _deny_statx() -> None:
    """From here on, statx is a call that this kernel lacks."""
    number = STATX[os.uname().machine]
    steps = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x50026), (0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
    LIBC.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    LIBC.prctl(22, 2, program)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _under(pid: int) -> list[int]:
    """The processes under one, nearer ones first."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            rest = path.read_text().rpartition(")")[2].split()
            parents.setdefault(int(rest[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found[1:]


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@contextlib.contextmanager
def network() -> Iterator[Network]:
    # Not in pytest's folder: a user of another name's namespace needs a short and open path.
    folder = Path(tempfile.mkdtemp(prefix="wb-arm64-"))
    found = Network(folder)
    try:
        yield found
    finally:
        found.close()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Target:
    """A daemon and how to reach it. folder: the far folder for files, and where it is here."""

    kind: str
    daemon: Daemon
    programs: Path
    config: Path
    folder: str
    here: Path

    def transport(self, name: str = "board") -> AdbTransport | SshTransport:
        program = str(self.programs / self.kind)
        if self.kind == "adb":
            return AdbTransport(name, f"127.0.0.1:{ADB_PORT}", program=program)
        return SshTransport(name, "board", options=("-F", str(self.config)), program=program)


@contextlib.contextmanager
def adb_target(network: Network) -> Iterator[Target]:
    """adbd in the network, and an adb with a server of its own there."""
    folder = network.folder
    (folder / "tmp").mkdir()
    mine = {"ADB_VENDOR_KEYS": "", "HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    # Its server is in the network too, where 5037 is free.
    program = folder / "bin" / "adb"
    settings = " ".join(f"{key}='{value}'" for key, value in mine.items())
    program.write_text(program.read_text().replace("exec ", f"{settings} exec ", 1))
    binds = {"/data/local/tmp": folder / "data", "/tmp": folder / "adb-tmp"}
    daemon = Daemon(network, ADB_PORT, ["/usr/lib/android-sdk/platform-tools/adbd"], binds)
    daemon.start()
    found = Target(
        "adb", daemon, folder / "bin", folder / "none", "/data/local/tmp", binds["/data/local/tmp"]
    )
    try:
        found.transport().reconnect()
        yield found
    finally:
        subprocess.run([program, "kill-server"], capture_output=True, check=False, timeout=20)
        daemon.stop()


@contextlib.contextmanager
def ssh_target(network: Network) -> Iterator[Target]:
    """dropbear in the network; every host name is its own."""
    folder = network.folder
    home = folder / "home"
    binds = {"/root": home, "/etc/dropbear": folder / "hostkeys", "/tmp": folder / "ssh-tmp"}
    daemon = Daemon(
        network,
        SSH_PORT,
        ["dropbear", "-F", "-E", "-R", "-s", "-p", f"127.0.0.1:{SSH_PORT}"],
        binds,
    )
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    (home / ".ssh" / "authorized_keys").chmod(0o600)
    config = folder / "config"
    config.write_text(
        f"Host *\n  HostName 127.0.0.1\n  Port {SSH_PORT}\n  User root\n"
        f"  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        "  GlobalKnownHostsFile /dev/null\n"
    )
    daemon.start()
    try:
        first = ["-oBatchMode=yes", "-oStrictHostKeyChecking=accept-new", "board", "true"]
        subprocess.run(
            [folder / "bin/ssh", "-F", config, *first], check=True, timeout=60, capture_output=True
        )
        yield Target("ssh", daemon, folder / "bin", config, "/root", home)
    finally:
        daemon.stop()
