"""Files on a device under their digests: brought once, checked there, the least used go first."""

from __future__ import annotations

import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.artifact import digest
from workbench.device.transport.base import Done, Transport, Unreachable
from workbench.device.transport.shell import PARTIAL, full, last_line
from workbench.errors import DependencyError, DeviceError

HASHING = 300.0  # seconds that a device may take for the digest of one file
TOGETHER = 30  # files in one question: old devices take command lines of four kilobytes

# The folder, its path from the root, and nothing in it that a lost run left: halves of files for
# an hour, private folders for a day.
_OPEN = r"""
case $1 in /*) ;; *) cd || exit 1;; esac
umask 077; mkdir -p -- "$1/objects" "$1/scratch" && cd -- "$1" || exit 1
find objects -name '*.part' -mmin +60 -exec rm -f {} + >/dev/null 2>&1
find scratch/* -prune -mmin +1440 -exec rm -rf {} + >/dev/null 2>&1
printf '%s' "$PWD"
"""

# Of each object its size there, 0 without it. One that is there counts as used now.
_LOOK = r"""
cd "$1" || exit 1; shift
for one; do
  mode=${one%%:*}; name=${one#*:}
  if [ -f "$name" ]; then touch -c "$name"; chmod "$mode" "$name"; wc -c < "$name"; else echo 0; fi
done
"""

# Sizes and names of all objects, the most recently used first. `stat` is one process for all;
# where there is none, or a file goes meanwhile, each is asked for.
_LIST = r"""
cd "$1" || exit 1
set -- $(ls -t)
[ $# -eq 0 ] && exit
all=$(stat -c '%s %n' "$@" 2>/dev/null) && echo "$all" ||
for name; do echo "$(wc -c < "$name") $name"; done
"""

# The name of a digest is given to nothing else: 41 for another content, 42 for no way to tell.
_KEEP = r"""
sum=$( { sha256sum < "$1" || busybox sha256sum < "$1" || toybox sha256sum < "$1"; } 2>/dev/null)
case $sum in
  "$2 "*) chmod "$4" "$1" && mv -f "$1" "$3" && exit 0; code=1;;
  ????????????????????????????????????????????????????????????????" "*) code=41;;
  *) code=42;;
esac
rm -f "$1"; exit $code
"""

_digests: dict[tuple[str, int, int], str] = {}


def known_digest(path: Path) -> str:
    """A file's SHA-256, read once for as long as its size and time stay."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    if key not in _digests:
        _digests[key] = digest(path)
    return _digests[key]


class Store:
    """The workbench's folder on a device.

    folder: its path there, from the far home where it is relative. capacity: bytes of files that
    stay. Nothing is said to the device before the first use. Methods raise what the transport
    raises, and DeviceError where the device refuses.
    """

    def __init__(self, transport: Transport, folder: str, capacity: int) -> None:
        self.transport = transport
        self.capacity = capacity
        self._asked_folder = folder
        self._folder = ""
        self._used: set[str] = set()  # what this run brought or found

    @property
    def folder(self) -> str:
        """The folder's path from the root of the device. It is made, and cleaned of leftovers."""
        if not self._folder:
            done = self._script(_OPEN, self._asked_folder)
            answer = done.stdout
            if done.code or not answer.startswith("/"):
                raise self._refused(f"its work folder {self._asked_folder} cannot be made", done)
            self._folder = answer
        return self._folder

    def put(self, path: Path, executable: bool = False) -> str:
        """A file of this machine on the device: its path there, checked by its SHA-256.

        Raises DeviceError where it does not arrive whole, or there is no room for it.
        """
        return self.put_all([path], executable)[path]

    def put_all(self, paths: Iterable[Path], executable: bool = False) -> dict[Path, str]:
        """Several files, with one question for which of them are there already."""
        try:
            names = {path: _name(path) for path in paths}
            sizes = {name: path.stat().st_size for path, name in names.items()}
        except OSError as error:
            raise DeviceError(f"{error.filename} cannot be read", error.strerror or "") from error
        mode = "755" if executable else "644"
        held = self._sizes(list(sizes), mode)
        self._used.update(names.values())
        missing = {name: path for path, name in names.items() if held[name] != sizes[name]}
        if missing:
            self._make_room(sum(sizes[name] for name in missing), set(missing))
        for name, path in missing.items():
            self._bring(path, name, mode)
        return {path: f"{self.folder}/objects/{name}" for path, name in names.items()}

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """A private folder on the device, gone afterwards; left a day where the device is lost."""
        folder = f"{self.folder}/scratch/{secrets.token_hex(8)}"
        done = self.transport.run(["mkdir", "-m", "700", folder])
        if done.code:
            raise self._refused(f"{folder} cannot be made", done)
        try:
            yield folder
        finally:
            self.transport.resume()  # after Ctrl-C nothing runs until then
            with suppress(DeviceError, DependencyError):
                self.transport.run(["rm", "-rf", folder], timeout=20)

    def _sizes(self, names: Sequence[str], mode: str) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for start in range(0, len(names), TOGETHER):
            asked = names[start : start + TOGETHER]
            done = self._script(
                _LOOK, f"{self.folder}/objects", *(f"{mode}:{name}" for name in asked)
            )
            answers = done.stdout.split()
            if done.code or len(answers) != len(asked) or not all(map(str.isdecimal, answers)):
                raise self._refused(f"its work folder {self.folder} cannot be read", done)
            sizes.update(zip(asked, map(int, answers), strict=True))
        return sizes

    def _make_room(self, coming: int, missing: set[str]) -> None:
        """Remove what was used least until `coming` bytes fit; never what this run uses."""
        done = self._script(_LIST, f"{self.folder}/objects")
        if done.code:
            raise self._refused(f"its work folder {self.folder} cannot be read", done)
        listed = re.findall(r"^\s*(\d+) (\S+)$", done.stdout, re.MULTILINE)
        room = self.capacity - coming
        others: list[tuple[int, str]] = []
        for size, name in listed:
            if name in self._used or name.endswith(PARTIAL):
                room -= 0 if name in missing else int(size)
            else:
                others.append((int(size), name))
        if room < 0:
            raise DeviceError(
                f"{self.transport.name}: this run's files need {-room / 1e6:.1f} MB more than its "
                f"work folder may hold",
                f"capacity_mb in its profile is {self.capacity / 1e6:g}",
                "raise capacity_mb, or measure fewer models at once",
            )
        gone = []
        for size, name in others:  # the most recently used first
            room -= size
            if room < 0:
                gone.append(f"{self.folder}/objects/{name}")
        for start in range(0, len(gone), TOGETHER):
            self.transport.run(["rm", "-f", *gone[start : start + TOGETHER]])

    def _bring(self, path: Path, name: str, mode: str) -> None:
        target = f"{self.folder}/objects/{name}"
        part = f"{target}.{secrets.token_hex(4)}{PARTIAL}"
        try:
            self.transport.push(path, part)
            done = self._script(_KEEP, part, name[:64], target, mode, timeout=HASHING)
        except Unreachable:
            raise  # it goes when it is an hour old
        except DeviceError:
            with suppress(DeviceError, DependencyError):
                self.transport.run(["rm", "-f", part], timeout=20)
            raise
        if done.code == 41:
            raise DeviceError(
                f"{self.transport.name}: {path.name} arrived damaged",
                "its SHA-256 on the device is another, or the file changed meanwhile",
                "see to the cable and the device's storage, and run again",
            )
        if done.code == 42:
            raise DeviceError(
                f"{self.transport.name} cannot tell a file's SHA-256",
                "it has no sha256sum",
                "install coreutils, busybox or toybox on it",
            )
        if done.code:
            raise self._refused(f"{path.name} could not be put in place", done)

    def _script(self, text: str, *arguments: str, timeout: float = 60) -> Done:
        return self.transport.run(["sh", "-c", text, "sh", *arguments], timeout=timeout)

    def _refused(self, what: str, done: Done) -> DeviceError:
        return full(self.transport.name, done.stderr) or DeviceError(
            f"{self.transport.name}: {what}",
            last_line(done.stderr) or f"exit code {done.code}",
            "set folder in its profile to one that can be written there",
        )


def _name(path: Path) -> str:
    """A file's name there: its digest, and the ending that its runtime knows it by."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DeviceError(f"{path} is no file")
    ending = re.sub(r"[^A-Za-z0-9]", "", path.suffix)[:16]
    return known_digest(path) + (f".{ending}" if ending else "")
