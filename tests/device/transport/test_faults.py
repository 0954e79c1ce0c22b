"""What adb and ssh do when they fail, with the stand-in: the error, and nothing left half done."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from tests.device.transport import standin
from workbench.device.transport import (
    AdbTransport,
    Attached,
    Interrupted,
    SshTransport,
    TimedOut,
    Unreachable,
    open_transport,
)  # fmt: skip
from workbench.device.transport.adb import attached, parse_devices
from workbench.errors import DependencyError, DeviceError, ProfileError

pytestmark = pytest.mark.process

ADB, SSH = "adb", "ssh"
FOLDER = {ADB: "/data/local/tmp", SSH: "."}


@pytest.fixture
def stand(tmp_path):
    return standin.install(tmp_path / "programs")


@pytest.fixture
def reach(stand):
    """A transport of a kind to the stand-in's device, named phone."""
    made = []

    def make(kind, **changes):
        if kind == ADB:
            made.append(AdbTransport("phone", **{"serial": "A1", "program": stand.adb, **changes}))
        else:
            made.append(SshTransport("phone", "board", **{"program": stand.ssh, **changes}))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "it's; a 'model'.onnx"
    path.write_bytes(bytes(range(256)) * 4000)
    return path


both = pytest.mark.parametrize("kind", [ADB, SSH])


@both
def test_commands_and_files_arrive(kind, reach, file, tmp_path, stand):
    far = reach(kind)
    done = far.run(
        ["sh", "-c", 'printf "%s|" "$@"; echo no >&2; exit 255', "sh", "a b", "$HOME", "-n"]
    )
    assert (done.code, done.stdout, done.stderr) == (255, "a b|$HOME|-n|", "no\n")
    target = f"{FOLDER[kind]}/x; 'y' $(id)\n.onnx"
    far.push(file, target)
    far.pull(target, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert len(stand.files()) == 1


FAULTS = [
    (ADB, "offline", "attach it anew"),
    (ADB, "unauthorized", "accept the prompt on its screen"),
    (ADB, "missing", "adb devices"),
    (ADB, "several", "set serial in its profile"),
    (ADB, "closed", "cable"),
    (ADB, "server", "adb start-server"),
    (ADB, "permissions", "udev"),
    (SSH, "refused", "start the server"),
    (SSH, "timeout", "does not answer"),
    (SSH, "key-changed", "ssh-keygen -R"),
    (SSH, "key-unknown", "compare the key"),
    (SSH, "denied", "ssh-copy-id"),
    (SSH, "unresolved", "correct host"),
]


@pytest.mark.parametrize("action", ["run", "push", "pull"])
@pytest.mark.parametrize(("kind", "fault", "advice"), FAULTS)
def test_a_device_that_cannot_be_reached(kind, fault, advice, action, reach, file, tmp_path, stand):
    far = reach(kind)
    (stand.root / "data/local/tmp/x").write_bytes(b"x" * 100)
    before = stand.files()
    stand.set({"kind": fault})
    with pytest.raises(Unreachable, match="phone") as caught:
        if action == "run":
            far.run(["true"])
        elif action == "push":
            far.push(file, f"{FOLDER[kind]}/y")
        else:
            far.pull("/data/local/tmp/x", tmp_path / "back")
    assert advice in str(caught.value)
    assert caught.value.fix
    assert stand.files() == before
    assert not (tmp_path / "back").exists()
    stand.set()
    far.reconnect()
    assert far.run(["true"]).code == 0


@both
@pytest.mark.parametrize("fault", ["lost", "half"])
def test_a_connection_lost_during_a_run(kind, fault, reach, stand):
    stand.set({"kind": fault, "on": "run", "nth": 2})
    far = reach(kind)
    assert far.run(["echo", "x"]).stdout == "x\n"
    with pytest.raises(Unreachable, match="lost while echo ran"):
        far.run(["echo", "x" * 100])
    assert far.run(["echo", "x"]).stdout == "x\n"


@both
def test_a_connection_lost_during_a_push(kind, reach, stand, file):
    stand.set({"kind": "lost", "on": "push"})
    with pytest.raises(Unreachable, match="phone"):
        reach(kind).push(file, f"{FOLDER[kind]}/x")
    whole = [one for one in stand.files() if not one.endswith(".part")]
    assert whole == []


def test_a_push_that_adb_cuts_in_silence_is_no_push(reach, stand, file):
    stand.set({"kind": "half", "on": "push"})
    with pytest.raises(DeviceError, match="phone"):
        reach(ADB).push(file, f"{FOLDER[ADB]}/x")
    assert stand.files() == []


@both
def test_a_connection_lost_during_a_pull(kind, reach, stand, file, tmp_path):
    far = reach(kind)
    far.push(file, f"{FOLDER[kind]}/x")
    stand.set({"kind": "lost", "on": "pull"})
    target = tmp_path / "there" / "x"
    target.parent.mkdir()
    target.write_text("before")
    with pytest.raises(Unreachable, match="phone"):
        far.pull(f"{FOLDER[kind]}/x", target)
    assert [one.name for one in target.parent.iterdir()] == ["x"]
    assert target.read_text() == "before"


@both
def test_a_full_device_says_so_and_keeps_nothing(kind, reach, stand, file):
    stand.set({"kind": "full", "on": "push"})
    with pytest.raises(DeviceError, match="phone is full") as caught:
        reach(kind).push(file, f"{FOLDER[kind]}/x")
    assert not isinstance(caught.value, Unreachable)
    assert "free some" in caught.value.fix
    assert stand.files() == []


@both
def test_what_is_not_there_is_no_lost_device(kind, reach, tmp_path, file):
    far = reach(kind)
    with pytest.raises(DeviceError) as caught:
        far.pull("/data/local/tmp/none", tmp_path / "back")
    assert not isinstance(caught.value, Unreachable)
    with pytest.raises(DeviceError) as caught:
        far.push(file, "/data/local/tmp/none/x")
    assert not isinstance(caught.value, Unreachable)
    with pytest.raises(DeviceError, match="No such file"):
        far.push(tmp_path / "none", "x")


def test_the_name_of_a_file_is_no_message(reach, tmp_path):
    with pytest.raises(DeviceError, match="phone") as caught:
        reach(ADB).pull("/data/local/tmp/device offline", tmp_path / "unauthorized")
    assert not isinstance(caught.value, Unreachable)


@both
def test_ctrl_c_leaves_nothing_that_runs(kind, reach, tmp_path):
    far = reach(kind)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.8)
    try:
        with pytest.raises(KeyboardInterrupt):
            far.run(["sh", "-c", f"sleep 2; touch {tmp_path}/late; sleep 1"])
    finally:
        signal.signal(signal.SIGALRM, before)
    far.resume()
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


@both
def test_junk_around_the_output_is_no_output(kind, reach, stand):
    stand.set({"kind": "garbage"})
    assert reach(kind).run(["echo", "x"]).stdout == "x\n"


def test_junk_in_a_file_is_noticed(reach, stand, file, tmp_path):
    far = reach(SSH)
    far.push(file, "x")
    stand.set({"kind": "garbage", "on": "pull"})
    with pytest.raises(DeviceError, match="phone"):
        far.pull("x", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@both
@pytest.mark.parametrize("action", ["run", "push", "pull"])
def test_a_call_that_hangs_takes_no_longer_than_it_may(kind, action, reach, stand, file, tmp_path):
    stand.set({"kind": "hang", "on": action, "nth": 1})
    far = reach(kind)
    start = time.monotonic()
    with pytest.raises(TimedOut, match=r"phone: .* took longer than 0\.6 s"):
        if action == "run":
            far.run(["true"], timeout=0.6)
        elif action == "push":
            far.push(file, f"{FOLDER[kind]}/x", timeout=0.6)
        else:
            far.pull("/data/local/tmp/x", tmp_path / "back", timeout=0.6)
    assert time.monotonic() - start < 4
    assert stand.files() == []


@both
def test_a_far_process_ends_with_its_time(kind, reach, tmp_path):
    far = reach(kind)
    script = f"echo $$ > {tmp_path}/pid; sleep 1.5; touch {tmp_path}/late; sleep 1"
    with pytest.raises(TimedOut):
        far.run(["sh", "-c", script], timeout=0.8)
    time.sleep(1.2)
    assert (tmp_path / "pid").exists()
    assert not (tmp_path / "late").exists()


@both
def test_an_interrupt_ends_the_far_process_when_commands_run_again(kind, reach, tmp_path):
    far = reach(kind)
    threading.Timer(0.6, far.interrupt).start()
    start = time.monotonic()
    with pytest.raises(Interrupted):
        far.run(["sh", "-c", f"sleep 2.5; touch {tmp_path}/late; sleep 1"])
    assert time.monotonic() - start < 0.6 + 0.5
    with pytest.raises(Interrupted):
        far.run(["true"])
    far.resume()
    assert far.run(["true"]).code == 0
    time.sleep(2)
    assert not (tmp_path / "late").exists()


def test_adb_without_a_serial_lists_what_it_could_mean(reach, stand):
    stand.set(
        devices=[
            {"serial": "A1", "state": "device", "model": "One"},
            {"serial": "B2", "state": "device", "model": "Two"},
        ]
    )
    with pytest.raises(Unreachable, match="A1, B2"):
        reach(ADB, serial=None).run(["true"])
    stand.set(devices=[])
    with pytest.raises(Unreachable, match="no such device"):
        reach(ADB, serial=None).run(["true"])
    assert reach(ADB, serial=None).attached() == []


def test_a_state_in_the_list_is_a_fault(reach, stand):
    stand.set(devices=[{"serial": "A1", "state": "unauthorized", "model": "One"}])
    assert attached(stand.adb) == [Attached("A1", "unauthorized", "One")]
    with pytest.raises(Unreachable, match="accept the prompt"):
        reach(ADB).run(["true"])


def test_a_device_that_falls_silent_ends_the_command(reach, stand, monkeypatch):
    from workbench.device.transport import adb, calls

    class Quick(calls.Beat):
        def __init__(self, ask):
            super().__init__(ask, every=0.3, limit=0.3)

    monkeypatch.setattr(adb, "Beat", Quick)
    stand.set({"kind": "hang", "on": "run", "match": "true"})
    with pytest.raises(Unreachable, match="phone does not answer"):
        reach(ADB).run(["sleep", "30"])


@pytest.mark.parametrize("kind", [ADB, SSH])
def test_a_missing_client_comes_with_its_package(kind, reach):
    with pytest.raises(DependencyError, match="install") as caught:
        reach(kind, program="/no/such/client").run(["true"])
    assert "phone" in str(caught.value)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", ""])
def test_a_host_is_no_option(host):
    with pytest.raises(ProfileError, match="is no host"):
        SshTransport("phone", host)


def test_ssh_gets_its_settings_and_leaves_nothing(reach, stand):
    far = reach(SSH, options=("-F", "/dev/null"), port=2222)
    far.run(["true"])
    far.close()
    first, last = stand.calls()[0], stand.calls()[-1]
    assert {"-oBatchMode=yes", "-oControlMaster=auto", "-p", "2222"} <= set(first)
    assert not any("StrictHostKeyChecking" in word for word in first)
    assert first[-3:-1] == ["--", "board"]
    assert last[-4:] == ["-O", "exit", "--", "board"]
    path = next(word for word in first if word.startswith("-oControlPath=")).partition("=")[2]
    assert len(path) < 100
    from pathlib import Path

    assert not Path(path).parent.exists()


def test_a_list_of_devices_as_adb_prints_it():
    said = (
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
        "List of devices attached\n"
        "39V4C19  device usb:1-4 product:blueline model:Pixel_3 device:blueline transport_id:2\n"
        "127.0.0.1:15555        offline transport_id:1\n"
        "8XV7N15  no permissions (user in plugdev group; are your udev rules wrong?); see "
        "[http://developer.android.com/tools/device.html] usb:1-1 transport_id:3\n"
        "(no serial number)     unauthorized usb:1-2\n\n"
    )
    assert parse_devices(said) == [
        Attached("39V4C19", "device", "Pixel 3"),
        Attached("127.0.0.1:15555", "offline"),
        Attached("8XV7N15", "no permissions"),
        Attached("(no serial number)", "unauthorized"),
    ]


def test_an_address_is_connected_anew(reach, stand):
    stand.set(devices=[{"serial": "10.0.0.2:5555", "state": "device", "model": "M"}])
    far = reach(ADB, serial="10.0.0.2:5555")
    far.reconnect()
    assert ["adb", "connect", "10.0.0.2:5555"] in stand.calls()


def test_transports_by_kind():
    assert open_transport("local", "a").name == "a"
    assert isinstance(open_transport("adb", "a", serial="x"), AdbTransport)
    assert isinstance(open_transport("ssh", "a", host="x", port=3), SshTransport)
    with pytest.raises(ProfileError, match="no transport 'usb'"):
        open_transport("usb", "a")
