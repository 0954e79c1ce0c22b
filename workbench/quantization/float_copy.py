"""What quantization gives where no layer may be quantized: the float file as it came."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench.artifact import Artifact

if TYPE_CHECKING:
    from workbench.recipe import Context


def keep_float(subject: Artifact, context: Context, notes: tuple[str, ...]) -> Artifact:
    """The float file as it came, in the step's folder. notes: the reasons, for the user."""
    path = context.folder / "model.float32.onnx"
    shutil.copyfile(subject.path, path)
    return replace(subject, path=path, companions=(), notes=(*subject.notes, *notes))
