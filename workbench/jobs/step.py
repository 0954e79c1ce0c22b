"""The job that runs one step of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench import recipe as recipes
from workbench.artifact import Artifact, Format
from workbench.dataset.loading import Data, load_dataset
from workbench.device.profile import Device
from workbench.jobs.loaded import load_model
from workbench.model import ModelSource
from workbench.progress import Progress
from workbench.recipe import Context


def run_step(
    recipe: tuple[str, tuple[str, ...]],
    step_id: str,
    subject: Artifact | ModelSource,
    data: Data,
    device: Device,
    folder: Path,
    work: Path,
    seed: int,
    progress: Progress,
) -> Artifact:
    """Run one step of a recipe, named by its id. The step is rebuilt here from its recipe file."""
    name, settings = recipe
    located = recipes.load(name).with_options(settings).located()
    step = next(entry.step for entry in located if entry.id == step_id)
    taken = _step_input(subject, data, folder)
    context = Context(
        folder=folder,
        dataset=load_dataset(data),
        device=device,
        work=work,
        progress=progress,
        seed=seed,
    )
    artifact: Artifact = step.run(taken, context)
    return artifact


def _step_input(subject: Artifact | ModelSource, data: Data, folder: Path) -> Any:
    """What a step takes: a live module for a source, and for a `.pt2` that another step made."""
    if isinstance(subject, Artifact):
        if subject.format != Format.PT2:
            return subject
        subject = ModelSource(spec=str(subject.path))
    return load_model(subject, data, folder)
