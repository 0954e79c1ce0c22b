"""`wb compare A B`: two files' outputs, size and latency, and where their graphs diverge."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import dataset as datasets
from workbench.artifact import Format
from workbench.cache import Cache
from workbench.codec import to_plain
from workbench.device import probe, profile, provider_check
from workbench.device.selection import local_only
from workbench.errors import InputError, WorkbenchError
from workbench.inspect import artifacts
from workbench.measure.difference import Difference, Differences
from workbench.measure.plan import MeasurePlan
from workbench.model import parse_inputs
from workbench.process import Worker
from workbench.report.comparison_text import WORST
from workbench.report.data import Report
from workbench.report.report_json import report_json
from workbench.run.file_measuring import FileSet, expected_seconds, measure_files
from workbench.run.packages import PACKAGES
from workbench.run.run_options import STANDARD, check_samples, find_preset
from workbench.run.subjects import SEED, Array, Subject, fit_files, open_files, random_samples
from workbench.worker_pool import Pool
from workbench.workspace import Workspace

if TYPE_CHECKING:
    from workbench.display import Display
    from workbench.measure.divergence import Divergence

LAYERS = 4  # samples on which layers are compared


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two files have in common and what not.

    Attributes:
        report: a row for each.
        mapping: the tensors that go by other names than the samples and the reference's outputs,
            or in another layout.
        alone: outputs of the reference that the candidate lacks.
        outputs: how far each output is from the reference's.
        layers: None where there is nothing to compare, for the reason in `why`.
        head: what the candidate applies to the first output.
    """

    report: Report
    mapping: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    outputs: tuple[Difference, ...] = ()
    layers: Divergence | None = None
    why: str = ""
    head: str = ""

    def to_json(self) -> dict[str, Any]:
        """What `wb compare --json` prints."""
        return {
            "report": report_json(self.report),
            "mapping": list(self.mapping),
            "outputs_of_the_reference_alone": list(self.alone),
            "head": self.head,
            "outputs": to_plain(self.outputs),
            "layers": self._layers_json(),
        }

    def _layers_json(self) -> dict[str, Any]:
        divergence = self.layers
        if divergence is None:
            return {"why_not": self.why}
        first = divergence.first
        return {
            "threshold": divergence.threshold,
            "samples": divergence.samples,
            "common": divergence.inside,
            "of": divergence.of,
            "first_below_threshold": first.tensor if first else None,
            "worst": [layer.tensor for layer in divergence.worst(WORST)],
            "all": [
                {"drop": to_plain(layer.drop), **to_plain(layer)} for layer in divergence.layers
            ],
        }


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """What `wb compare` is asked for, in the words of the command line.

    Attributes:
        reference, candidate: two model files of any formats.
        data: a dataset's name or .toml file; random inputs where there is none.
        inputs: NAME:SHAPE[:DTYPE] of each input, where there is no data.
        device: a profile of this machine.
        preset: how long is measured: quick, standard, strict, or none.
    """

    reference: Path
    candidate: Path
    data: str | None = None
    inputs: tuple[str, ...] = ()
    device: str = "cpu"
    preset: str = STANDARD


def compare_files(options: CompareOptions, display: Display) -> Comparison:
    """Compare two files on a dataset's evaluation samples, or on random ones.

    Raises InputError for words and files that are wrong; what keeps one of the two from running is
    an error of its row.
    """
    started, created = time.perf_counter(), datetime.now().astimezone()
    check_samples(options.data, options.inputs)
    shapes = parse_inputs(list(options.inputs))
    device = local_only(profile.load(options.device), "wb compare")
    plan = MeasurePlan(devices=(device,), preset=find_preset(options.preset), users_files=True)
    display.plan(expected_seconds(2, plan.preset) | {"layers": 2.0})
    display.update("files", 0.0)
    subjects = open_files([options.reference, options.candidate])
    own = subjects[0].own
    if options.data is not None:
        dataset, origin = datasets.load(options.data), None
        dataset.check()
    else:
        dataset, origin = random_samples(artifacts.closed_inputs(own, shapes)), own.format
    with closing(Pool()) as pool, closing(Cache()) as cache:
        provider_check.require(device, pool)
        subjects = fit_files(subjects, dataset, device, pool, origin, partial=True)
        wrong = [subject.error for subject in subjects if isinstance(subject.error, InputError)]
        if wrong:
            raise wrong[0]
        display.done("files")
        first, second = subjects
        kept = [spec.name for spec in first.artifact.outputs]
        stored = {spec.stored_name for spec in first.artifact.outputs}
        sums = Differences(kept, next((spec.head for spec in second.artifact.outputs), ""))

        def observe(outputs: Mapping[str, list[Array]]) -> None:
            if second.label in outputs and first.label in outputs:
                sums.add(outputs[first.label], outputs[second.label])

        files = FileSet(subjects=subjects, dataset=dataset)
        blocks = measure_files(files, plan, Workspace(cache, pool, display), device, observe)
        examples = dataset.examples(LAYERS, SEED)
    layers, why = _layers(first, second, examples, display)
    date = created.isoformat(timespec="seconds")
    report = Report(
        recipe="compare",
        model=f"{first.label} and {second.label}",
        blocks=blocks,
        versions=probe.versions(PACKAGES),
        created=date,
        measured=date,
        seconds=round(time.perf_counter() - started, 2),
    )
    return Comparison(
        report=report,
        mapping=tuple(
            f"{subject.label}: {line}"
            for subject in subjects
            if subject.error is None
            for line in subject.mapping
        ),
        alone=tuple(spec.name for spec in own.outputs if spec.stored_name not in stored),
        outputs=sums.differences() if not report.failed else (),
        layers=layers,
        why=why,
        head=sums.head,
    )


def _layers(
    first: Subject, second: Subject, examples: Mapping[str, Array], display: Display
) -> tuple[Divergence | None, str]:
    """Where two ONNX graphs diverge, or why that is not known."""
    for subject in (first, second):
        if subject.error is not None:
            return None, f"{subject.label} does not run"
        if subject.own.format is Format.ORT:
            return None, (
                f"{subject.label} is an .ort file, whose graph ONNX Runtime has optimized and does "
                "not give out: compare the .onnx file that it was made from"
            )
        if subject.own.format is not Format.ONNX:
            return None, f"{subject.label} is no ONNX file: layers are compared between two of them"
    display.update("layers", 0.0)
    try:
        with Worker() as worker:
            divergence: Divergence = worker.call(
                "layers", first.artifact, second.artifact, dict(examples),
                progress=lambda fraction, note: display.update("layers", fraction, note),
            )  # fmt: skip
    except WorkbenchError as error:
        display.done("layers", "failed")
        return None, f"{error.what}: {error.why}"
    display.done("layers")
    if not divergence.inside:
        return None, (
            "the two graphs have no inner tensor of the same name and shape: one was exported or "
            "renamed apart from the other"
        )
    return divergence, ""
