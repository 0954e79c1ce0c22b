"""What a recipe's run made, as targets to be measured and as terms of its table."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.artifact import Artifact, Format
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.measure.host import BATCH
from workbench.measure.target import MeasureData, MeasureTarget
from workbench.onnxgraph.signature import EVIDENCE
from workbench.recipe import ORIGINAL, Located
from workbench.report import words
from workbench.report.blocks import Baselines, Terms
from workbench.report.data import FORMAT, PRECISION, label_of

if TYPE_CHECKING:
    from workbench.dataset.facts import SplitFacts
    from workbench.device.profile import Device

EAGER = "eager"


def targets_of(request: Request, outcome: Outcome) -> tuple[MeasureTarget, ...]:
    """A line of the table each: PyTorch eager first, then every artifact, and what failed."""
    targets = [] if outcome.start is not None else [_eager(request, outcome)]
    artifacts = [one.artifact for one in outcome.table if one.artifact is not None]
    labels = [label_of(artifact) for artifact in artifacts]
    sparse = any(_is_sparse(artifact) for artifact in artifacts)
    quantized = _evidence(outcome)
    for result in outcome.table:
        located, artifact = result.located, result.artifact
        if artifact is None:
            targets.append(_failed(result))
            continue
        label = label_of(artifact)
        if labels.count(label) > 1 and located.branch:
            label += f" ({located.branch})"
        targets.append(
            MeasureTarget(
                key=located.id,
                label=label,
                format=str(artifact.format),
                precision=artifact.precision,
                path=f"artifacts/{file_name(result)}",
                bytes=artifact.size,
                sha256=artifact.sha256,
                head=next((spec.head for spec in artifact.outputs), ""),
                subject=artifact,
                identity=artifact.sha256,
                notes=(*artifact.notes, *([_compressed(artifact)] if sparse else [])),
                quantization=quantized.get(located.id),
            )
        )
    return tuple(targets)


def _eager(request: Request, outcome: Outcome) -> MeasureTarget:
    return MeasureTarget(
        key=EAGER,
        label="PyTorch eager",
        format="torch",
        precision="float32",
        bytes=outcome.model.bytes,
        sha256=outcome.model.fingerprint,
        subject=request.source,
        identity=outcome.model.fingerprint,
        notes=outcome.model.notes,
    )


def _failed(result: StepResult) -> MeasureTarget:
    located = result.located
    return MeasureTarget(
        key=located.id,
        label=_label_of_step(located),
        format=str(located.step.gives),
        error=result.error,
    )


def _label_of_step(located: Located) -> str:
    """What a step would have made, for the row that says why it did not."""
    precision = located.step.precision
    parts = [PRECISION.get(precision, precision), FORMAT.get(located.step.gives, "")]
    return " ".join(part for part in parts if part) or located.id


def data_of(request: Request, outcome: Outcome) -> MeasureData:
    """The samples of a run, which are read where something is not in the cache."""
    from workbench.dataset.loading import load_dataset

    return MeasureData(
        facts=outcome.dataset,
        load=lambda: load_dataset(request.data),
        seed=request.source.seed,
        batch=1 if outcome.model.mixes_samples else BATCH,
    )


def exported_graph(outcome: Outcome) -> Artifact | None:
    """The ONNX graph as it was given or first made, whose nodes are counted."""
    if outcome.start is not None:
        return outcome.start
    artifacts = (result.artifact for result in outcome.results if result.artifact is not None)
    return next((one for one in artifacts if one.format is Format.ONNX), None)


def terms_of(request: Request, preset: str, outcome: Outcome, device: Device) -> Terms:
    """What the rows of a device's table were measured with.

    preset: its name. device: this machine's; of one with a runner there is no more to say.
    """
    evaluation = outcome.dataset.evaluation
    return Terms(
        dataset=outcome.dataset.name,
        preset=preset,
        metric=outcome.dataset.metric.rpartition(":")[2] or "top-1",
        labelled=evaluation is not None and evaluation.labelled,
        baselines=baselines_of(request, outcome),
        notes=(
            *outcome.model.notes,
            *_notes_on_samples(evaluation),
            *_notes_on_device(device),
            *_notes_on_files(outcome),
        ),
    )


def _notes_on_samples(evaluation: SplitFacts | None) -> list[str]:
    notes = []
    if evaluation is not None and not evaluation.labelled:
        notes.append("the evaluation samples have no labels: agreement and SQNR stand for accuracy")
    if evaluation is not None and evaluation.samples < 100:
        notes.append(f"only {evaluation.samples} evaluation samples: the intervals are wide")
    return notes


def _notes_on_device(device: Device) -> list[str]:
    if device.remote or device.provider not in ("cuda", "tensorrt", "coreml", "directml"):
        return []
    return [
        "latency is an inference as an app asks for it: inputs from the CPU's memory, outputs "
        "back in it, copies to and from the device included"
    ]


def _notes_on_files(outcome: Outcome) -> list[str]:
    artifacts = [one.artifact for one in outcome.table if one.artifact is not None]
    if not any(spec.pixels for artifact in artifacts for spec in artifact.inputs):
        return []
    return ["baked files preprocess for themselves: their times include it, others' do not"]


def baselines_of(request: Request, outcome: Outcome) -> Baselines:
    """PyTorch eager where the model is live, and FP32 ONNX as it was before anything was pruned."""
    eager = EAGER if outcome.start is None else ""
    unpruned = ORIGINAL if request.recipe.original else ""
    trunk = [result for result in outcome.table if result.located.branch == unpruned]
    onnx = next(
        (
            result.located.id
            for result in reversed(trunk)
            if result.artifact is not None
            and result.artifact.format == "onnx"
            and result.artifact.precision == "float32"
        ),
        "",
    )
    return Baselines(eager=eager, onnx=onnx, reference=eager or onnx)


def _is_sparse(artifact: Artifact) -> bool:
    return any("sparsity=" in step for step in artifact.history)


def _compressed(artifact: Artifact) -> str:
    """How small the file is as stores and app packages send it: deflated."""
    packer, count = zlib.compressobj(), 0
    with artifact.path.open("rb") as file:
        while block := file.read(1 << 20):
            count += len(packer.compress(block))
    count += len(packer.flush())
    return f"{words.size(count)} when compressed, of {words.size(artifact.size)}"


def _evidence(outcome: Outcome) -> dict[str, Mapping[str, Any]]:
    """What the quantization engine says of a branch's file, by the first of its steps in the table.

    Of a file that the next step only takes on, that is a later one.
    """
    shown = {result.located.id for result in outcome.table}
    by_step: dict[str, Mapping[str, Any]] = {}
    waiting: dict[str, Mapping[str, Any]] = {}  # by branch
    for result in outcome.results:
        branch = result.located.branch
        for path in result.artifact.companions if result.artifact else ():
            if path.name == EVIDENCE:
                waiting[branch] = json.loads(path.read_text(encoding="utf-8"))
        if result.artifact is not None and result.located.id in shown and branch in waiting:
            by_step[result.located.id] = waiting.pop(branch)
    return by_step


def file_name(result: StepResult) -> str:
    """Names that say what a file is when it has left its folder: `ort.model.int8.ort`."""
    assert result.artifact is not None
    branch = result.located.branch
    name = result.artifact.path.name
    return f"{branch}.{name}" if branch else name
