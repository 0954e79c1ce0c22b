"""An arm64 machine behind real daemons; without its root these tests are skipped.

`adb_target` and `ssh_target` give one each: transports with `transport()`, and the daemon, which
tests may stop and start.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.arm64 import target
from workbench.device.transport import AdbTransport, SshTransport


@dataclass
class Target:
    """A daemon and how to reach it. folder: the far folder for files, and where it is here."""

    kind: str
    daemon: target.Daemon
    programs: Path
    config: Path
    folder: str
    here: Path

    def transport(self, name: str = "board") -> AdbTransport | SshTransport:
        program = str(self.programs / self.kind)
        if self.kind == "adb":
            return AdbTransport(name, f"127.0.0.1:{target.ADB_PORT}", program=program)
        return SshTransport(name, "board", options=("-F", str(self.config)), program=program)


@pytest.fixture(scope="session")
def arm64_root() -> Path:
    """The arm64 root; the test is skipped where it cannot be used."""
    why = target.lacking()
    if why:
        pytest.skip(why)
    return target.root()


@pytest.fixture(scope="session")
def arm64_network(arm64_root) -> Iterator[target.Network]:
    # Not in pytest's folder: a user of another name's namespace needs a short and open path.
    folder = Path(tempfile.mkdtemp(prefix="wb-arm64-"))
    network = target.Network(folder)
    try:
        yield network
    finally:
        network.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def adb_target(arm64_network) -> Iterator[Target]:
    folder = arm64_network.folder
    (folder / "tmp").mkdir()
    mine = {"ADB_VENDOR_KEYS": "", "HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    # Its server is in the network too, where 5037 is free.
    program = folder / "bin" / "adb"
    settings = " ".join(f"{key}='{value}'" for key, value in mine.items())
    program.write_text(program.read_text().replace("exec ", f"{settings} exec ", 1))
    binds = {"/data/local/tmp": folder / "data", "/tmp": folder / "adb-tmp"}
    daemon = target.Daemon(
        arm64_network, target.ADB_PORT, ["/usr/lib/android-sdk/platform-tools/adbd"], binds
    )
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


@pytest.fixture(scope="session")
def ssh_target(arm64_network) -> Iterator[Target]:
    folder = arm64_network.folder
    home = folder / "home"
    binds = {"/root": home, "/etc/dropbear": folder / "hostkeys", "/tmp": folder / "ssh-tmp"}
    daemon = target.Daemon(
        arm64_network,
        target.SSH_PORT,
        ["dropbear", "-F", "-E", "-R", "-s", "-p", f"127.0.0.1:{target.SSH_PORT}"],
        binds,
    )
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    (home / ".ssh" / "authorized_keys").chmod(0o600)
    config = folder / "config"
    config.write_text(
        f"Host *\n  HostName 127.0.0.1\n  Port {target.SSH_PORT}\n  User root\n"
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


@pytest.fixture(params=["adb", "ssh"])
def any_target(request) -> Target:
    """Each of the two; its daemon runs again after a test that stopped it."""
    found: Target = request.getfixturevalue(f"{request.param}_target")
    yield found
    if found.daemon._process is None:
        found.daemon.start()
