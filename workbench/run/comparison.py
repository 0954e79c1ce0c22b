"""`wb compare A B`: two files' outputs, size and latency, and where their graphs diverge."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import dataset as datasets
from workbench.artifact import Format
from workbench.device import profile, provider_check
from workbench.device.selection import local_only
from workbench.errors import InputError, WorkbenchError
from workbench.inspect import artifacts
from workbench.measure.difference import Difference, Differences
from workbench.model import parse_inputs
from workbench.process import Worker
from workbench.report.comparison_text import WORST
from workbench.report.data import Report, plain
from workbench.run.measured_files import measured, planned
from workbench.run.run_options import check_samples
from workbench.run.subjects import SEED, Array, Subject, fitted, opened, random_samples
from workbench.worker_pool import Pool

if TYPE_CHECKING:
    from workbench.display import Display
    from workbench.measure.divergence import Divergence
    from workbench.measure.latency import Preset

LAYERS = 4  # samples on which layers are compared


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two files have in common and what not; `report` has a row for each.

    mapping: the tensors that go by other names than the samples and the reference's outputs, or in
    another layout. alone: outputs of the reference that the candidate lacks. head: what the
    candidate applies to the first output. layers: None where there is nothing to compare, for the
    reason in `why`.
    """

    report: Report
    mapping: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    outputs: tuple[Difference, ...] = ()
    layers: Divergence | None = None
    why: str = ""
    head: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "report": self.report.to_json(),
            "mapping": list(self.mapping),
            "outputs_of_the_reference_alone": list(self.alone),
            "head": self.head,
            "outputs": [
                {key: plain(value) for key, value in vars(one).items()} for one in self.outputs
            ],
            "layers": self._layers_json(),
        }

    def _layers_json(self) -> dict[str, Any]:
        found = self.layers
        if found is None:
            return {"why_not": self.why}
        first = found.first
        return {
            "threshold": found.threshold,
            "samples": found.samples,
            "common": found.inside,
            "of": found.of,
            "first_below_threshold": first.tensor if first else None,
            "worst": [layer.tensor for layer in found.worst(WORST)],
            "all": [
                {"drop": plain(one.drop),
                 **{key: plain(value) for key, value in vars(one).items()}}
                for one in found.layers
            ],
        }  # fmt: skip


def command(
    reference: Path,
    candidate: Path,
    data: str | None,
    inputs: list[str],
    device: str,
    preset: Preset,
    display: Display,
) -> Comparison:
    """Compare two files on a dataset's evaluation samples, or on random ones.

    Raises InputError for words and files that are wrong; what keeps one of the two from running is
    an error of its row.
    """
    started, created = time.perf_counter(), datetime.now().astimezone()
    check_samples(data, inputs)
    given = parse_inputs(inputs)
    where = local_only(profile.load(device), "wb compare")
    display.plan(planned(2, preset) | {"layers": 2.0})
    display.update("files", 0.0)
    subjects = opened([reference, candidate])
    own = subjects[0].own
    if data is not None:
        dataset, origin = datasets.load(data), None
        dataset.check()
    else:
        dataset, origin = random_samples(artifacts.closed_inputs(own, given)), own.format
    with closing(Pool()) as pool:
        provider_check.require(where, pool)
        subjects = fitted(subjects, dataset, where, pool, origin, partial=True)
        wrong = [one.error for one in subjects if isinstance(one.error, InputError)]
        if wrong:
            raise wrong[0]
        display.done("files")
        one, other = subjects
        kept = [spec.name for spec in one.artifact.outputs]
        stored = {spec.stored_name for spec in one.artifact.outputs}
        sums = Differences(kept, next((spec.head for spec in other.artifact.outputs), ""))

        def observe(outputs: Mapping[str, list[Array]]) -> None:
            if other.label in outputs and one.label in outputs:
                sums.add(outputs[one.label], outputs[other.label])

        example = dataset.examples(1, SEED)
        report = measured(subjects, example, dataset, where, preset, pool, display, observe=observe)
        examples = dataset.examples(LAYERS, SEED)
    layers, why = _layers(one, other, examples, display)
    now = created.isoformat(timespec="seconds")
    report = replace(
        report,
        recipe="compare",
        model=f"{one.label} and {other.label}",
        created=now,
        measured=now,
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
        outputs=sums.found() if not report.failed else (),
        layers=layers,
        why=why,
        head=sums.head,
    )


def _layers(
    one: Subject, other: Subject, examples: Mapping[str, Array], display: Display
) -> tuple[Divergence | None, str]:
    """Where two ONNX graphs diverge, or why that is not known."""
    for subject in (one, other):
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
            found: Divergence = worker.call(
                "layers", one.artifact, other.artifact, dict(examples),
                progress=lambda fraction, note: display.update("layers", fraction, note),
            )  # fmt: skip
    except WorkbenchError as error:
        display.done("layers", "failed")
        return None, f"{error.what}: {error.why}"
    display.done("layers")
    if not found.inside:
        return None, (
            "the two graphs have no inner tensor of the same name and shape: one was exported or "
            "renamed apart from the other"
        )
    return found, ""
