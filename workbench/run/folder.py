"""The run folder: artifacts, reports and a manifest, put in place as a whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace as replace_fields
from datetime import datetime
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.artifact import digest
from workbench.cache import describe_os_error, sweep, write_json
from workbench.engine.outcome import Outcome
from workbench.engine.request import Request
from workbench.errors import InputError, StepError
from workbench.report.data import Block, Report, Verified
from workbench.report.report_json import report_json
from workbench.run.recipe_targets import file_name

MANIFEST = "manifest.json"
MAKING = ".wb-"


def prepare(request: Request, created: datetime, out: Path | None) -> Path:
    """The run folder's path, checked before anything is worked for."""
    if out is None:
        stamp = created.strftime("%Y%m%d-%H%M%S")
        folder = Path("runs") / f"{request.recipe.name}-{request.source.name}-{stamp}"
    else:
        folder = free(out)
    return _writable(folder)


def free(out: Path) -> Path:
    """The folder that --out names. Raises InputError where other things stand there."""
    folder = out.expanduser()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "", "give --out a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder} has files that are not a run's",
            "a run replaces its folder as a whole",
            "give --out an empty or a new folder",
        )
    return folder


def _writable(folder: Path) -> Path:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, MAKING)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{MAKING}{os.getpid()}-"):
            pass
    except OSError as error:
        raise describe_os_error(error) from error
    return folder


def write(
    folder: Path, report: Report, request: Request, outcome: Outcome, *, replace: bool
) -> tuple[Path, Report]:
    """Assemble the run folder under a temporary name, then put it in place as a whole.

    With `replace`, a run that stands there goes; without, the new one gets a number. Returns the
    folder's path, and the report with what was found while writing: samples, and whether the files
    are those that were made. Raises StepError where a file is not what the manifest says of it.
    """
    from workbench.report import html, markdown

    try:
        making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{MAKING}{os.getpid()}-"))
        try:
            copied = _copy(making, outcome)
            report = _completed(making, report, outcome, copied)
            (making / "report.html").write_text(html.render(report), encoding="utf-8")
            (making / "report.md").write_text(markdown.render(report), encoding="utf-8")
            write_json(making / "report.json", report_json(report))
            manifest = _manifest(making, report, request, outcome)
            write_json(making / MANIFEST, manifest)
            differing = _differing(making, manifest["files"])
            if differing:
                raise StepError(
                    f"files of the run are not what was written: {', '.join(differing)}",
                    "read back, their SHA-256 was another",
                    "check the disk, or give --out a folder on another, and run again",
                )
            making.chmod(0o755)
            return (_replace if replace else _place)(making, folder), report
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise describe_os_error(error) from error


def _copy(making: Path, outcome: Outcome) -> dict[str, str]:
    """Copy the artifacts and what belongs to them; their digests as made, by path in the folder."""
    (making / "artifacts").mkdir(mode=0o755)
    digests = {}
    for result in outcome.table:
        if result.artifact is None:
            continue
        name = f"artifacts/{file_name(result)}"
        shutil.copyfile(result.artifact.path, making / name)
        digests[name] = result.artifact.sha256
        for companion in result.artifact.companions:
            shutil.copyfile(companion, making / f"{name}.{companion.name}")
            digests[f"{name}.{companion.name}"] = digest(companion)
    return digests


def _differing(making: Path, digests: dict[str, str]) -> tuple[str, ...]:
    """The files that, read back, have another digest."""
    return tuple(name for name, expected in digests.items() if digest(making / name) != expected)


def _completed(making: Path, report: Report, outcome: Outcome, copied: dict[str, str]) -> Report:
    """The report with each artifact's samples, which are written here, and the files' check."""
    from workbench.report.samples import write_all

    rows = {row.key: row for row in report.first.rows}
    artifacts = {}
    for result in outcome.table:
        row = rows.get(result.located.id)
        if result.artifact is not None and row is not None:
            facts = row.checks.facts if row.checks else None
            artifacts[file_name(result)] = (result.artifact, facts)
    written = write_all(making, artifacts, outcome.dataset)
    samples = {
        f"artifacts/{name}": written_samples.files for name, written_samples in written.items()
    }
    return replace_fields(
        report,
        blocks=tuple(_with_samples(block, samples) for block in report.blocks),
        verified=Verified(files=len(copied), differing=_differing(making, copied)),
    )


def _with_samples(block: Block, samples: Mapping[str, tuple[str, ...]]) -> Block:
    """The block with the files of code that load each artifact, by its path."""
    rows = tuple(replace_fields(row, samples=samples.get(row.path, ())) for row in block.rows)
    return replace_fields(block, rows=rows)


def write_report(out: Path, report: Report) -> Path:
    """The folder of a report on files that stay where they are: no artifacts, its own manifest."""
    from workbench.report import html, markdown

    folder, first = _writable(free(out)), report.first
    try:
        making = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{MAKING}{os.getpid()}-"))
        try:
            (making / "report.html").write_text(html.render(report), encoding="utf-8")
            (making / "report.md").write_text(markdown.render(report), encoding="utf-8")
            write_json(making / "report.json", report_json(report))
            files = sorted(path for path in making.rglob("*") if path.is_file())
            manifest = {
                "profiled": {row.path: row.sha256 for row in first.rows},
                "dataset": {"name": first.dataset},
                "device": {"name": first.device, "threads": first.threads},
                "host": dict(first.host),
                "versions": {**report.versions, "workbench": __version__},
                "created": report.created,
                "measured": report.measured,
                "seconds": report.seconds,
                "files": {str(path.relative_to(making)): digest(path) for path in files},
            }
            write_json(making / MANIFEST, manifest)
            making.chmod(0o755)
            return _replace(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    except OSError as error:
        raise describe_os_error(error) from error


def _replace(making: Path, folder: Path) -> Path:
    old = making.with_name(f"{making.name}.old")
    if folder.is_dir():
        folder.rename(old)
    making.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def _place(making: Path, folder: Path) -> Path:
    """Rename to the first free name: two runs may end up with the same second."""
    free_path, number = folder, 1
    while True:
        try:
            return making.rename(free_path)  # refused where a folder with files stands
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        number += 1
        free_path = folder.with_name(f"{folder.name}-{number}")


def _manifest(making: Path, report: Report, request: Request, outcome: Outcome) -> dict[str, Any]:
    files = sorted(path for path in making.rglob("*") if path.is_file())
    source = request.source
    return {
        "recipe": request.recipe.to_json(),
        "settings": list(request.settings),
        "model": {
            "spec": source.spec,
            "weights": str(source.weights) if source.weights else None,
            "weights_sha256": digest(source.weights) if source.weights else None,
            **outcome.model_manifest(),
        },
        "dataset": {"data": request.data if isinstance(request.data, str) else "random",
                    **outcome.dataset.to_manifest()},
        "device": request.device.to_json(),
        "host": dict(report.first.host),
        "versions": {**report.versions, "workbench": __version__},
        "seeds": {"model": source.seed, "bootstrap": 0},
        "created": report.created,
        "measured": report.measured,
        "seconds": report.seconds,
        # Empty where it came from the cache; `measured` says when it was done.
        "measuring_seconds": {
            name: round(outcome.timings[name], 3)
            for name in ("latency", "accuracy")
            if name in outcome.timings
        },
        "steps": [
            {
                "id": result.located.id,
                "seconds": result.seconds,
                "cached": result.cached,
                "cache_key": result.key,
                "error": str(result.error) if result.error else None,
                "history": list(result.artifact.history) if result.artifact else None,
            }
            for result in outcome.results
        ],
        "files": {str(path.relative_to(making)): digest(path) for path in files},
    }  # fmt: skip
