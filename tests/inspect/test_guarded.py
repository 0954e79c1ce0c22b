"""Readers that a damaged file crashes or holds up cost their own process, and no more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.inspect.files import dense, floats, graph, save_onnx, save_ort
from workbench.artifact import Format
from workbench.errors import CrashError, ModelError
from workbench.file_format import format_of
from workbench.inspect import guarded
from workbench.process import Worker


class Dying:
    """A worker whose process ends as it is told to."""

    ending = ""

    def call(self, *_: object) -> None:
        raise CrashError("a worker process died", self.ending)


@pytest.mark.parametrize(
    ("ending", "said"),
    [("signal SIGSEGV; it last said: x", "its reader died: signal SIGSEGV$"),
     ("signal SIGALRM", "it took longer than 120 s")],
)  # fmt: skip
def test_a_reader_that_died_is_a_damaged_file(
    ending: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dying, "ending", ending)
    with pytest.raises(ModelError, match="cannot be read as an ORT file") as caught:
        guarded.read(tmp_path / "x.ort", Format.ORT, Dying())
    import re

    assert re.search(said, caught.value.why)


def test_a_worker_that_could_not_start_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dying, "ending", "exit code 1; it last said: ImportError")
    with pytest.raises(CrashError):
        guarded.read(tmp_path / "x.ort", Format.ORT, Dying())


def test_a_reader_is_limited_and_its_process_is_not_afterwards() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with guarded._limited():
        assert 0 < resource.getrlimit(resource.RLIMIT_DATA)[0] < 1 << 50
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.process
def test_a_reader_that_hangs_is_ended(tmp_path: Path) -> None:
    """The deadline kills the process, whatever it is doing."""
    import subprocess
    import sys

    code = (
        "from workbench.inspect import guarded; guarded.SECONDS = 1\n"
        "with guarded._limited():\n    while True: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -14  # SIGALRM


def damaged(data: bytes, count: int, seed: int) -> list[bytes]:
    """Truncated, with bytes changed all over, and with bytes changed where the offsets are."""
    generator = random.Random(seed)
    errors = []
    for turn in range(count):
        changed = bytearray(data)
        if turn % 3 == 0:
            changed = changed[: generator.randrange(len(changed))]
        for _ in range(turn % 3 * 3):
            limit = len(changed) if turn % 3 == 1 else min(len(changed), 600)
            changed[generator.randrange(limit)] = generator.randrange(256)
        errors.append(bytes(changed))
    return errors


@pytest.mark.process
@pytest.mark.parametrize("kind", [Format.ORT, Format.TFLITE])
def test_damaged_files_are_read_or_refused_and_nothing_else(kind: Format, tmp_path: Path) -> None:
    if kind is Format.ORT:
        text = graph(
            "g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) { c = Conv (x, w) y = Relu (c) }"
        )
        path = save_ort(save_onnx(tmp_path, text, w=floats(4, 3, 3, 3)))
    else:
        path = dense(tmp_path / "dense.tflite", "int8", "int8")
    refused = 0
    with Worker() as worker:
        for content in damaged(path.read_bytes(), 120, seed=1):
            path.write_bytes(content)
            try:
                worker.call("inspect", path, format_of(path))
            except ModelError:
                refused += 1
    assert refused >= 40  # every truncated one
