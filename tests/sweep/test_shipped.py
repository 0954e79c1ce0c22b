"""A trial's part of a cache, from one machine's to another's."""

from __future__ import annotations

import io
import tarfile

import pytest

from workbench.cache import Cache
from workbench.sweep.shipped import cache_name, pack_entries, unpack_entries


@pytest.fixture
def caches(tmp_path, monkeypatch):
    def use(name: str) -> Cache:
        monkeypatch.setenv("WB_CACHE", str(tmp_path / name))
        return Cache()

    return use


def build(text: str):
    def made(folder):
        (folder / "model.onnx").write_text(text)
        return {"artifact": text}

    return made


def test_what_was_used_there_is_found_here(caches, tmp_path):
    there = caches("there")
    there.make("a" * 64, build("one"))
    there.make("b" * 64, build("other"))
    there.store("c" * 64, {"score": 1})
    archive = pack_entries(["a" * 64, "c" * 64], tmp_path)
    here = caches("here")
    unpack_entries(archive)
    folder, data, found = here.make("a" * 64, build("anew"))
    assert (found, data["artifact"], (folder / "model.onnx").read_text()) == (True, "one", "one")
    assert here.record("c" * 64) == {"score": 1}
    assert here.entry("b" * 64) is None


def test_a_damaged_entry_is_made_anew(caches, tmp_path):
    there = caches("there")
    folder, _, _ = there.make("a" * 64, build("one"))
    (folder / "model.onnx").write_text("damaged")
    archive = pack_entries(["a" * 64], tmp_path)
    here = caches("here")
    unpack_entries(archive)
    assert here.make("a" * 64, build("anew"))[1]["artifact"] == "anew"


def test_what_is_here_stays(caches, tmp_path):
    caches("there").make("a" * 64, build("one"))
    archive = pack_entries(["a" * 64], tmp_path)
    here = caches("here")
    here.make("a" * 64, build("mine"))
    unpack_entries(archive)
    assert here.entry("a" * 64)[1]["artifact"] == "mine"


def test_an_archive_that_leaves_its_folder_is_refused(caches, tmp_path):
    caches("here")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../escaped"), io.BytesIO())
    with pytest.raises(tarfile.TarError):
        unpack_entries(out.getvalue())
    assert not (tmp_path / "escaped").exists()


def test_two_users_of_a_cache_have_one_name(caches):
    caches("here")
    one = cache_name()
    assert cache_name() == one
    caches("there")
    assert cache_name() != one
