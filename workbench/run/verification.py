"""`wb verify RUN`: every file of a run against its manifest's digests."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from workbench.artifact import digest
from workbench.errors import InputError, StepError, first_line, shown
from workbench.run.folder import MANIFEST

ARTIFACTS = "artifacts"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What of a run's folder is not as it was written.

    Attributes:
        run: the folder.
        files: how many files the manifest has.
        problems: a line for each file that differs, is missing, or lies among the artifacts
            without being in the manifest.
        strangers: a line for each other file that is not in the manifest; no error.
    """

    run: Path
    files: int
    problems: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()

    @property
    def count(self) -> str:
        """How many files, in words."""
        return f"{self.files} file{'s' * (self.files != 1)}"

    def require_whole(self) -> None:
        """Raise StepError where there are problems."""
        if self.problems:
            number = len(self.problems)
            raise StepError(
                f"{self.run} is not as it was written: {number} problem{'s' * (number != 1)}, "
                f"{self.count} in the manifest",
                "",
                "use none of these files; run the recipe again",
            )


def verify_folder(run: Path) -> Verification:
    """Every file of a run against its manifest's digests.

    Raises InputError where this is no run's folder or its manifest cannot be trusted.
    """
    files = _manifest(run)
    problems = [problem for name in sorted(files) if (problem := _problem(run, name, files[name]))]
    extra = _extra(run, set(files))
    problems += [f"{name}: not in the manifest" for name in extra if _is_artifact(name)]
    strangers = [name for name in extra if not _is_artifact(name)]
    return Verification(
        run=run,
        files=len(files),
        problems=tuple(problems),
        strangers=tuple(f"{name}: not in the manifest (not the run's; no error)"
                        for name in strangers),
    )  # fmt: skip


def _manifest(run: Path) -> dict[str, str]:
    """The digests by path, all of which lie inside the folder. Raises InputError."""
    path = run / MANIFEST
    if not run.is_dir():
        raise InputError(f"{run} is no folder" if run.exists() else f"there is no folder {run}")
    if not path.is_file():
        raise InputError(
            f"{run} is not a run's folder",
            f"it has no {MANIFEST}",
            "give the folder that 'wb recipe' printed, runs/…",
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise InputError(f"{path} is not valid JSON", first_line(error)) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read", error.strerror or "") from error
    files: Any = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict):
        raise InputError(f"{path} lists no files", "it has no table 'files'")
    for name, expected in files.items():
        if not _inside(name):
            raise InputError(
                f"{path} names a file outside the run's folder",
                shown(name),
                "this manifest was not written by wb: do not trust the folder",
            )
        if not isinstance(expected, str) or not re.fullmatch(r"[0-9a-f]{64}", expected):
            raise InputError(
                f"{path} has no SHA-256 for {shown(name)}", f"it has {shown(expected)}"
            )
    return files


def _inside(name: str) -> bool:
    """Whether a manifest's path stays in the folder, on any system."""
    forms = (PurePosixPath(name), PureWindowsPath(name))
    stays = not any(form.is_absolute() or form.drive or ".." in form.parts for form in forms)
    return bool(name) and "\0" not in name and stays


def _problem(run: Path, name: str, expected: str) -> str:
    """What is wrong with a file, '' where nothing is."""
    label = shown(name)[1:-1]
    path = run / name
    # A link is not followed, wherever on the way it is: what it leads to is not the run's.
    for step in (path, *path.parents):
        if step == run:
            break
        if step.is_symlink():
            what = "a symbolic link" if step == path else f"behind a symbolic link, {step.name}"
            return f"{label}: {what}"
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            return f"{label}: not a regular file"
        current = digest(path)
    except (FileNotFoundError, NotADirectoryError):
        return f"{label}: missing"
    except OSError as error:
        return f"{label}: cannot be read ({error.strerror or error})"
    if current != expected:
        return f"{label}: changed (SHA-256 {current[:12]}…, the manifest says {expected[:12]}…)"
    return ""


def _extra(run: Path, listed: set[str]) -> list[str]:
    """What is in the folder and not in the manifest; links are named, not followed."""
    extra = []
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if (path.is_symlink() or not path.is_dir()) and name not in listed and name != MANIFEST:
            extra.append(shown(name)[1:-1])
    return extra


def _is_artifact(name: str) -> bool:
    return PurePosixPath(name).parts[0] == ARTIFACTS
