"""Sample reports, with figures that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from workbench.errors import StepError
from workbench.measure.accuracy import Scores
from workbench.measure.latency import Latency, ProcessSamples
from workbench.report.data import Block, Report, Row

SAMPLES = 500
# How the processes of every artifact differ: by up to 4 %, alike in each round.
ROUNDS = (1.0, 0.98, 1.01, 1.02, 0.99, 1.0)


def latency(median_ms: float, noise: tuple[float, ...] = ROUNDS, seed: int = 0) -> Latency:
    """Six processes whose medians are `median_ms` times the noise, with a tail to the right."""
    tails = 1 + np.random.default_rng(seed).gamma(1.2, 0.03, 40)
    around = tails / np.median(tails)
    processes = tuple(
        ProcessSamples(
            load_ns=int(20e6 * median_ms**0.5),
            first_ns=int(3e6 * median_ms),
            samples_ns=tuple(int(1e6 * median_ms * factor * one) for one in around),
            peak_bytes=int(30e6),
        )
        for factor in noise
    )
    return Latency(processes)


def scores(wrong: int, disagree: int, db: float | None, labelled: bool = True) -> Scores:
    """The first `wrong` samples are missed, the first `disagree` differ; None dB are equal."""
    place = np.arange(SAMPLES)
    return Scores(
        top1=place >= wrong if labelled else None,
        top5=place >= wrong // 4 if labelled else None,
        agree=place >= disagree,
        signal=np.ones(SAMPLES),
        noise=np.full(SAMPLES, 0.0 if db is None else 10 ** (-db / 10)),
    )


def row(key: str, label: str, form: str, precision: str, size: int, path: str = "",
        **more: Any) -> Row:  # fmt: skip
    sha256 = f"{len(key):02x}" * 32 if path else ""
    return Row(key=key, label=label, format=form, precision=precision, bytes=size, path=path,
               sha256=sha256, **more)  # fmt: skip


ROWS = (
    row("eager", "PyTorch eager", "torch", "float32", 9_200_000,
        latency=latency(12.0, seed=1), scores=scores(10, 0, 118.0)),
    row("simplify", "FP32 ONNX", "onnx", "float32", 9_100_000, "simplify/model.onnx",
        latency=latency(6.0, seed=2), scores=scores(10, 0, None),
        notes=("opset 17", "212 nodes simplified to 98")),
    row("ort.quantize", "INT8 ONNX", "onnx", "int8", 2_400_000, "ort/quantize/model.int8.onnx",
        latency=latency(3.0, seed=3), scores=scores(12, 6, 27.5),
        notes=("u8s8, per channel, min-max", "200 calibration samples")),
    row("ort.to_ort", "INT8 ORT-mobile", "ort", "int8", 2_500_000, "ort/to_ort/model.int8.ort",
        # The same speed as FP32 ONNX but for noise that goes both ways.
        latency=latency(6.0, (1.03, 0.95, 1.04, 0.99, 1.01, 0.97), seed=4),
        scores=scores(12, 6, 27.5), notes=("NNAPI: 96 of 98 nodes", "CoreML: not usable")),
    row("tflite-float32.to_tflite", "FP32 TFLite", "tflite", "float32", 9_000_000,
        "tflite-float32/to_tflite/model.tflite", latency=latency(7.5, seed=5),
        scores=scores(10, 0, 110.2)),
    row("tflite.to_tflite", "INT8 TFLite", "tflite", "int8", 2_300_000,
        "tflite/to_tflite/model.int8.tflite", latency=latency(2.0, seed=6),
        scores=scores(40, 38, 19.1), notes=("INT8 inputs and outputs",)),
)  # fmt: skip


def normal(**changes: Any) -> Report:
    """All six rows: INT8 is faster, as fast, and one FP32 file is slower than FP32 ONNX."""
    block = Block(
        dataset="digits",
        device="cpu",
        threads=1,
        preset="standard",
        metric="top-1",
        samples=SAMPLES,
        labelled=True,
        rows=ROWS,
        eager="eager",
        onnx="simplify",
        reference="simplify",
        host={"cpu": "Some CPU @ 2.0 GHz", "cores": 2, "isa": ["avx2", "avx512_vnni"],
              "memory_gib": 7.8, "system": "Linux 6.1"},
        notes=("calibration is min-max",),
    )  # fmt: skip
    report = Report(
        recipe="mobile-int8",
        model="mobilenet_v3.pt",
        blocks=(block,),
        versions={"onnxruntime": "1.23.0", "torch": "2.9.0"},
        created="2025-01-02 03:04",
        measured="2025-01-02 03:01",
        seconds=83.0,
    )
    return changed(report, **changes)


def changed(report: Report, **changes: Any) -> Report:
    """A report of one device with fields of its own or of its block changed."""
    own = {name: value for name, value in changes.items() if hasattr(report, name)}
    block = replace(report.first, **{k: v for k, v in changes.items() if k not in own})
    return replace(report, **{"blocks": (block, *report.blocks[1:]), **own})


def with_row(key: str, **changes: Any) -> Report:
    """The normal report with one row changed."""
    return normal(rows=tuple(replace(one, **changes) if one.key == key else one for one in ROWS))


def failed() -> Report:
    """INT8 TFLite crashed: nothing of it was measured."""
    error = StepError("the converter died", "signal 11 in onnx2tf", "try --set tflite.seed=1")
    return with_row("tflite.to_tflite", latency=None, scores=None, bytes=None, path="",
                    sha256="", error=error)  # fmt: skip


def unlabelled() -> Report:
    rows = tuple(
        replace(one, scores=replace(one.scores, top1=None, top5=None))
        for one in ROWS
        if one.scores is not None
    )
    return normal(rows=rows, labelled=False)


def without_eager() -> Report:
    return normal(rows=ROWS[1:], eager="")


def without_onnx() -> Report:
    """Of the recipe torchscript: PyTorch eager is the one baseline."""
    script = row("to_torchscript", "FP32 TorchScript", "torchscript", "float32", 9_150_000,
                 "to_torchscript/model.pt", latency=latency(8.0, seed=7),
                 scores=scores(10, 0, 130.0))  # fmt: skip
    return normal(recipe="torchscript", rows=(ROWS[0], script), onnx="", reference="eager")


def without_data() -> Report:
    rows = tuple(replace(one, scores=None) for one in ROWS)
    return normal(rows=rows, samples=0, labelled=False, dataset="random inputs")


EVERY = (normal, failed, unlabelled, without_eager, without_onnx, without_data)
