"""The content-addressed cache: results under the hash of everything that decides them.

    <root>/entries/<key>/   a step's files with entry.json; appears whole or not at all
    <root>/records/<key>.json   small facts: a model's fingerprint, a measurement
    <root>/work/            intermediates that several steps share: a SavedModel
    <root>/tmp/<pid>-…/     work in progress; a dead process's is removed by the next run
    <root>/locks/<key>.lock  held while a key is being made, so that two runs at once share

`WB_CACHE` names the root; `~/.cache/workbench` (or `XDG_CACHE_HOME`) is the default.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.artifact import digest
from workbench.code_digest import code_digest
from workbench.codec import to_plain
from workbench.errors import DiskFullError, StepError, WorkbenchError

ENTRY = "entry.json"


def root() -> Path:
    """The cache's folder, from the environment."""
    if os.environ.get("WB_CACHE"):
        return Path(os.environ["WB_CACHE"]).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "workbench"


def describe_os_error(error: OSError) -> WorkbenchError:
    """A full disk or a missing permission, as what a user can do about it."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"the disk is full{where}",
            "",
            "free space, or set WB_CACHE, TMPDIR and --out to another disk, and run again: "
            "what was finished is kept",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StepError(
            f"no permission to write{where}" if error.filename else "no permission",
            str(error),
            "choose a folder of yours: --out for the run, WB_CACHE for the cache",
        )
    return StepError(f"the system refused{where}", str(error))


def key_of(*parts: Any, code: Sequence[str]) -> str:
    """A key for values: SHA-256 of their canonical JSON and of the code that makes the result.

    code: the modules that make it; what they import counts with them (see `code_digest`).
    """
    text = json.dumps([code_digest(*code), *parts], sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """A value as the codec writes it; what only a user's step holds, as its text."""
    try:
        return to_plain(value)
    except TypeError:
        return str(value)


def write_json(path: Path, data: Any, mode: int = 0o644) -> None:
    """Write JSON to a temporary name beside `path`, then rename: never half a file.

    mode: of the file; 0o600 where a secret stands in it.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1, default=str)
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """A JSON file's value, or None where it is absent or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sweep(folder: Path, prefix: str = "") -> None:
    """Remove what killed runs left: folders `<prefix><pid>-…` whose process is gone."""
    for left in folder.glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix).partition("-")[0]
        if pid.isdecimal() and not _running(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


class Cache:
    """One cache folder. `enabled=False` (--no-cache) reads nothing from it but still writes."""

    def __init__(self, folder: Path | None = None, *, enabled: bool = True) -> None:
        self.folder = folder or root()
        self.enabled = enabled
        self._fresh: set[str] = set()
        self.used: set[str] = set()  # keys of what was found or made
        # Intermediates that steps share; a run that may not read the cache has its own.
        self.work = self.folder / "work" if enabled else self.folder / f"tmp/{os.getpid()}-work"
        try:
            for name in ("entries", "records", "tmp", "locks"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
        except OSError as error:
            raise describe_os_error(error) from error
        sweep(self.folder / "tmp")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A temporary folder on the cache's disk, removed afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.folder / "tmp", prefix=f"{os.getpid()}-"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def locked(
        self,
        key: str,
        waiting: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[None]:
        """Hold a key's lock; a process that dies lets go of it. `waiting` is called once.

        stop: ends the waiting with KeyboardInterrupt, for a thread that no signal reaches.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / "locks" / f"{key}.lock")
        try:
            lock.acquire(timeout=0.05)
        except Timeout:
            if waiting is not None:
                waiting()
            _acquire(lock, stop)
        try:
            yield
        finally:
            lock.release()

    def entry(self, key: str) -> tuple[Path, dict[str, Any]] | None:
        """A finished entry's folder and its data, its files checked against their digests."""
        folder = self.folder / "entries" / key
        data = read_json(folder / ENTRY)
        if not self._may_read(key) or not isinstance(data, dict):
            return None
        for name, expected in data.get("files", {}).items():
            path = folder / name
            if not path.is_file() or digest(path) != expected:
                shutil.rmtree(folder, ignore_errors=True)  # damaged: make it again
                return None
        self.used.add(key)
        return folder, data

    def _may_read(self, key: str) -> bool:
        return self.enabled or key in self._fresh

    def make(
        self,
        key: str,
        build: Callable[[Path], dict[str, Any]],
        waiting: Callable[[], None] | None = None,
    ) -> tuple[Path, dict[str, Any], bool]:
        """The entry of a key: found, or built by `build(folder)`, which returns its data.

        Returns its folder, its data, and whether it was found.
        """
        if (finished := self.entry(key)) is not None:
            return (*finished, True)
        with self.locked(key, waiting):
            if (finished := self.entry(key)) is not None:
                return (*finished, True)
            with self.scratch() as folder:
                started = time.perf_counter()
                data = build(folder)
                data["seconds"] = round(time.perf_counter() - started, 3)
                files = (path for path in folder.rglob("*") if path.is_file())
                data["files"] = {str(p.relative_to(folder)): digest(p) for p in sorted(files)}
                write_json(folder / ENTRY, data)
                final = self.folder / "entries" / key
                shutil.rmtree(final, ignore_errors=True)
                folder.rename(final)
            self._fresh.add(key)
            self.used.add(key)
            return final, data, False

    def record(self, key: str) -> dict[str, Any] | None:
        """A small record, or None where it is absent or the files it rests on have changed."""
        data = read_json(self.folder / "records" / f"{key}.json")
        if not self._may_read(key) or not isinstance(data, dict):
            return None
        depends = data.pop("depends", {})
        if any(_stamp(Path(path)) != was for path, was in depends.items()):
            return None
        self.used.add(key)
        return data

    def store(self, key: str, data: dict[str, Any], depends: Iterable[Path] = ()) -> None:
        """Write a record, resting on files that must not have changed when it is read."""
        stamps = {str(path): _stamp(path) for path in sorted(set(depends))}
        write_json(self.folder / "records" / f"{key}.json", {**data, "depends": stamps})
        self._fresh.add(key)
        self.used.add(key)

    def close(self) -> None:
        """Remove what only this run used."""
        if not self.enabled:
            shutil.rmtree(self.work, ignore_errors=True)

    def size(self) -> int:
        """Bytes in use."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def clear(self) -> None:
        """Remove everything that no run holds."""
        for name in ("entries", "records", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(exist_ok=True)  # a run that goes on finds its folders


def _acquire(lock: Any, stop: threading.Event | None) -> None:
    from filelock import Timeout

    while stop is not None:
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            if stop.is_set():
                raise KeyboardInterrupt from None
        else:
            return
    lock.acquire()


def _stamp(path: Path) -> list[int] | None:
    """What shows that a file or folder changed, without reading it: its size and time."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
