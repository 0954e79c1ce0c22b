"""The engine: a recipe's steps run in worker processes, cached, resumed, branches side by side."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from workbench.artifact import Artifact, Format, TensorSpec, digest
from workbench.cache import key_of
from workbench.codec import from_plain, to_plain
from workbench.dataset.facts import DatasetFacts
from workbench.device.probe import versions
from workbench.engine.facts import ModelFacts
from workbench.engine.keys import step_key
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.errors import CrashError, DatasetError, ModelError, RecipeError, WorkbenchError
from workbench.model import PACKAGES, ModelSource
from workbench.onnxgraph import signature
from workbench.process import close_all
from workbench.recipe import ORIGINAL, Context, Located, Step
from workbench.sources import loading
from workbench.workspace import Workspace

DESCRIBING = ("workbench.jobs.description", "workbench.digits.data")
Subject = Artifact | ModelSource
FactsT = TypeVar("FactsT", DatasetFacts, ModelFacts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnnxFile(Step):
    """The user's file, where it stands in a table as if a step had made it."""

    name: ClassVar[str] = "model"
    takes: ClassVar[tuple[Format, ...]] = ()
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    seconds: ClassVar[float] = 0

    def run(self, subject: Any, context: Context) -> Artifact:
        raise NotImplementedError("the file is there")


class Engine:
    """Runs one request. Everything it makes is in the cache when it returns."""

    def __init__(self, request: Request, workspace: Workspace) -> None:
        self.request = request
        self.workspace = workspace
        self.timings: dict[str, float] = {}

    def run(self) -> Outcome:
        """Describe the inputs, run trunk and branches.

        Raises the WorkbenchError of a bad input or of a failed trunk step; a failed branch is an
        error in its result, and the other branches go on.
        """
        steps = self.steps()  # what cannot begin, before anything is read
        dataset = self.describe_dataset()
        model, start = self.describe_model(dataset)
        self._check(steps, dataset, model)
        return _Execution(self, steps, dataset, model).run(start)

    def describe_dataset(self) -> DatasetFacts:
        """The dataset's splits, fingerprints and inputs; nothing is read where nothing changed."""
        data = self.request.data
        if not isinstance(data, str):
            return DatasetFacts(name="random inputs", inputs=data)
        key = key_of(
            "dataset", data, versions(("numpy", "pillow", "scikit-learn")), code=DESCRIBING
        )
        if (facts := self._recorded("dataset", key, DatasetFacts)) is not None:
            return facts
        # The model comes next, in another process: it imports torch while samples are read.
        with (
            nullcontext()
            if self.request.source.kind == "onnx"
            else self.workspace.pool.warming("describe_model", "torch")
        ):
            described: DatasetFacts = self._call("dataset", "describe_dataset", data)
            return self._record("dataset", key, described)

    def describe_model(self, dataset: DatasetFacts) -> tuple[ModelFacts, Artifact | None]:
        """The model's fingerprint and size; for an ONNX file, the artifact it is copied to."""
        source = self.request.source
        loading.check_files(source)
        if source.kind == "onnx":
            return self._copy_onnx(dataset.inputs)
        packages = versions(("torch", "safetensors", *PACKAGES.get(source.kind, ())))
        key = key_of("model", source, dataset.inputs, packages, code=DESCRIBING)
        if (facts := self._recorded("model", key, ModelFacts)) is not None:
            return facts, None
        try:
            facts, _ = self._call("model", "describe_model", source, self.request.data, Path())
        except CrashError as error:
            if not source.is_file or "signal" not in error.why:
                raise
            raise ModelError(  # a damaged file can crash its reader
                f"{loading.source_files(source)[0]} cannot be loaded",
                f"its reader died: {error.why.partition(';')[0]}",
                "the file is damaged: get it again",
            ) from error
        return self._record("model", key, facts), None

    def _copy_onnx(self, inputs: tuple[TensorSpec, ...]) -> tuple[ModelFacts, Artifact]:
        """The user's ONNX file, read once and copied into the cache."""
        source, display = self.request.source, self.workspace.display
        digests = [digest(path) for path in signature.files(loading.source_files(source)[0])]
        key = key_of("source", digests, inputs, versions(("onnx",)), code=DESCRIBING)

        def build(folder: Path) -> dict[str, Any]:
            facts, artifact = self._call(
                "model", "describe_model", source, self.request.data, folder
            )
            return {"artifact": artifact.to_json(), "facts": to_plain(facts)}

        display.update("model", 0, source.name)
        folder, entry, cached = self.workspace.cache.make(key, build)
        display.done("model", "cached" if cached else "done")
        facts = from_plain({**entry["facts"], "seconds": entry["seconds"]}, ModelFacts)
        return facts, Artifact.from_json(entry["artifact"], folder)

    def _recorded(self, task: str, key: str, kind: type[FactsT]) -> FactsT | None:
        """Facts that an earlier run recorded, where the files that they rest on are the same."""
        record = self.workspace.cache.record(key)
        if record is None:
            return None
        self.workspace.display.done(task, "cached")
        return from_plain(record["facts"], kind)

    def _record(self, task: str, key: str, facts: FactsT) -> FactsT:
        depends = [Path(path) for path in facts.depends]
        self.workspace.cache.store(key, {"facts": to_plain(facts)}, depends)
        self.workspace.display.done(task)
        return facts

    def _call(self, task: str, job: str, *arguments: Any, like: str = "") -> Any:
        """A job's result, its progress shown as the task's; `like` as of `Pool.call`."""
        display = self.workspace.display
        display.update(task, 0.0)
        return self.workspace.pool.call(
            job, *arguments, like=like,
            progress=lambda fraction, note: display.update(task, fraction, note),
        )  # fmt: skip

    def _check(self, steps: list[Located], dataset: DatasetFacts, model: ModelFacts) -> None:
        """What can be known to fail before any work starts."""
        highest = dataset.evaluation.highest_label if dataset.evaluation else None
        out_of_range = (
            highest is not None and model.classes is not None and highest >= model.classes
        )
        if out_of_range and not dataset.metric:
            raise DatasetError(
                f"labels out of range: the highest is {highest}, "
                f"the model has {model.classes} classes",
                "",
                "check the dataset's labels, and that it is the model's",
            )
        calibration = dataset.calibration
        for located in steps:
            if not located.step.needs_data:
                continue
            if calibration is None:
                raise DatasetError(
                    f"{located.id} needs calibration samples, and there are none",
                    "",
                    "give a dataset with a calibration split: --data FILE",
                )
            samples = located.step.samples
            if samples is not None and samples > calibration.samples:
                raise DatasetError(
                    f"{located.id} asks for {samples} calibration samples, "
                    f"{dataset.name} has {calibration.samples}",
                    "",
                    f"--set {located.id}.samples={calibration.samples}, or add samples",
                )

    def steps(self) -> list[Located]:
        """The recipe's steps; of those on an ONNX file, without the ones that make one.

        Raises RecipeError where what is left cannot begin with the file.
        """
        recipe, source = self.request.recipe, self.request.source
        if source.kind != "onnx":
            return recipe.located()
        for path in recipe.paths():
            # An export has been done; what else takes a module must not be left out unseen.
            lost = [located for located in path if Format.TORCH in located.step.takes
                    and located.step.gives is Format.PT2]  # fmt: skip
            if lost:
                raise RecipeError(
                    f"{lost[0].id} takes a PyTorch model, and {Path(source.spec).name} is an ONNX "
                    "file",
                    "",
                    "give the PyTorch model: --model file.py:build --weights FILE",
                )
            left = [located for located in path if Format.TORCH not in located.step.takes]
            if not left or Format.ONNX not in left[0].step.takes:
                first = left[0] if left else path[0]
                raise RecipeError(
                    f"recipe {recipe.name} cannot begin with {Path(source.spec).name}",
                    f"{first.id} takes {' or '.join(first.step.takes)}, and that is an ONNX file",
                    "give the PyTorch model: --model file.py:build --weights FILE",
                )
        return [step for step in recipe.located() if Format.TORCH not in step.step.takes]


@dataclasses.dataclass(frozen=True)
class _Execution:
    """The steps of one run, once its inputs are known."""

    engine: Engine
    steps: list[Located]
    dataset: DatasetFacts
    model: ModelFacts

    def run(self, start: Artifact | None) -> Outcome:
        """Every step's result. Raises the error of a failed trunk step."""
        request = self.engine.request
        trunk = [located for located in self.steps if not located.branch]
        subject: Subject = start or request.source
        results = self._branch(ORIGINAL, subject)
        if start is not None and not trunk:  # the file itself is the baseline
            located = Located("model", "model", "", _OnnxFile())
            results.append(StepResult(located, start, cached=True))
        for located in trunk:
            result = self._step(located, subject)
            if result.error is not None:
                raise result.error
            assert result.artifact is not None
            results.append(result)
            subject = result.artifact
        branches = request.recipe.branches
        with ThreadPoolExecutor(max(1, min(len(branches), os.cpu_count() or 1))) as threads:
            futures = [threads.submit(self._branch, name, subject) for name in branches]
            try:
                for future in futures:
                    results += future.result()
            except BaseException:  # Ctrl-C: end the workers, or the threads wait for them
                close_all()
                raise
        return Outcome(
            model=self.model,
            dataset=self.dataset,
            results=tuple(results),
            start=start,
            timings=self.engine.timings,
        )

    def _branch(self, name: str, subject: Subject) -> list[StepResult]:
        """The results of a branch, up to the first that failed."""
        results = []
        for located in self.steps:
            if located.branch != name:
                continue
            result = self._step(located, subject)
            results.append(result)
            if result.artifact is None:
                break
            subject = result.artifact
        return results

    def _step(self, located: Located, subject: Subject) -> StepResult:
        """A step's artifact, from the cache or a worker; its error where it fails."""
        request, workspace = self.engine.request, self.engine.workspace
        key = step_key(request, located, subject, self.dataset, self.model)
        cache, display = workspace.cache, workspace.display

        def build(folder: Path) -> dict[str, Any]:
            recipe = (str(request.recipe.path), request.settings)
            artifact = self.engine._call(
                located.id, "step", recipe, located.id, subject, request.data, request.device,
                folder, cache.work, request.source.seed, like=f"step {located.name}",
            )  # fmt: skip
            return {"artifact": artifact.to_json()}

        try:
            folder, entry, cached = cache.make(
                key, build, lambda: display.message(f"{located.id}: another run is making it")
            )
        except WorkbenchError as error:
            display.done(located.id, "failed")
            return StepResult(located, error=_prefixed(error, located.id), key=key)
        display.done(located.id, "cached" if cached else "done")
        if not cached:
            self.engine.timings[located.id] = entry["seconds"]
        artifact = Artifact.from_json(entry["artifact"], folder)
        return StepResult(located, artifact, None, entry["seconds"], cached, key)


def _prefixed(error: WorkbenchError, step: str) -> WorkbenchError:
    """The error with the step's name in front, kept of its own kind."""
    return type(error)(f"{step}: {error.what}", error.why, error.fix)
