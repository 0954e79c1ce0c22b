"""One float ONNX file to static INT8, without a recipe: what `workbench.api.quantize` calls."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact
from workbench.cache import describe_os_error
from workbench.device import profile
from workbench.errors import InputError, ModelError, RecipeError, did_you_mean
from workbench.model import ModelSource
from workbench.options import options_of
from workbench.recipe import Context
from workbench.run.subjects import EXAMPLES, SEED
from workbench.sources.onnx_model import load_onnx
from workbench.steps import QuantizeStatic

if TYPE_CHECKING:
    from workbench.dataset import Dataset
    from workbench.display import Display


def quantize_file(
    path: Path, dataset: Dataset, device: str, folder: Path, options: Mapping[str, Any],
    display: Display,
) -> Artifact:  # fmt: skip
    """The INT8 file of a float one, with what belongs to it in `folder`, as the step makes it.

    Args:
        device: the profile of what the file is for: its CPU decides the arithmetic.
        options: those of `QuantizeStatic`.

    Raises InputError for a file, samples or options that are wrong, StepError where nothing was
    quantized or the INT8 file does not run.
    """
    step = _step(options)
    target = profile.load(device)
    source = ModelSource(spec=str(path.expanduser().absolute()))
    if source.kind != "onnx":
        raise ModelError(f"{path} is no ONNX file", "", "give the .onnx file of a float model")
    if not path.expanduser().is_file():
        raise ModelError(f"there is no file {path}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file", "", "give a folder for the INT8 file")
    display.plan({step.name: step.seconds})
    display.update(step.name, 0.0)
    dataset.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".wb-") as scratch:
            given, written = Path(scratch) / "given", Path(scratch) / "written"
            given.mkdir()
            written.mkdir()
            subject = load_onnx(source, dataset.examples(EXAMPLES, SEED), given)
            context = Context(
                folder=written,
                dataset=dataset,
                device=target,
                progress=lambda fraction, note: display.update(step.name, fraction, note),
                seed=SEED,
            )
            artifact = step.run(subject, context)
            for made in (artifact.path, *artifact.companions):
                made.replace(folder / made.name)
    except OSError as error:
        raise describe_os_error(error) from error
    display.done(step.name)
    return artifact.in_folder(folder)


def _step(options: Mapping[str, Any]) -> QuantizeStatic:
    """The step with these options. Raises RecipeError for one that it does not have."""
    known = options_of(QuantizeStatic)
    for name in options:
        if name not in known:
            raise RecipeError(f"no option '{name}' in quantize", "", did_you_mean(name, known))
    return QuantizeStatic(**options)
