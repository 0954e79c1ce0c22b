"""What a trial made in another machine's cache, brought into this one's."""

from __future__ import annotations

import io
import shutil
import tarfile
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from workbench.cache import Cache

NAME = "name"  # in the cache's folder: two machines that share it have one


def cache_name() -> str:
    """What tells this machine's cache from another's."""
    path = Cache().folder / NAME
    with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
        file.write(uuid.uuid4().hex)
    return path.read_text(encoding="ascii")


def pack_entries(keys: Iterable[str], folder: Path) -> bytes:
    """An archive of the entries and records with these keys."""
    cache = Cache()
    path = folder / "made.tar"
    with tarfile.open(path, "w") as archive:
        for key in sorted(set(keys)):
            for name in (f"entries/{key}", f"records/{key}.json"):
                if (cache.folder / name).exists():
                    archive.add(cache.folder / name, name)
    return path.read_bytes()


def unpack_entries(archive: bytes) -> None:
    """Put what `pack_entries` packed into this machine's cache, what is there already excepted.

    Entries are read with their digests, as all of the cache is: what was damaged is made anew.
    """
    if not archive:
        return
    cache = Cache()
    with cache.scratch() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive)) as file:
            file.extractall(folder, filter="data")
        for kind in ("entries", "records"):
            for path in sorted((folder / kind).glob("*")):
                target = cache.folder / kind / path.name
                if not target.exists():
                    shutil.move(path, target)
