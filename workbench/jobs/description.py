"""The jobs that tell what the engine must know of a dataset and of a model before it starts."""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench import parity
from workbench.arrays import batch_size, concatenate, split_samples
from workbench.artifact import Artifact, digest
from workbench.cache import key_of
from workbench.dataset.facts import DatasetFacts, dataset_facts
from workbench.dataset.loading import Data, load_dataset
from workbench.engine.facts import ModelFacts
from workbench.jobs.loaded import load_model
from workbench.model import Model, ModelSource
from workbench.progress import Progress
from workbench.sources import loading
from workbench.usercode import Dependencies, watch_files

# dB: other kernels for other batches round differently, and no more than that.
ALIKE = 60.0
MIXING = "a sample's outputs depend on the others of its batch: scored one sample at a time"


def describe_dataset(name: str, progress: Progress) -> DatasetFacts:
    """What the engine must know of a dataset before it starts, every sample read once."""
    dependencies = Dependencies()
    with watch_files(dependencies):
        dataset = load_dataset(name)
        dataset.check()
        facts = dataset_facts(dataset, (dataset.calibration, dataset.evaluation))
    depends = set(dependencies.paths)
    depends |= {path.parent for path in dependencies.paths}  # a file added or removed shows there
    return replace(facts, depends=tuple(sorted(str(path) for path in depends)))


def describe_model(
    source: ModelSource, data: Data, folder: Path, progress: Progress
) -> tuple[ModelFacts, Artifact | None]:
    """A model's facts, after it took real samples; with an ONNX file's artifact in `folder`."""
    dependencies = Dependencies()
    # Read before the watch begins: the dataset's files are not what the model rests on.
    load_dataset(data).examples(8, source.seed)
    with watch_files(dependencies):
        loaded = load_model(source, data, folder)
    depends = {str(path) for path in (*dependencies.paths, *loading.source_files(source))}
    if isinstance(loaded, Artifact):
        facts = ModelFacts(
            fingerprint=loaded.sha256,
            bytes=loaded.size,
            notes=loaded.notes,
            classes=_classes([spec.shape for spec in loaded.outputs]),
            depends=tuple(sorted(depends)),
        )
        return facts, loaded
    module: Model = loaded
    # Weights and structure do not tell what forward does: its sources count too.
    code = {*_class_files(module.module), *(p for p in dependencies.paths if p.suffix == ".py")}
    if source.is_file:
        code |= {*loading.source_files(source)}
    examples = {name: array[:1] for name, array in module.example_inputs.items()}
    outputs = module(examples)
    mixing = _mixes_samples(module)
    asked = "" if source.is_file else source.spec.rpartition(":")[2]
    facts = ModelFacts(
        fingerprint=key_of(
            module.fingerprint,
            sorted(digest(path) for path in code),
            asked,
            source.task,
            [_rough_figures(output) for output in outputs],
            code=(),
        ),
        bytes=module.state_bytes,
        parameters=sum(p.numel() for p in module.module.parameters()),
        notes=(*module.notes, *([MIXING] if mixing else [])),
        classes=_classes([array.shape for array in outputs]),
        mixes_samples=mixing,
        depends=tuple(sorted({*depends, *map(str, code)})),
    )
    return facts, None


def _rough_figures(output: NDArray[Any]) -> tuple[str, ...]:
    """An output's shape, and its size to three digits: the same on any count of threads."""
    values = np.abs(output.astype(np.float64))
    figures = (values.mean(), np.square(values).mean()) if values.size else ()
    return str(output.shape), *(f"{figure:.2e}" for figure in figures)


def _mixes_samples(model: Model) -> bool:
    """Whether a sample's outputs hang on the others of its batch: by a branch on its mean, say.

    An app runs one sample; so must then what its files are scored against.
    """
    inputs = model.example_inputs
    apart = [model(sample) for sample in split_samples(inputs)]
    together = model(inputs)
    if any(len(output) != batch_size(inputs) for output in together):
        return True
    return not parity.compare(concatenate(apart), together).sqnr > ALIKE


def _class_files(module: Any) -> set[Path]:
    """The source files of a module's classes; not torch's, whose version is in every key."""
    files = set()
    for kind in {type(part) for part in module.modules()}:
        if kind.__module__.partition(".")[0] != "torch":
            with contextlib.suppress(TypeError, OSError):  # defined where there is no file
                files.add(Path(inspect.getfile(kind)))
    return files


def _classes(shapes: list[tuple[int | None, ...]]) -> int | None:
    """The number of classes, where the first output is [N, classes]."""
    return shapes[0][1] if shapes and len(shapes[0]) == 2 else None
