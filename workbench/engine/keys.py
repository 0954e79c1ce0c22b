"""The key of a step's result in the cache."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

from workbench.artifact import Artifact, digest
from workbench.cache import key_of
from workbench.code_digest import PACKAGE, named_modules
from workbench.dataset.facts import DatasetFacts
from workbench.device.probe import versions
from workbench.engine.facts import ModelFacts
from workbench.engine.request import Request
from workbench.identity import digest_of
from workbench.model import ModelSource
from workbench.recipe import Located


def step_key(
    request: Request,
    located: Located,
    subject: Artifact | ModelSource,
    dataset: DatasetFacts,
    model: ModelFacts,
) -> str:
    """The hash of everything that decides a step's result."""
    step, device = located.step, request.device
    calibration = dataset.calibration.fingerprint if dataset.calibration else None
    evaluation = dataset.evaluation.fingerprint if dataset.evaluation else None
    samples = calibration
    if not step.needs_data:
        samples = (calibration or evaluation) if step.looks_at_data else None
    return key_of(
        "step",
        type(step).__qualname__,
        _own_source(type(step)),
        dataclasses.asdict(step),
        [digest(path) for path in step.sources if path.is_file()],
        subject.sha256 if isinstance(subject, Artifact) else model.fingerprint,
        dataset.inputs,
        samples,
        (device.quantization, device.architecture, device.provider),
        device.to_json() if step.times_device else None,
        request.source.seed,
        versions(step.packages),
        code=(*_modules(type(step)), "workbench.jobs.step"),
    )


def _own_source(step: type) -> str:
    """Of a user's step, what its file and all that its code calls decide; '' of the workbench's."""
    path = _users_file(step)
    return key_of(digest(path), digest_of(step), code=()) if path is not None else ""


def _users_file(step: type) -> Path | None:
    """The file of a user's step; None for the workbench's own, and where there is no file."""
    try:
        path = Path(inspect.getfile(step))
    except (TypeError, OSError):
        return None
    return None if path.is_relative_to(PACKAGE) else path


def _modules(step: type) -> tuple[str, ...]:
    """The workbench's modules that make a step: its class's, and those that a user's file names."""
    modules = [kind.__module__ for kind in step.__mro__]
    path = _users_file(step)
    if path is not None:
        modules += named_modules(path.read_text(encoding="utf-8", errors="replace"))
    return tuple(dict.fromkeys(modules))
