"""What steps have in common: trying a file just made, and handing one on as it came."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.artifact import Artifact
from workbench.errors import StepError, first_line

if TYPE_CHECKING:
    from workbench.recipe import Context

Array = NDArray[Any]


def outputs_of(
    artifact: Artifact, inputs: Mapping[str, Array], *, each: bool = False
) -> list[Array]:
    """A file's outputs; `each`: the samples one at a time, as an app runs them.

    Raises StepError where the runtime refuses the file, or fails on it.
    """
    from workbench.device.session import infer, infer_each, open_session

    try:
        session = open_session(artifact, threads=0)
        return infer_each(session, inputs) if each else infer(session, inputs)
    except Exception as error:
        raise StepError(
            f"{artifact.path.name}, just made, does not run",
            first_line(error)[:300],
            "the conversion is at fault: report it with the run's manifest",
        ) from error


def handed_on(subject: Artifact, context: Context, notes: tuple[str, ...]) -> Artifact:
    """The float file as it came, with the reasons."""
    path = context.folder / "model.float32.onnx"
    shutil.copyfile(subject.path, path)
    return replace(subject, path=path, companions=(), notes=(*subject.notes, *notes))
