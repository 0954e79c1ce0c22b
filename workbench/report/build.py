"""A `Report` from what a run made and measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from workbench.artifact import Artifact
from workbench.device import probe, providers
from workbench.device.placement import Placement
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.errors import WorkbenchError
from workbench.measure.cached import EAGER
from workbench.measure.checks import Checks
from workbench.measure.latency import Latency, Preset
from workbench.onnxgraph.signature import EVIDENCE
from workbench.recipe import ORIGINAL
from workbench.report import words
from workbench.report.data import Report, Row, label_of, label_of_step

PACKAGES = (
    "torch", "onnx", "onnxruntime", "onnxsim", "tensorflow", "onnx2tf", "ai-edge-litert", "numpy",
)  # fmt: skip


def report_of(request: Request, preset: Preset, outcome: Outcome, rows: list[Row]) -> Report:
    evaluation = outcome.dataset.evaluation
    eager = EAGER if outcome.start is None else ""
    metric = outcome.dataset.metric.rpartition(":")[2] or "top-1"
    notes = list(outcome.model.notes)
    if evaluation is not None and not evaluation.labelled:
        notes.append("the evaluation samples have no labels: agreement and SQNR stand for accuracy")
    if evaluation is not None and evaluation.samples < 100:
        notes.append(f"only {evaluation.samples} evaluation samples: the intervals are wide")
    if request.device.provider in ("cuda", "tensorrt", "coreml", "directml"):
        notes.append(
            "latency is an inference as an app asks for it: inputs from the CPU's memory, outputs "
            "back in it, copies to and from the device included"
        )
    if any(one.artifact and _baked(one.artifact) for one in outcome.table):
        notes.append(
            "baked files preprocess for themselves: their times include it, others' do not"
        )
    return Report(
        recipe=request.recipe.name,
        model=request.source.name,
        dataset=outcome.dataset.name,
        device=request.device.name,
        threads=request.device.threads,
        preset=preset.name,
        metric=metric,
        samples=evaluation.samples if evaluation else 0,
        labelled=evaluation is not None and evaluation.labelled,
        rows=tuple(rows),
        eager=eager,
        onnx=baseline(request, outcome),
        reference=eager or baseline(request, outcome),
        host={**probe.host(request.device.provider), "INT8": request.device.quantization},
        versions=probe.versions(PACKAGES),
        notes=tuple(notes),
    )


def baseline(request: Request, outcome: Outcome) -> str:
    """The key of FP32 ONNX, as it was before anything was pruned; '' where there is none."""
    begun = ORIGINAL if request.recipe.original else ""
    trunk = [one for one in outcome.table if one.located.branch == begun]
    return next(
        (
            one.located.id
            for one in reversed(trunk)
            if one.artifact is not None
            and one.artifact.format == "onnx"
            and one.artifact.precision == "float32"
        ),
        "",
    )


def _sparse(artifact: Artifact) -> bool:
    return any("sparsity=" in step for step in artifact.history)


def compressed(artifact: Artifact) -> str:
    """How small the file is as stores and app packages send it: deflated."""
    import zlib

    packer, count = zlib.compressobj(), 0
    with artifact.path.open("rb") as file:
        while block := file.read(1 << 20):
            count += len(packer.compress(block))
    count += len(packer.flush())
    return f"{words.size(count)} when compressed, of {words.size(artifact.size)}"


def _baked(artifact: Artifact) -> bool:
    return any(spec.pixels for spec in artifact.inputs)


def rows_from(
    request: Request,
    outcome: Outcome,
    timed: dict[str, Latency | WorkbenchError],
    scored: dict[str, Any],
    placements: Mapping[str, Placement],
    checks: Mapping[str, Checks],
) -> list[Row]:
    def measured(key: str) -> dict[str, Any]:
        latency, scores = timed.get(key), scored.get(key)
        errors = [one for one in (latency, scores) if isinstance(one, WorkbenchError)]
        return {
            "latency": latency if isinstance(latency, Latency) else None,
            "scores": None if isinstance(scores, WorkbenchError) else scores,
            "error": errors[0] if errors else None,
        }

    def place(key: str) -> Placement:
        found = placements.get(key, Placement())
        # What ended the row says why nothing is known of its nodes too.
        return dataclasses.replace(found, notes=()) if measured(key)["error"] else found

    def elsewhere(artifact: Artifact) -> tuple[str, ...]:
        device = request.device
        if not providers.runs_on_cpu(device, artifact):
            return ()
        runtime = "LiteRT" if artifact.format == "tflite" else "PyTorch"
        return (
            f"{runtime} ran it on the CPU, not on {device.name}: accuracy is the CPU's, "
            "latency was not measured",
        )

    rows = []
    quantized = evidence(outcome)
    if outcome.start is None:
        rows.append(
            Row(
                key=EAGER,
                label="PyTorch eager",
                format="torch",
                precision="float32",
                bytes=outcome.model.bytes,
                notes=(*outcome.model.notes, *place(EAGER).notes),
                sha256=outcome.model.fingerprint,
                **measured(EAGER),
            )
        )
    results = outcome.table
    labels = [label_of(one.artifact) for one in results if one.artifact is not None]
    sparse = any(_sparse(one.artifact) for one in results if one.artifact is not None)
    for result in results:
        located, artifact = result.located, result.artifact
        if artifact is None:
            rows.append(
                Row(
                    key=located.id,
                    label=label_of_step(located),
                    error=result.error,
                    format=str(located.step.gives),
                )
            )
            continue
        label = label_of(artifact)
        if labels.count(label) > 1 and located.branch:
            label += f" ({located.branch})"
        rows.append(
            Row(
                key=located.id,
                label=label,
                format=str(artifact.format),
                precision=artifact.precision,
                path=f"artifacts/{file_name(result)}",
                bytes=artifact.size,
                sha256=artifact.sha256,
                head=next((spec.head for spec in artifact.outputs), ""),
                notes=(
                    *artifact.notes,
                    *([compressed(artifact)] if sparse else []),
                    *place(located.id).notes,
                    *elsewhere(artifact),
                ),
                placement=place(located.id).nodes,
                left=place(located.id).left,
                checks=checks.get(located.id),
                quantization=quantized.get(located.id),
                **measured(located.id),
            )
        )
    return rows


def evidence(outcome: Outcome) -> dict[str, Mapping[str, Any]]:
    """What the quantization engine says of a branch's file, by the first of its steps in the table.

    Of a file that the next step only takes on, that is a later one.
    """
    shown = {one.located.id for one in outcome.table}
    found: dict[str, Mapping[str, Any]] = {}
    waiting: dict[str, Mapping[str, Any]] = {}  # by branch
    for one in outcome.results:
        branch = one.located.branch
        for path in one.artifact.companions if one.artifact else ():
            if path.name == EVIDENCE:
                waiting[branch] = json.loads(path.read_text(encoding="utf-8"))
        if one.artifact is not None and one.located.id in shown and branch in waiting:
            found[one.located.id] = waiting.pop(branch)
    return found


def file_name(result: StepResult) -> str:
    """Names that say what a file is when it has left its folder: `ort.model.int8.ort`."""
    assert result.artifact is not None
    branch = result.located.branch
    name = result.artifact.path.name
    return f"{branch}.{name}" if branch else name
