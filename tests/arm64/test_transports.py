"""The transports over AOSP's adbd and dropbear on arm64, daemons that die included."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.device.transport.test_shell import NASTY, words
from workbench.device.transport import Interrupted, TimedOut, Unreachable
from workbench.device.transport.adb import AdbTransport
from workbench.device.transport.store import Store
from workbench.errors import DeviceError

pytestmark = [pytest.mark.arm64, pytest.mark.process]


def reached(target):
    found = target.transport()
    if isinstance(found, AdbTransport):
        found.reconnect()
    return found


@pytest.fixture(scope="module")
def kept():
    """A transport of each kind, for tests that leave it as it was: to connect takes a second."""
    transports = {}
    yield transports
    for one in transports.values():
        one.close()


@pytest.fixture
def far(any_target, kept):
    if any_target.kind not in kept:
        kept[any_target.kind] = reached(any_target)
    return kept[any_target.kind]


@pytest.fixture
def own(any_target):
    """A transport of the test's own, which it may interrupt, or lose."""
    found = reached(any_target)
    yield found
    found.resume()
    found.close()


def large(path, megabytes=40):
    path.write_bytes(bytes(range(256)) * 4096 * megabytes)
    return path


def test_it_is_another_machine(far):
    assert far.run(["uname", "-m"]).stdout == "aarch64\n"


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 255])
def test_exit_codes(far, code):
    assert far.run(["sh", "-c", f"exit {code}"]).code == code


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("SEGV", 139), ("ALRM", 142)])
def test_signals(far, name, code):
    assert far.run(["sh", "-c", f"kill -{name} $$"]).code == code


def test_it_sees_its_own_files(far, any_target):
    script = (
        'cd "$1" && echo a > a && echo b > b && touch -d @9 b && ls -t a b && stat -c %s a; rm a b'
    )
    assert far.run(["sh", "-c", script, "sh", any_target.folder]).stdout == "a\nb\n2\n"


def test_a_program_that_is_not_there(far):
    assert far.run(["/no/such/program"]).code == 127


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(words | st.sampled_from(NASTY), max_size=6))
def test_arguments_arrive_as_they_are(far, arguments):
    done = far.run(["printf", "%s\\0", *NASTY, *arguments])
    assert done.stdout == "".join(f"{one}\0" for one in [*NASTY, *arguments])
    assert done.code == 0


def test_outputs_are_apart_and_large(far):
    done = far.run(["sh", "-c", "head -c 5000000 /dev/zero; echo no >&2"])
    assert (len(done.stdout), done.stderr) == (5_000_000, "no\n")


@pytest.mark.parametrize("name", [one for one in NASTY if one and one not in ("--",)])
def test_files_of_any_name(far, any_target, tmp_path, name):
    source = tmp_path / "source"
    source.write_bytes(b"\0\r\n\xff" * 70_000 + name.encode())
    path = f"{any_target.folder}/x{name}"
    far.push(source, path)
    assert (any_target.here / f"x{name}").read_bytes() == source.read_bytes()
    far.pull(path, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_a_store(far, any_target, tmp_path):
    paths = []
    for place, name in enumerate(["; rm -rf $HOME .onnx", "-x.so", "a\nb.tflite"]):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(bytes([place]) * 100_000)
    store = Store(far, f"{any_target.folder}/store", 10**9)
    there = store.put_all(paths)
    assert Store(far, f"{any_target.folder}/store", 10**9).put_all(paths) == there
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho $(( $1 + 1 ))\n")
    assert far.run([store.put(program, executable=True), "41"]).stdout == "42\n"
    with store.scratch() as folder:
        (private,) = (any_target.here / "store/scratch").iterdir()
        assert private.name == folder.rpartition("/")[2]
        assert private.stat().st_mode & 0o777 == 0o700
    assert not private.exists()
    Store(far, f"{any_target.folder}/store", 150_000).put(paths[0])
    smaller = Store(far, f"{any_target.folder}/store", 150_000)
    (tmp_path / "new").write_bytes(b"n" * 90_000)
    new = smaller.put(tmp_path / "new")
    assert [one.name for one in (any_target.here / "store/objects").iterdir()] == [Path(new).name]


def test_a_folder_that_cannot_be(far, tmp_path):
    # adbd makes folders that are absent; under a file it cannot.
    (tmp_path / "x").write_text("x")
    with pytest.raises(DeviceError) as caught:
        far.push(tmp_path / "x", "/etc/passwd/x")
    assert not isinstance(caught.value, Unreachable)
    with pytest.raises(DeviceError) as caught:
        far.pull("/no/such/file", tmp_path / "y")
    assert not isinstance(caught.value, Unreachable)
    assert not (tmp_path / "y").exists()


def test_a_full_disk(far, tmp_path):
    with pytest.raises(DeviceError, match="board is full") as caught:
        far.push(large(tmp_path / "large", 3), "/small/large")
    assert "free some" in caught.value.fix
    assert far.run(["find", "/small", "-type", "f"]).stdout == ""
    with pytest.raises(DeviceError, match="board is full"):
        Store(far, "/small/store", 10**9).put(tmp_path / "large")
    assert far.run(["find", "/small", "-type", "f"]).stdout == ""
    far.run(["rm", "-r", "/small/store"])


def test_a_time_out_ends_the_far_process(own, any_target):
    with pytest.raises(TimedOut):
        own.run(["sh", "-c", "sleep 54321; true"], timeout=1.5)
    time.sleep(0.5)
    assert not any_target.daemon.running("54321")


def test_an_interrupt_ends_the_far_process_later(own, any_target):
    threading.Timer(1.5, own.interrupt).start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        own.run(["sh", "-c", "sleep 54322; true"])
    assert time.monotonic() - start < 2.2
    own.resume()
    time.sleep(0.5)
    assert not any_target.daemon.running("54322")


@pytest.mark.parametrize("action", ["run", "push", "pull"])
def test_a_daemon_that_dies(own, any_target, tmp_path, action):
    source = large(tmp_path / "large")
    path = f"{any_target.folder}/large"
    if action == "pull":
        own.push(source, path)
    else:
        own.run(["rm", "-f", path])
    threading.Timer(0.35 if action != "run" else 1, any_target.daemon.stop).start()
    with pytest.raises(Unreachable, match="board") as caught:
        for _ in range(100):
            if action == "run":
                own.run(["sleep", "30"])
            elif action == "push":
                own.push(source, path)
                own.run(["rm", "-f", path])
            else:
                own.pull(path, tmp_path / "back")
                (tmp_path / "back").unlink()
    assert caught.value.fix
    assert not (tmp_path / "back").exists()
    assert [one.name for one in tmp_path.iterdir()] == ["large"]
    while any_target.daemon._process is not None:
        time.sleep(0.05)
    arrived = any_target.here / "large"
    assert not arrived.exists() or arrived.stat().st_size == source.stat().st_size
    with pytest.raises(Unreachable, match="board"):
        own.reconnect()
    any_target.daemon.start()
    own.reconnect()
    assert own.run(["echo", "again"]).stdout == "again\n"


def test_two_at_once(adb_target, ssh_target):
    adb_target.transport().reconnect()
    found = {}

    def ask(one):
        far = one.transport(one.kind)
        found[one.kind] = [far.run(["echo", one.kind, str(i)]).stdout for i in range(8)]
        far.close()

    threads = [threading.Thread(target=ask, args=(one,)) for one in (adb_target, ssh_target)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {kind: [f"{kind} {i}\n" for i in range(8)] for kind in ("adb", "ssh")}


def test_adb_lists_it(adb_target):
    far = adb_target.transport()
    far.reconnect()
    assert [(one.serial, one.state) for one in far.attached()] == [("127.0.0.1:15555", "device")]


def test_an_unknown_key_is_refused(ssh_target, tmp_path):
    from workbench.device.transport import SshTransport

    config = tmp_path / "config"
    config.write_text(ssh_target.config.read_text().replace("/known\n", "/none\n"))
    program = str(ssh_target.programs / "ssh")
    far = SshTransport("board", "board", options=("-F", str(config)), program=program)
    with pytest.raises(Unreachable, match="not known here"):
        far.run(["true"])
    far.close()
    config.write_text(ssh_target.config.read_text().replace("/key\n", "/nokey\n"))
    far = SshTransport("board", "board", options=("-F", str(config)), program=program)
    with pytest.raises(Unreachable, match="ssh-copy-id"):
        far.run(["true"])
    far.close()
