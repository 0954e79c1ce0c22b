"""Files on a device: once, whole, the least used going first; private folders that go again."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest

from tests.device.transport import standin
from workbench.device.transport import (
    AdbTransport,
    Interrupted,
    LocalTransport,
    SshTransport,
    Unreachable,
)  # fmt: skip
from workbench.device.transport.store import Store
from workbench.errors import DeviceError

pytestmark = pytest.mark.process

KINDS = ["local", "adb", "ssh"]


@pytest.fixture
def stand(tmp_path):
    return standin.install(tmp_path / "programs")


@pytest.fixture(params=KINDS)
def far(request, stand):
    found = {
        "local": lambda: LocalTransport("phone"),
        "adb": lambda: AdbTransport("phone", "A1", program=stand.adb),
        "ssh": lambda: SshTransport("phone", "board", program=stand.ssh),
    }[request.param]()
    yield found
    found.close()


@pytest.fixture
def folder(far, tmp_path, stand):
    """The store's folder as it is given, and where it is on this machine."""
    if isinstance(far, AdbTransport):
        return "/data/local/tmp/wb store", stand.root / "data/local/tmp/wb store"
    if isinstance(far, SshTransport):
        return ".cache/wb store", stand.root / "home/.cache/wb store"
    return str(tmp_path / "wb store"), tmp_path / "wb store"


def made(path, content=b"x"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def objects(folder):
    return sorted(one.name for one in (folder[1] / "objects").iterdir())


def pushes(stand):
    return sum("push" in call or "cat > " in call[-1] for call in stand.calls())


def test_a_file_is_brought_once_and_checked(far, folder, tmp_path, stand):
    path = made(tmp_path / "it's a; model.onnx", b"abc" * 1000)
    there = Store(far, folder[0], 10**6).put(path)
    name = hashlib.sha256(path.read_bytes()).hexdigest() + ".onnx"
    assert there.endswith(f"/objects/{name}")
    assert objects(folder) == [name]
    before, count = (folder[1] / "objects" / name).stat(), pushes(stand)
    os.utime(folder[1] / "objects" / name, (1, 1))
    assert Store(far, folder[0], 10**6).put(path) == there
    after = (folder[1] / "objects" / name).stat()
    assert after.st_ino == before.st_ino  # not written again
    assert after.st_mtime > 1  # but used
    assert pushes(stand) == count


def test_programs_can_be_started(far, folder, tmp_path):
    store = Store(far, folder[0], 10**6)
    path = made(tmp_path / "tool", b"#!/bin/sh\necho here\n")
    there = store.put(path)
    kept = folder[1] / "objects" / objects(folder)[0]
    assert kept.stat().st_mode & 0o111 == 0
    assert store.put(path, executable=True) == there
    assert kept.stat().st_mode & 0o111


def test_many_files_are_one_question(far, folder, tmp_path, stand):
    paths = [made(tmp_path / f"{i}.ort", bytes([i])) for i in range(5)]
    store = Store(far, folder[0], 10**6)
    found = store.put_all([*paths, paths[0]])
    assert [found[one].rsplit(".", 1)[-1] for one in paths] == ["ort"] * 5
    assert len(objects(folder)) == 5
    count = len(stand.calls())
    assert store.put_all(paths) == found
    assert len(stand.calls()) - count <= 1


def test_an_ending_is_plain(far, folder, tmp_path):
    there = Store(far, folder[0], 10**6).put(made(tmp_path / "x.so'; rm -rf $HOME"))
    assert there.rsplit("/", 1)[-1][64:] == ".sormrfHOME"


def test_a_changed_file_is_another(far, folder, tmp_path):
    store = Store(far, folder[0], 10**6)
    first = store.put(made(tmp_path / "x.onnx", b"a"))
    time.sleep(0.01)
    assert store.put(made(tmp_path / "x.onnx", b"b")) != first


def test_what_was_cut_off_there_is_brought_again(far, folder, tmp_path):
    path = made(tmp_path / "x.onnx", b"abc" * 100)
    Store(far, folder[0], 10**6).put(path)
    made(folder[1] / "objects" / objects(folder)[0], b"")
    Store(far, folder[0], 10**6).put(path)
    assert (folder[1] / "objects" / objects(folder)[0]).read_bytes() == path.read_bytes()


def test_the_least_used_go_first_and_never_this_runs_own(far, folder, tmp_path):
    old = Store(far, folder[0], 10**6)
    names = {}
    for size in (300, 301, 302):
        path = made(tmp_path / f"{size}.onnx", b"x" * size)
        names[old.put(path).rsplit("/", 1)[-1]] = path
    oldest, middle, newest = sorted(names)  # which a plain listing would have the wrong way round
    for place, name in enumerate((oldest, middle, newest)):
        os.utime(folder[1] / "objects" / name, (1000 + place, 1000 + place))
    store = Store(far, folder[0], 1000)
    store.put(names[oldest])  # used again
    new = store.put(made(tmp_path / "new.onnx", b"y" * 350)).rsplit("/", 1)[-1]
    assert objects(folder) == sorted([oldest, newest, new])
    with pytest.raises(DeviceError, match="capacity_mb") as caught:
        store.put(made(tmp_path / "large.onnx", b"z" * 400))
    assert "phone" in str(caught.value)
    assert new in objects(folder)


def test_leftovers_go_by_their_age(far, folder, tmp_path):
    hour, day = time.time() - 3700, time.time() - 90000
    for name, when in [("objects/a.part", hour), ("objects/b.part", None), ("objects/c", day)]:
        made(_parents(folder[1] / name))
        if when:
            os.utime(folder[1] / name, (when, when))
    for name, when in [("scratch/old", day), ("scratch/new", None)]:
        _parents(folder[1] / name / "file").write_text("x")
        if when:
            os.utime(folder[1] / name, (when, when))
    Store(far, folder[0], 10**6).folder  # noqa: B018
    assert objects(folder) == ["b.part", "c"]
    assert [one.name for one in (folder[1] / "scratch").iterdir()] == ["new"]


def _parents(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_private_folder_goes_again(far, folder):
    store = Store(far, folder[0], 10**6)
    with store.scratch() as there:
        assert far.run(["sh", "-c", 'echo x > "$1/y"', "sh", there]).code == 0
        assert len(list((folder[1] / "scratch").iterdir())) == 1
        with store.scratch() as other:
            assert other != there
    assert list((folder[1] / "scratch").iterdir()) == []


def test_a_private_folder_goes_after_an_interrupt(far, folder):
    with pytest.raises(Interrupted), Store(far, folder[0], 10**6).scratch():
        threading.Timer(0.3, far.interrupt).start()
        far.run(["sleep", "20"])
    assert list((folder[1] / "scratch").iterdir()) == []


def test_a_folder_that_cannot_be_made(far, folder, tmp_path):
    made(_parents(folder[1]))
    with pytest.raises(DeviceError, match="work folder") as caught:
        Store(far, folder[0], 10**6).put(made(tmp_path / "x.onnx"))
    assert "set folder" in caught.value.fix


def test_what_arrives_damaged_has_no_name(tmp_path, stand, monkeypatch):
    far = AdbTransport("phone", "A1", program=stand.adb)
    store = Store(far, "/data/local/tmp/wb", 10**6)
    monkeypatch.setattr("workbench.device.transport.store.known_digest", lambda _path: "0" * 64)
    with pytest.raises(DeviceError, match=r"phone: x\.onnx arrived damaged"):
        store.put(made(tmp_path / "x.onnx"))
    assert stand.files() == []


def test_a_device_that_cannot_check(tmp_path, stand):
    for name in ("sha256sum", "busybox", "toybox"):
        made(stand.root / "bin" / name, b"#!/bin/sh\nexit 127\n").chmod(0o755)
    far = AdbTransport("phone", "A1", program=stand.adb)
    with pytest.raises(DeviceError, match="no sha256sum"):
        Store(far, "/data/local/tmp/wb", 10**6).put(made(tmp_path / "x.onnx"))
    assert [one for one in stand.files() if not one.startswith("bin/")] == []


@pytest.mark.parametrize("kind", ["adb", "ssh"])
@pytest.mark.parametrize("fault", ["lost", "full"])
def test_a_push_that_fails_leaves_no_object(kind, fault, tmp_path, stand):
    far = (
        AdbTransport("phone", "A1", program=stand.adb)
        if kind == "adb"
        else SshTransport("phone", "board", program=stand.ssh)
    )
    store = Store(far, "/data/local/tmp/wb", 10**6)
    stand.set({"kind": fault, "on": "push"})
    with pytest.raises(DeviceError) as caught:
        store.put(made(tmp_path / "x.onnx", b"x" * 1000))
    assert isinstance(caught.value, Unreachable) == (fault == "lost")
    assert not [one for one in stand.files() if not one.endswith(".part")]
    stand.set()
    assert store.put(tmp_path / "x.onnx")
    far.close()  # its connection would be shut when it is collected, in some later test


def test_a_private_folder_stays_where_the_device_is_lost(tmp_path, stand):
    far = AdbTransport("phone", "A1", program=stand.adb)
    with (
        pytest.raises(Unreachable),
        Store(far, "/data/local/tmp/wb", 10**6).scratch(),
    ):
        stand.set({"kind": "offline"})
        far.run(["true"])
