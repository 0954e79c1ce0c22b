"""`wb verify`: what of a run's folder is not as it was written."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.cli.verify import verify
from workbench.errors import InputError, StepError

FILES = {"artifacts/model.onnx": b"weights", "artifacts/sub/more.bin": b"", "report.md": b"# all\n"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder as `rundir` writes it, with files of our own in it."""
    folder = tmp_path / "run"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    write(folder, {"files": digests})
    return folder


def write(folder: Path, manifest: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def problems(run: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a folder that differs."""
    with pytest.raises(StepError) as caught:
        verify(run)
    lines = capsys.readouterr().out.splitlines()
    found = [line for line in lines if "no error" not in line]
    several = "" if len(found) == 1 else "s"
    assert f"{len(found)} problem{several}, 3 files in the manifest" in caught.value.what
    return lines


def test_a_run_as_it_was_written(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(run)
    assert capsys.readouterr().out == f"{run}: 3 files, all as the manifest says\n"


def test_one_changed_byte(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "artifacts/model.onnx").write_bytes(b"weighty")
    (line,) = problems(run, capsys)
    expected = hashlib.sha256(b"weights").hexdigest()[:12]
    found = hashlib.sha256(b"weighty").hexdigest()[:12]
    assert line == (
        f"artifacts/model.onnx: changed (SHA-256 {found}…, the manifest says {expected}…)"
    )


def test_missing_files(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.md").unlink()
    (run / "artifacts/sub/more.bin").unlink()
    (run / "artifacts/sub").rmdir()
    (run / "artifacts/sub").write_bytes(b"")  # a file where a folder was
    assert problems(run, capsys) == [
        "artifacts/sub/more.bin: missing",
        "report.md: missing",
        "artifacts/sub: not in the manifest",
    ]


def test_what_lies_among_the_artifacts_is_a_problem_and_a_note_of_yours_is_not(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "notes.txt").write_text("mine")
    verify(run)
    assert "notes.txt: not in the manifest (not the run's; no error)" in capsys.readouterr().out
    (run / "artifacts/sub/.hidden").write_text("x")
    assert problems(run, capsys) == [
        "artifacts/sub/.hidden: not in the manifest",
        "notes.txt: not in the manifest (not the run's; no error)",
    ]


def test_links_are_not_followed(run: Path, tmp_path: Path, capsys) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run / "artifacts/model.onnx").rename(elsewhere)
    (run / "artifacts/model.onnx").symlink_to(elsewhere)  # the very content
    (run / "artifacts/sub").rename(tmp_path / "sub")
    (run / "artifacts/sub").symlink_to(tmp_path / "sub")
    assert problems(run, capsys) == [
        "artifacts/model.onnx: a symbolic link",
        "artifacts/sub/more.bin: behind a symbolic link, sub",
        "artifacts/sub: not in the manifest",
    ]


def test_what_is_no_file_is_not_opened(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "report.md").unlink()
    os.mkfifo(run / "report.md")  # to open it would wait for ever
    assert problems(run, capsys) == ["report.md: not a regular file"]


@pytest.mark.parametrize(
    "name", ["../x", "/etc/hostname", "artifacts/../../x", "C:\\x", "\\\\host\\x", "a\\..\\x", ""]
)
def test_a_manifest_that_points_outside_is_refused(name: str, run: Path, capsys) -> None:
    write(run, {"files": {name: "0" * 64}})
    with pytest.raises(InputError, match="names a file outside the run's folder"):
        verify(run)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is not valid JSON"), (b"\xff\xfe", "is not valid JSON"), (b"", "is not valid JSON"),
     (b"[" * 100_000, "is not valid JSON"), (b"[]", "lists no files"), (b"{}", "lists no files"),
     (b'{"files": [1]}', "lists no files"), (b'{"files": {"a": 3}}', "has no SHA-256"),
     (b'{"files": {"a": "00"}}', "has no SHA-256")],
)  # fmt: skip
def test_a_manifest_that_is_none(content: bytes, said: str, run: Path) -> None:
    (run / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=said):
        verify(run)


def test_what_is_no_runs_folder(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        verify(tmp_path / "absent")
    with pytest.raises(InputError, match="is no folder"):
        verify(run / "report.md")
    with pytest.raises(InputError, match="is not a run's folder"):
        verify(run / "artifacts")


@pytest.mark.process
def test_exit_codes(run: Path) -> None:
    def wb() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workbench", "verify", str(run)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    done = wb()
    assert (done.returncode, done.stderr) == (0, "")
    (run / "report.md").write_bytes(b"# some\n")
    done = wb()
    assert done.returncode == 3
    assert done.stdout.startswith("report.md: changed")
    assert done.stderr.startswith("error: ")
    (run / "manifest.json").unlink()
    assert wb().returncode == 2
