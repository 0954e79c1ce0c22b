"""The jobs that worker processes run. Each is a function of plain values, named in `worker.jobs`.

What a process loaded it keeps: the model that one job described, the next one exports.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench import dataset as datasets
from workbench import model as models
from workbench import parity
from workbench import recipe as recipes
from workbench.arrays import batch_size, concatenate, split_samples
from workbench.artifact import Artifact, Format, digest
from workbench.cache import key_of
from workbench.device.profile import Device
from workbench.device.session import Session, infer, open_session
from workbench.engine.facts import DatasetFacts, ModelFacts, SplitFacts
from workbench.engine.request import Data
from workbench.errors import DeviceError, ModelError, WorkbenchError, first_line
from workbench.model import Model, ModelSource
from workbench.progress import Progress
from workbench.recipe import Context
from workbench.tflite.tensorflow_jobs import make_flatbuffer, make_saved_model
from workbench.usercode import Dependencies, watched

__all__ = [
    "describe_dataset", "describe_model", "infer_batch", "make_flatbuffer", "make_saved_model",
    "measure_latency", "open_target", "run_step", "warm",
]  # fmt: skip

# dB: other kernels for other batches round differently, and no more than that.
ALIKE = 60.0
MIXING = "a sample's outputs depend on the others of its batch: scored one sample at a time"


@lru_cache(maxsize=4)
def load_dataset(name: Data) -> datasets.Dataset:
    """A dataset by name or path, or one of random inputs by their specs."""
    return datasets.load(name) if isinstance(name, str) else datasets.random_dataset(name)


@lru_cache(maxsize=2)
def load_model(source: ModelSource, data: Data, folder: Path) -> Any:
    return models.load(source, load_dataset(data).examples(8, source.seed), folder)


def warm(modules: Sequence[str], progress: Progress) -> None:
    """Import what a later job takes, while this process has nothing else to do."""
    for name in modules:
        importlib.import_module(name)


def describe_dataset(name: str, progress: Progress) -> DatasetFacts:
    """What the engine must know of a dataset before it starts, every sample read once."""
    dependencies = Dependencies()
    with watched(dependencies):
        dataset = load_dataset(name)
        dataset.check()
        splits = {}
        for split in (dataset.calibration, dataset.evaluation):
            if split is not None:
                labels = split.labels
                numeric = labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu"
                splits[split.name] = SplitFacts(
                    samples=len(split),
                    fingerprint=split.fingerprint,
                    labelled=labels is not None,
                    highest_label=int(labels.max()) if numeric and labels is not None else None,
                )
        first = dataset.evaluation or dataset.calibration
        raw = first.source.sample(int(first.indices[0])) if first is not None else {}
    depends = set(dependencies.paths)
    depends |= {path.parent for path in dependencies.paths}  # a file added or removed shows there
    return DatasetFacts(
        name=dataset.name,
        metric=dataset.metric_name,
        metric_digest=_source_digest(dataset.metric),
        splits=splits,
        inputs=dataset.inputs,
        preprocess=first.preprocess if first is not None else None,
        raw={name: (str(array.dtype), array.shape) for name, array in raw.items()},
        depends=tuple(sorted(str(path) for path in depends)),
    )


def _source_digest(function: Any) -> str | None:
    """The digest of the file that a user's function is in: another metric, other scores."""
    try:
        return digest(Path(inspect.getfile(inspect.unwrap(function))))
    except (TypeError, OSError):
        return None


def describe_model(
    source: ModelSource, data: Data, folder: Path, progress: Progress
) -> tuple[ModelFacts, Artifact | None]:
    """A model's facts, after it took real samples; with an ONNX file's artifact in `folder`."""
    dependencies = Dependencies()
    # Read before the watch begins: the dataset's files are not what the model rests on.
    load_dataset(data).examples(8, source.seed)
    with watched(dependencies):
        loaded = load_model(source, data, folder)
    depends = {str(path) for path in (*dependencies.paths, *source.files)}
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
        code |= {*source.files}
    examples = {name: array[:1] for name, array in module.example_inputs.items()}
    mixing = _mixes_samples(module)
    facts = ModelFacts(
        fingerprint=key_of(module.fingerprint, sorted(digest(path) for path in code)),
        bytes=module.state_bytes,
        parameters=sum(p.numel() for p in module.module.parameters()),
        notes=(*module.notes, *([MIXING] if mixing else [])),
        classes=_classes([array.shape for array in module(examples)]),
        mixes_samples=mixing,
        depends=tuple(sorted({*depends, *map(str, code)})),
    )
    return facts, None


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
    step = next(one.step for one in located if one.id == step_id)
    given = _given(subject, data, folder)
    context = Context(
        folder=folder,
        dataset=load_dataset(data),
        device=device,
        work=work,
        progress=progress,
        seed=seed,
    )
    made: Artifact = step.run(given, context)
    return made


def _given(subject: Artifact | ModelSource, data: Data, folder: Path) -> Any:
    """What a step takes: a live module for a source, and for a `.pt2` that another step made."""
    if isinstance(subject, Artifact):
        if subject.format != Format.PT2:
            return subject
        subject = ModelSource(spec=str(subject.path))
    return load_model(subject, data, folder)


_open: list[tuple[Artifact | ModelSource, Session]] = []


def open_target(
    target: Artifact | ModelSource,
    threads: int,
    examples: Any,
    device: Device | None = None,
    *,
    progress: Progress,
) -> None:
    """Load an artifact, to be asked with `infer_batch`; on the CPU without a device."""
    _open[:] = [(target, open_session(target, threads, examples, device))]


def drop_target(progress: Progress) -> None:
    """Close what `open_target` loaded."""
    _open.clear()


def infer_batch(inputs: Any, progress: Progress) -> list[Any]:
    """Outputs of the artifact that `open_target` loaded."""
    target, session = _open[0]
    with _running(target):
        return infer(session, inputs)


@contextlib.contextmanager
def _running(target: Artifact | ModelSource) -> Iterator[None]:
    """What a runtime raises on a file's operators is the file's error, not one of ours."""
    try:
        yield
    except (WorkbenchError, MemoryError):
        raise
    except Exception as error:
        if not isinstance(target, Artifact):  # a user's code: its traceback says where
            raise
        # ONNX Runtime names its own source file and function on the way.
        said = re.sub(r" ?/\S+\.(h|cc):\d+ [^)]*\)", "", first_line(error))
        raise DeviceError(
            f"{target.path.name} fails on inputs of its shape", f"{type(error).__name__}: {said}"
        ) from error


def measure_latency(
    target: Artifact | ModelSource,
    inputs: Any,
    device: Device,
    warmup: int,
    runs: int,
    seconds: float,
    progress: Progress,
) -> dict[str, Any]:
    """Load a target and time it, one sample a run, until `runs` and `seconds` are both reached.

    Times in nanoseconds; peak memory is what loading and running added to the process, in bytes.
    """
    if device.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, device.cores)
    _import_runtime(target)
    before = _reset_peak()
    clock = time.perf_counter_ns
    started = clock()
    session = open_session(target, device.threads, inputs, device)
    loaded = clock() - started
    with _running(target):
        prepared = session.prepare(inputs)
        started = clock()
        session.run(prepared)
        first = clock() - started
    for _ in range(warmup):
        session.run(prepared)
    samples: list[int] = []
    deadline = clock() + int(seconds * 1e9)
    while len(samples) < runs or clock() < deadline:
        started = clock()
        session.run(prepared)
        samples.append(clock() - started)
    return {
        "load_ns": loaded,
        "first_ns": first,
        "samples_ns": samples,
        "peak_bytes": max(0, _peak() - before),
    }


def _import_runtime(target: Artifact | ModelSource) -> None:
    """Pay for imports before the clock starts: an app links its runtime, it does not import it."""
    if isinstance(target, ModelSource) or target.format in ("torchscript", "pt2"):
        import torch

        torch.ones(1) + 1
        kind = target.kind if isinstance(target, ModelSource) else target.format
        if kind == "pt2":
            import torch.export.pt2_archive._package  # the reader and its schema
        if kind in models.PACKAGES:
            from workbench.sources import packages

            packages.warm(kind)
    elif target.format == "tflite":
        import ai_edge_litert.interpreter  # noqa: F401
    else:
        import onnxruntime  # noqa: F401


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="ignore").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ModelError(f"/proc/self/status has no {field}")


def _reset_peak() -> int:
    """Start the peak anew, where the kernel lets us; the memory in use now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _peak() -> int:
    try:
        return _status("VmHWM")
    except OSError:
        import resource
        import sys

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
