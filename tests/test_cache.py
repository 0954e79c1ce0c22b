"""The cache: built once, whole or not at all, shared by processes, mended where damaged."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.artifact import TensorSpec
from workbench.cache import Cache, describe_os_error, key_of, read_json, root, write_json
from workbench.errors import StepError, WorkbenchError

BUILDER = """
import sys, time
from pathlib import Path
from workbench.cache import Cache

def build(folder):
    with Path(sys.argv[2]).open("a") as marks:
        marks.write("built\\n")
    time.sleep(0.5)
    (folder / "file").write_text("content")
    return {"who": sys.argv[3]}

folder, data, found = Cache(Path(sys.argv[1])).make("key", build, lambda: print("waiting"))
print((folder / "file").read_text(), data["who"], found)
"""
ENDLESS = """
import sys, time
from pathlib import Path
from workbench.cache import Cache

def build(folder):
    (folder / "half").write_text("half")
    print("building", flush=True)
    time.sleep(60)

Cache(Path(sys.argv[1])).make("key", build)
"""


class Building:
    """A build that counts how often it runs."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> dict[str, object]:
        self.times += 1
        (folder / "sub").mkdir()
        (folder / "sub/file").write_text("content")
        return {"value": self.times}


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def test_an_entry_is_built_once_and_found_again(cache):
    build = Building()
    folder, data, found = cache.make("key", build)
    assert (data["value"], found, build.times) == (1, False, 1)
    assert (folder / "sub/file").read_text() == "content"
    assert cache.make("key", build) == (folder, data, True)
    assert Cache(cache.folder).make("key", build) == (folder, data, True)
    assert build.times == 1
    assert cache.make("other", build)[2] is False


def test_an_entry_says_how_long_it_took_and_what_it_holds(cache):
    _, data, _ = cache.make("key", lambda folder: time.sleep(0.05) or Building()(folder))
    assert 0.05 <= data["seconds"] < 5
    assert list(data["files"]) == ["sub/file"]


@pytest.mark.parametrize("damage", ["changed", "removed", "no facts", "half the facts"])
def test_a_damaged_entry_is_built_again(cache, damage):
    build = Building()
    folder, _, _ = cache.make("key", build)
    facts = folder / "entry.json"
    match damage:
        case "changed":
            (folder / "sub/file").write_text("Content")
        case "removed":
            (folder / "sub/file").unlink()
        case "no facts":
            facts.unlink()
        case "half the facts":
            facts.write_text(facts.read_text()[:20])
    assert cache.entry("key") is None
    folder, data, found = cache.make("key", build)
    assert (data["value"], found) == (2, False)
    assert (folder / "sub/file").read_text() == "content"


def test_an_entry_appears_only_when_it_is_whole(cache):
    def build(folder):
        (folder / "file").write_text("half")
        assert not folder.is_relative_to(cache.folder / "entries")
        assert list((cache.folder / "entries").iterdir()) == []
        return {}

    folder, _, _ = cache.make("key", build)
    assert list((cache.folder / "entries").iterdir()) == [folder]
    assert list((cache.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_build_that_fails_leaves_nothing_and_can_be_tried_again(cache, failure):
    def fail(folder):
        (folder / "file").write_text("half")
        raise failure

    with pytest.raises(failure):
        cache.make("key", fail)
    assert [list((cache.folder / name).iterdir()) for name in ("entries", "tmp")] == [[], []]
    assert cache.entry("key") is None
    assert cache.make("key", Building())[2] is False


@pytest.mark.process
def test_a_killed_build_leaves_no_entry_and_the_next_run_sweeps_it(tmp_path):
    folder = tmp_path / "cache"
    process = started(ENDLESS, folder)
    try:
        assert process.stdout.readline() == "building\n"
        alive = [path.name for path in (folder / "tmp").iterdir()]
        assert [name.partition("-")[0] for name in alive] == [str(process.pid)]
        Cache(folder)
        assert [path.name for path in (folder / "tmp").iterdir()] == alive
    finally:
        process.kill()
        process.communicate()
    fresh = Cache(folder)
    assert list((folder / "tmp").iterdir()) == []
    assert fresh.entry("key") is None
    assert fresh.make("key", Building())[2] is False


@pytest.mark.process
def test_two_processes_at_once_build_once_and_share(tmp_path):
    marks = tmp_path / "marks"
    both = [started(BUILDER, tmp_path / "cache", marks, name) for name in ("a", "b")]
    outputs = [process.communicate(timeout=60)[0].split() for process in both]
    assert marks.read_text() == "built\n"
    builder = next(words for words in outputs if words[-1] == "False")
    sharer = next(words for words in outputs if words[-1] == "True")
    assert builder[-3:-1] == sharer[-3:-1]
    assert builder[-3] == "content"


def test_a_run_without_the_cache_reads_only_what_it_made_itself(cache):
    build = Building()
    cache.make("key", build)
    cache.store("fact", {"x": 1})
    apart = Cache(cache.folder, enabled=False)
    assert (apart.entry("key"), apart.record("fact")) == (None, None)
    assert apart.make("key", build)[1:] == (apart.entry("key")[1], False)
    assert apart.make("key", build)[2] is True
    apart.store("fact", {"x": 2})
    assert apart.record("fact")["x"] == 2
    assert build.times == 2
    assert Cache(cache.folder).make("key", build)[1]["value"] == 2, "it still writes"
    assert apart.work != cache.work


def test_a_record_is_kept_until_a_file_it_rests_on_changes(cache, tmp_path):
    source = tmp_path / "source.py"
    source.write_text("one")
    cache.store("fact", {"x": 1}, [source])
    assert Cache(cache.folder).record("fact")["x"] == 1
    os.utime(source, ns=(1, 1))
    assert cache.record("fact") is None
    cache.store("fact", {"x": 2}, [source])
    assert cache.record("fact")["x"] == 2
    source.unlink()
    assert cache.record("fact") is None


def test_a_record_may_rest_on_the_absence_of_a_file(cache, tmp_path):
    cache.store("fact", {"x": 1}, [tmp_path / "later"])
    assert cache.record("fact")["x"] == 1
    (tmp_path / "later").write_text("")
    assert cache.record("fact") is None


def test_an_absent_or_damaged_record_is_none(cache):
    assert cache.record("fact") is None
    (cache.folder / "records/fact.json").write_text('{"x":')
    assert cache.record("fact") is None


@pytest.mark.process
def test_temporary_folders_of_the_living_are_kept_and_of_the_dead_swept(cache):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    kept = cache.folder / f"tmp/{os.getpid()}-mine"
    for path in (kept, cache.folder / f"tmp/{dead}-theirs", cache.folder / "tmp/unnumbered"):
        path.mkdir()
    Cache(cache.folder)
    assert {path.name for path in (cache.folder / "tmp").iterdir()} == {kept.name, "unnumbered"}


def test_clearing_forgets_everything_and_the_cache_stays_usable(cache):
    build = Building()
    cache.make("key", build)
    cache.store("fact", {"x": 1})
    assert cache.size() > 0
    cache.clear()
    assert (cache.entry("key"), cache.record("fact"), cache.size()) == (None, None, 0)
    assert cache.make("key", build)[2] is False
    cache.store("fact", {"x": 1})


def test_a_folder_that_cannot_be_made_is_an_error_for_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkbenchError, match="the system refused") as caught:
        Cache(tmp_path / "file/cache")
    assert "Not a directory" in caught.value.why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_for_the_user(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StepError, match="no permission to write") as caught:
        Cache(tmp_path / "cache")
    assert "WB_CACHE" in caught.value.fix


@pytest.mark.parametrize(
    ("number", "what", "fix"),
    [
        (errno.ENOSPC, "the disk is full (/big)", "free space"),
        (errno.EDQUOT, "the disk is full (/big)", "free space"),
        (errno.EACCES, "no permission to write (/big)", "WB_CACHE"),
        (errno.EROFS, "no permission to write (/big)", "WB_CACHE"),
        (errno.EIO, "the system refused (/big)", ""),
    ],
)
def test_what_the_system_refuses_is_described(number, what, fix):
    error = describe_os_error(OSError(number, os.strerror(number), "/big"))
    assert (error.what, error.exit_code) == (what, 3)
    assert fix in error.fix


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "facts.json"
    write_json(path, {"x": 1})
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ValueError):
        write_json(path, {"x": 2, "y": endless})
    assert read_json(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_depends_on_values_and_on_the_code_that_makes_the_result():
    assert key_of("a", {"x": 1, "y": 2}, code=()) == key_of("a", {"y": 2, "x": 1}, code=())
    keys = [key_of(*parts, code=()) for parts in [("a", 1), ("a", 2), ("a1",), (["a", 1],)]]
    assert len({*keys}) == 4
    codes = [(), ("workbench.arrays",), ("workbench.progress",)]
    assert len({key_of("a", code=code) for code in [*codes, codes[1] + codes[2]]}) == 4


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("WB_CACHE", raising=False)
    assert root() == tmp_path / "xdg/workbench"
    monkeypatch.setenv("WB_CACHE", str(tmp_path / "mine"))
    assert root() == tmp_path / "mine"
    assert Cache().folder == tmp_path / "mine"


def test_a_key_follows_every_field_of_a_value():
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 3))
    others = [
        replace(spec, dtype="int64"), replace(spec, shape=(None, 4)), replace(spec, stored="y"),
        replace(spec, permutation=(0, 1)), replace(spec, head="softmax"),
    ]  # fmt: skip
    assert len({key_of("a", (each,), code=()) for each in (spec, *others)}) == 6
    assert key_of("a", (spec,), code=()) == key_of("a", (replace(spec),), code=())


def test_a_key_takes_what_only_a_users_step_holds():
    keys = [key_of({"kinds": {kind}}, code=()) for kind in (1, 1, 2)]
    assert keys[0] == keys[1] != keys[2]
