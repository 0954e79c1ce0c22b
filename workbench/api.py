"""The Python face: what `import workbench as wb` gives, for notebooks and scripts.

The commands of `wb` call these functions too, and print what they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from workbench.run.run_options import ModelOptions, RunOptions

if TYPE_CHECKING:
    from workbench.artifact import Artifact
    from workbench.cache import Cache
    from workbench.dataset import Dataset
    from workbench.display import Display
    from workbench.model import Model
    from workbench.report.data import Report
    from workbench.run.recipe_run import Finished
    from workbench.sweep.result import Result

EXAMPLES = 8  # samples that a model is tried on when it is loaded


class SweepRunKeywords(TypedDict, total=False):
    """The options of `RunOptions` that every trial of a sweep has, as a caller may write them."""

    model: str | None
    weights: str | Path | None
    task: str
    sha256: str | None
    seed: int
    data: str | Path | None
    inputs: Sequence[str]
    settings: Sequence[str]
    devices: Sequence[str]
    preset: str
    samples: int


class RunKeywords(SweepRunKeywords, total=False):
    """Every option of `RunOptions`, as a caller may write it."""

    max_drop: float | None
    operators: bool


def run_recipe(
    recipe: str | RunOptions,
    *,
    out: str | Path | None = None,
    cache: Cache | None = None,
    display: Display | None = None,
    **options: Unpack[RunKeywords],
) -> Finished:
    """Run a recipe: make the artifacts, measure them, write a report. As `wb recipe` does.

        >>> run = wb.run_recipe("mobile-int8", model="net.py:build", data="data.toml")
        >>> run.report.row("ort.to_ort").path
        'artifacts/model.int8.ort'

    Without a model and data it runs on the embedded digits classifier.

    Args:
        recipe: a recipe's name or file; or `RunOptions`, which `options` then change.
        out: the run's folder, instead of runs/….
        cache: where results are kept for the next run; the user's, if none.
        display: what is told of the run's progress, if anything.
        options: the fields of `RunOptions`: model, weights, data, settings, devices, preset, ….

    A branch that failed is a row with an error in the report. Raises InputError for options that
    are wrong, and the WorkbenchError of what ended the run.
    """
    from workbench.cache import Cache
    from workbench.display import Quiet
    from workbench.run.recipe_run import execute

    request, plan = _options_of(recipe, options).resolve()
    folder = Path(out) if out is not None else None
    with nullcontext(cache) if cache is not None else closing(Cache()) as results:
        return execute(request, plan, results, display or Quiet(), folder)


def run_sweep(
    recipe: str | RunOptions,
    vary: Sequence[str],
    *,
    minimise: str = "size,latency",
    max_drop: float | None = None,
    max_size: str | None = None,
    max_latency: Sequence[str] = (),
    branch: str | None = None,
    search: str | None = None,
    trials: int | None = None,
    search_seed: int = 0,
    jobs: int | None = None,
    on: str | None = None,
    storage: str | None = None,
    resume: bool = False,
    out: str | Path | None = None,
    display: Display | None = None,
    **options: Unpack[SweepRunKeywords],
) -> Result:
    """Run a recipe with many options, and find what they trade: the Pareto front. As `wb sweep`.

        >>> sweep = wb.run_sweep(
        ...     "mobile-int8", ["quantize.preset=fast,best"], minimise="size,drop", preset="none"
        ... )
        >>> [point.trial.settings for point in sweep.front]
        [('quantize.preset=fast',), ('quantize.preset=best',)]

    Args:
        recipe: a recipe's name or file; or `RunOptions`, which `options` then change.
        vary: STEP.OPTION=VALUES of each option that is varied, see `SweepOptions`.
        minimise, max_drop, max_size, max_latency, branch, search, trials: see `SweepOptions`.
        search_seed: of the search; `seed` is the model's.
        jobs: trials side by side; as many as cores and memory take, if none.
        on: ray, or ray://HOST:PORT: trials on a Ray cluster.
        storage: Optuna's, as a URL; SQLite in the folder, if none.
        resume: go on with a sweep.
        out: the sweep's folder, instead of runs/….
        display: what is told of the sweep's progress, if anything.
        options: the fields of `RunOptions`.

    Raises InputError for options that are wrong, before any work.
    """
    from workbench.display import Quiet
    from workbench.sweep import command

    spec = command.specify_sweep(
        _options_of(recipe, options),
        command.SweepOptions(
            vary=tuple(vary), minimise=minimise, max_drop=max_drop, max_size=max_size,
            max_latency=tuple(max_latency), branch=branch, search=search, trials=trials,
            seed=search_seed,
        ),
    )  # fmt: skip
    return command.run_sweep(
        spec, out=Path(out) if out is not None else None, storage=storage, resume=resume,
        jobs=jobs, on=on, display=display or Quiet(),
    )  # fmt: skip


def profile(
    files: str | Path | Sequence[str | Path],
    dataset: str | Path | Dataset | None = None,
    device: str | Sequence[str] = "cpu",
    *,
    inputs: Sequence[str] = (),
    preset: str = "standard",
    samples: int = 64,
    resume: bool = False,
    operators: bool = False,
    out: str | Path | None = None,
    display: Display | None = None,
) -> Report:
    """Measure model files as they are: size, load time, latency, memory; accuracy with a dataset.

        >>> wb.profile(["net.onnx", "net.int8.onnx"], "data.toml", preset="quick").to_pandas()

    As `wb profile` does. The first file is what the others are held against.

    Args:
        files: model files of any formats; one, or several.
        dataset: its name or .toml file, or one that `load_dataset` gave.
        device: a profile's name, tag:NAME, class:NAME, or all; one, or several.
        inputs: NAME:SHAPE[:DTYPE] of inputs, where there is no dataset.
        preset: how long is measured: quick, standard or strict.
        samples: evaluation samples whose outputs a device gives back.
        resume: keep what an interrupted run finished on the devices.
        operators: ask devices for the time of each operator.
        out: a folder for the report; none is written without.
        display: what is told of the progress, if anything.

    What keeps a file from running is an error of its row. Raises InputError for files and words
    that are wrong.
    """
    from workbench.display import Quiet
    from workbench.run.files_profile import ProfileOptions, profile_files

    paths = [files] if isinstance(files, str | Path) else files
    options = ProfileOptions(
        files=tuple(Path(path) for path in paths),
        data=str(dataset) if isinstance(dataset, Path) else dataset,
        inputs=tuple(inputs), devices=(device,) if isinstance(device, str) else tuple(device),
        preset=preset, samples=samples, resume=resume, operators=operators,
        out=Path(out) if out is not None else None,
    )  # fmt: skip
    return profile_files(options, display or Quiet())


def quantize(
    onnx_file: str | Path,
    dataset: str | Path | Dataset,
    *,
    out: str | Path | None = None,
    device: str = "cpu",
    display: Display | None = None,
    **options: Any,
) -> Artifact:
    """Quantize a float ONNX file to static INT8, with ranges from a dataset's samples.

        >>> artifact = wb.quantize("net.onnx", "data.toml", preset="fast")
        >>> artifact.path
        PosixPath('net-int8/model.int8.onnx')

    As the step `QuantizeStatic` does in a recipe, beside whose file stand `ranges.json` and
    `quantization.json`: what each layer lost, and what each technique gave.

    Args:
        onnx_file: a float file, of a dynamic batch or one of 1.
        dataset: its name or .toml file, or one that `load_dataset` gave.
        out: the folder for the files; NAME-int8 in the working directory, if none.
        device: the profile of what the file is for: its CPU decides the arithmetic.
        display: what is told of the progress, if anything.
        options: those of `QuantizeStatic`: preset, max_drop, samples, scheme, exclude, ….

    Raises InputError for a file, samples or options that are wrong, and StepError where nothing
    was quantized or the INT8 file does not run.
    """
    from workbench.display import Quiet
    from workbench.run.quantization import quantize_file

    path = Path(onnx_file)
    folder = Path(out) if out is not None else Path(f"{path.stem}-int8")
    return quantize_file(path, load_dataset(dataset), device, folder, options, display or Quiet())


def load_dataset(dataset: str | Path | Dataset) -> Dataset:
    """The dataset of that name in calibration/, or of that .toml file; one that is loaded, as is.

        >>> digits = wb.load_dataset("digits")
        >>> len(digits.evaluation)
        899

    Raises DatasetError for what is wrong in the file, or in the samples that it names.
    """
    from workbench import dataset as datasets

    if isinstance(dataset, datasets.Dataset):
        return dataset
    return datasets.load(str(dataset))


def load_model(
    model: str | None = None,
    *,
    weights: str | Path | None = None,
    task: str = "",
    sha256: str | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    inputs: Sequence[str] = (),
) -> Model | Artifact:
    """The model that `--model` names: a live torch module with example inputs; or an ONNX file.

        >>> model = wb.load_model()
        >>> model.input_names, model.output_names
        (('input',), ('output',))

    Args:
        model: see `ModelOptions`; the embedded digits classifier, if none.
        weights, task, sha256, seed, data, inputs: see `ModelOptions`.

    Raises ModelError for a model that cannot be loaded, or that does not take the samples.
    """
    from workbench.dataset.loading import load_dataset
    from workbench.inspect.artifacts import open_artifact
    from workbench.sources.loading import check_files, load, source_files

    options = ModelOptions(
        model=model,
        **_plain(weights=weights, task=task, sha256=sha256, seed=seed, data=data, inputs=inputs),
    )
    source = options.source()
    if source.kind == "onnx":
        check_files(source)
        return open_artifact(source_files(source)[0])
    examples = load_dataset(options.samples_for(source)).examples(EXAMPLES, seed)
    return load(source, examples, Path())


def _options_of(recipe: str | RunOptions, options: Any) -> RunOptions:
    """The run's options, with those changed that a caller gave besides."""
    if isinstance(recipe, RunOptions):
        return replace(recipe, **_plain(**options))
    return RunOptions(recipe=str(recipe), **_plain(**options))


def _plain(**options: Any) -> dict[str, Any]:
    """Options as `RunOptions` has them: sequences as tuples, paths as paths."""
    for name in ("inputs", "settings", "devices"):
        if name in options:
            options[name] = tuple(options[name])
    if options.get("weights") is not None:
        options["weights"] = Path(options["weights"])
    if options.get("data") is not None:
        options["data"] = str(options["data"])
    return options
