"""The engine: a recipe's steps run in worker processes, cached, resumed, branches side by side."""

from __future__ import annotations

import dataclasses
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.artifact import Artifact, Format, TensorSpec, digest
from workbench.cache import Cache, key_of
from workbench.device.probe import versions
from workbench.device.profile import Device
from workbench.display import Display
from workbench.errors import CrashError, DatasetError, ModelError, RecipeError, WorkbenchError
from workbench.model import PACKAGES, ModelSource
from workbench.onnxgraph import signature
from workbench.process import Pool, close_all
from workbench.recipe import ORIGINAL, Located, Recipe

Data = str | tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One run, as plain values: which recipe, on which model, with which data, for which device.

    data: a dataset's path, or input specs where there are no samples. settings: the `--set` texts
    that `recipe` already carries, so that a worker can rebuild it. device: whose CPU decides the
    INT8 arithmetic; others: where the same artifacts are measured too. samples: how many of them
    are run on devices with a runner for their outputs. operators: see `wb profile --op-profile`.
    only: the rows whose latency is measured, and the baseline's; all where it is empty.
    """

    recipe: Recipe
    settings: tuple[str, ...]
    source: ModelSource
    data: Data
    device: Device
    others: tuple[Device, ...] = ()
    samples: int = 64
    operators: bool = False
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepResult:
    """A step's artifact or its error, and how it was come by."""

    located: Located
    artifact: Artifact | None = None
    error: WorkbenchError | None = None
    seconds: float = 0.0
    cached: bool = False
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running a recipe gave: descriptions of its inputs, and every step's result in order."""

    model: dict[str, Any]
    dataset: dict[str, Any]
    results: tuple[StepResult, ...]
    start: Artifact | None = None  # the user's ONNX file, where the model is one
    timings: dict[str, float] = field(default_factory=dict)


class Engine:
    """Runs one request. Everything it makes is in the cache when it returns."""

    def __init__(self, request: Request, cache: Cache, pool: Pool, display: Display) -> None:
        self.request = request
        self.cache = cache
        self.display = display
        self.pool = pool
        self.timings: dict[str, float] = {}

    def run(self) -> Outcome:
        """Describe the inputs, run trunk and branches.

        Raises the WorkbenchError of a bad input or of a failed trunk step; a failed branch is an
        error in its result, and the other branches go on.
        """
        self._located()  # what cannot begin, before anything is read
        dataset = self.describe_dataset()
        model, start = self.describe_model(dataset)
        self._check(dataset, model)
        return self._run(dataset, model, start)

    def describe_dataset(self) -> dict[str, Any]:
        """The dataset's splits, fingerprints and inputs; nothing is read where nothing changed."""
        data = self.request.data
        if not isinstance(data, str):
            return {"name": "random inputs", "metric": "", "splits": {},
                    "inputs": [spec.to_json() for spec in data]}  # fmt: skip
        key = key_of("dataset", data, versions(("numpy", "pillow", "scikit-learn")))
        if (known := self._known("dataset", key)) is not None:
            return known
        if self.request.source.kind == "onnx":
            return self._described("dataset", key, "describe_dataset", data)
        # The model comes next, in another process: it imports torch while samples are read.
        with self.pool.warming("describe_model", "torch"):
            return self._described("dataset", key, "describe_dataset", data)

    def describe_model(self, dataset: dict[str, Any]) -> tuple[dict[str, Any], Artifact | None]:
        """The model's fingerprint and size; for an ONNX file, the artifact it is copied to."""
        source = self.request.source
        source.check()
        inputs = dataset["inputs"]
        if source.kind == "onnx":
            digests = [digest(path) for path in signature.files(source.files[0])]
            key = key_of("source", digests, inputs, versions(("onnx",)))
            self.display.update("model", 0, source.name)
            folder, found, cached = self.cache.make(
                key,
                lambda made: self._call("model", "describe_model", source, self.request.data, made),
            )
            self.display.done("model", "cached" if cached else "done")
            return found, Artifact.from_json(found["artifact"], folder)
        packages = versions(("torch", "safetensors", *PACKAGES.get(source.kind, ())))
        key = key_of("model", dataclasses.asdict(source), inputs, packages)
        if (known := self._known("model", key)) is not None:
            return known, None
        given = (source, self.request.data, Path())
        try:
            return self._described("model", key, "describe_model", *given), None
        except CrashError as error:
            if not source.is_file or "signal" not in error.why:
                raise
            raise ModelError(  # a damaged file can crash its reader
                f"{source.files[0]} cannot be loaded",
                f"its reader died: {error.why.partition(';')[0]}",
                "the file is damaged: get it again",
            ) from error

    def _known(self, task: str, key: str) -> dict[str, Any] | None:
        found = self.cache.record(key)
        if found is not None:
            self.display.done(task, "cached")
        return found

    def _described(self, task: str, key: str, job: str, *arguments: Any) -> dict[str, Any]:
        self.display.update(task, 0)
        found = self._call(task, job, *arguments)
        self.cache.store(key, found, [Path(path) for path in found.pop("depends")])
        self.display.done(task)
        return found

    def _call(self, task: str, job: str, *arguments: Any) -> dict[str, Any]:
        def progress(fraction: float, note: str) -> None:
            self.display.update(task, fraction, note)

        made: dict[str, Any] = self.pool.call(job, *arguments, progress=progress)
        return made

    def _check(self, dataset: dict[str, Any], model: dict[str, Any]) -> None:
        """What can be known to fail before any work starts."""
        evaluation = dataset["splits"].get("evaluation", {})
        highest, classes = evaluation.get("highest_label"), model["classes"]
        if (
            highest is not None
            and classes is not None
            and highest >= classes
            and not dataset["metric"]
        ):
            raise DatasetError(
                f"labels out of range: the highest is {highest}, the model has {classes} classes",
                "",
                "check the dataset's labels, and that it is the model's",
            )
        calibration = dataset["splits"].get("calibration")
        for located in self._located():
            wanted = getattr(located.step, "samples", None)
            if located.step.needs_data and calibration is None:
                raise DatasetError(
                    f"{located.id} needs calibration samples, and there are none",
                    "",
                    "give a dataset with a calibration split: --data FILE",
                )
            if located.step.needs_data and wanted is not None and wanted > calibration["samples"]:
                raise DatasetError(
                    f"{located.id} asks for {wanted} calibration samples, "
                    f"{dataset['name']} has {calibration['samples']}",
                    "",
                    f"--set {located.id}.samples={calibration['samples']}, or add samples",
                )

    def _located(self) -> list[Located]:
        """The recipe's steps; of those on an ONNX file, without the ones that make one.

        Raises RecipeError where what is left cannot begin with the file.
        """
        recipe, source = self.request.recipe, self.request.source
        if source.kind != "onnx":
            return recipe.located()
        for path in recipe.paths():
            # An export has been done; what else takes a module must not be left out unseen.
            lost = [one for one in path if Format.TORCH in one.step.takes
                    and one.step.gives is Format.PT2]  # fmt: skip
            if lost:
                raise RecipeError(
                    f"{lost[0].id} takes a PyTorch model, and {Path(source.spec).name} is an ONNX "
                    "file",
                    "",
                    "give the PyTorch model: --model file.py:build --weights FILE",
                )
            steps = [one for one in path if Format.TORCH not in one.step.takes]
            if not steps or Format.ONNX not in steps[0].step.takes:
                begins = path[0] if not steps else steps[0]
                raise RecipeError(
                    f"recipe {recipe.name} cannot begin with {Path(source.spec).name}",
                    f"{begins.id} takes {' or '.join(begins.step.takes)}, and that is an ONNX file",
                    "give the PyTorch model: --model file.py:build --weights FILE",
                )
        return [one for one in recipe.located() if Format.TORCH not in one.step.takes]

    def _run(
        self, dataset: dict[str, Any], model: dict[str, Any], start: Artifact | None
    ) -> Outcome:
        trunk = [one for one in self._located() if not one.branch]
        subject: Artifact | ModelSource = start or self.request.source
        results = self._branch(ORIGINAL, subject, dataset, model)
        if start is not None and not trunk:  # the file itself is the baseline
            results.append(StepResult(Located("model", "model", "", None), start, cached=True))
        for located in trunk:
            result = self._step(located, subject, dataset, model)
            if result.error is not None:
                raise result.error
            assert result.artifact is not None
            results.append(result)
            subject = result.artifact
        branches = self.request.recipe.branches
        with ThreadPoolExecutor(max(1, min(len(branches), os.cpu_count() or 1))) as threads:
            futures = [
                threads.submit(self._branch, name, subject, dataset, model) for name in branches
            ]
            try:
                for future in futures:
                    results += future.result()
            except BaseException:  # Ctrl-C: end the workers, or the threads wait for them
                close_all()
                raise
        return Outcome(
            model=model, dataset=dataset, results=tuple(results), start=start, timings=self.timings
        )

    def _branch(
        self, name: str, subject: Any, dataset: dict[str, Any], model: dict[str, Any]
    ) -> list[StepResult]:
        results = []
        for located in self._located():
            if located.branch != name:
                continue
            result = self._step(located, subject, dataset, model)
            results.append(result)
            if result.artifact is None:
                break
            subject = result.artifact
        return results

    def step_key(
        self, located: Located, subject: Any, dataset: dict[str, Any], model: dict[str, Any]
    ) -> str:
        """The hash of everything that decides a step's result."""
        step = located.step
        given = subject.sha256 if isinstance(subject, Artifact) else model["fingerprint"]
        calibration = dataset["splits"].get("calibration", {}).get("fingerprint")
        evaluation = dataset["splits"].get("evaluation", {}).get("fingerprint")
        # Steps that decide by samples where there are any, and do without where there are none.
        looks = getattr(step, "looks_at_data", False)
        device = self.request.device
        return key_of(
            "step",
            type(step).__qualname__,
            _own_source(type(step)),
            dataclasses.asdict(step),
            [digest(path) for path in getattr(step, "sources", ()) if path.is_file()],
            given,
            dataset["inputs"],
            calibration if step.needs_data else (calibration or evaluation) if looks else None,
            (device.quantization, device.architecture, device.provider),
            device.to_json() if getattr(step, "times_device", False) else None,
            self.request.source.seed,
            versions(step.packages),
        )

    def _step(
        self, located: Located, subject: Any, dataset: dict[str, Any], model: dict[str, Any]
    ) -> StepResult:
        key = self.step_key(located, subject, dataset, model)
        request = self.request

        def build(folder: Path) -> dict[str, Any]:
            self.display.update(located.id, 0.0)
            recipe = (str(request.recipe.path), request.settings)
            artifact = self.pool.call(
                "step", recipe, located.id, subject, request.data, request.device, folder,
                self.cache.work, request.source.seed,
                progress=lambda fraction, note: self.display.update(located.id, fraction, note),
            )  # fmt: skip
            return {"artifact": artifact.to_json()}

        try:
            folder, data, cached = self.cache.make(
                key, build, lambda: self.display.message(f"{located.id}: another run is making it")
            )
        except WorkbenchError as error:
            self.display.done(located.id, "failed")
            return StepResult(located, error=_named(error, located.id), key=key)
        self.display.done(located.id, "cached" if cached else "done")
        if not cached:
            self.timings[located.id] = data["seconds"]
        artifact = Artifact.from_json(data["artifact"], folder)
        return StepResult(located, artifact, None, data["seconds"], cached, key)


def _named(error: WorkbenchError, step: str) -> WorkbenchError:
    """The error with the step's name in front, kept of its own kind."""
    return type(error)(f"{step}: {error.what}", error.why, error.fix)


def _own_source(step: type) -> str:
    """The digest of a step's file, where it is not the workbench's (whose code is in every key)."""
    try:
        path = Path(inspect.getfile(step))
    except (TypeError, OSError):
        return ""
    return "" if path.is_relative_to(Path(__file__).parents[1]) else digest(path)
