"""The report's figures: ratios to baselines, deltas, findings, and their JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report import reports
from workbench.artifact import Artifact, Format, Pixels, TensorSpec
from workbench.errors import StepError
from workbench.intervals import Estimate
from workbench.measure.latency import Latency
from workbench.report.data import label_of
from workbench.report.report_json import report_json


def test_size_is_against_eager():
    figures = reports.normal().first.figures
    assert figures["eager"].smaller == 1
    assert figures["tflite.to_tflite"].smaller == pytest.approx(9.2 / 2.3)


def test_without_eager_size_is_against_onnx():
    figures = reports.without_eager().first.figures
    assert figures["tflite.to_tflite"].smaller == pytest.approx(9.1 / 2.3)
    assert all(one.than_eager is None for one in figures.values())


def test_a_size_that_is_unknown_has_no_ratio():
    figures = reports.failed().first.figures["tflite.to_tflite"]
    assert (figures.bytes, figures.smaller) == (None, None)


def test_speed_is_against_both_baselines_and_never_itself():
    figures = reports.normal().first.figures
    int8 = figures["tflite.to_tflite"]
    assert int8.than_onnx.value == pytest.approx(3, rel=1e-3)
    assert int8.than_eager.value == pytest.approx(6, rel=1e-3)
    assert figures["eager"].than_eager is None
    assert figures["simplify"].than_onnx is None
    assert figures["eager"].than_onnx.value == pytest.approx(0.5, rel=1e-3)


def test_delta_agreement_and_sqnr_are_against_the_reference():
    figures = reports.normal().first.figures
    assert figures["tflite.to_tflite"].delta.value == pytest.approx(-6)
    assert figures["tflite.to_tflite"].agreement == pytest.approx(100 * (1 - 38 / 500))
    assert figures["ort.quantize"].sqnr == pytest.approx(27.5)
    reference = figures["simplify"]
    assert (reference.delta, reference.agreement, reference.sqnr) == (None, None, None)
    assert reference.accuracy == pytest.approx(98)


def test_without_labels_the_findings_tell_how_near_the_outputs_are():
    report = reports.unlabelled()
    figures = report.first.figures["tflite.to_tflite"]
    said = next(one for one in report.first.findings if one.startswith("INT8 TFLite"))
    reference = report.first.row(report.first.reference).label
    assert f"agrees with {reference} on {figures.agreement:.2f} %" in said
    assert f"SQNR {figures.sqnr:.1f} dB" in said


def test_without_labels_there_is_agreement_alone():
    figures = reports.unlabelled().first.figures["tflite.to_tflite"]
    assert (figures.accuracy, figures.top5, figures.delta) == (None, None, None)
    assert figures.agreement == pytest.approx(92.4)


def test_without_data_there_is_latency_alone():
    figures = reports.without_data().first.figures["tflite.to_tflite"]
    assert (figures.accuracy, figures.delta, figures.agreement, figures.sqnr) == (None,) * 4
    assert figures.median.value == pytest.approx(2, rel=0.01)


def test_findings_say_what_is_faster_the_same_slower_and_worse():
    said = reports.normal().first.findings
    assert said[0].startswith("INT8 ONNX: 2.00× faster [2.00, 2.00] than FP32 ONNX; no difference")
    assert "INT8 ORT-mobile: no difference in speed [0.97, 1.03] from FP32 ONNX" in said[1]
    assert said[2].startswith("FP32 TFLite: SLOWER, 0.80× [0.80, 0.80] the speed of FP32 ONNX")
    assert said[3] == (
        "INT8 TFLite: 3.00× faster [3.00, 3.00] than FP32 ONNX; top-1 -6.00 [-8.12, -3.83]."
    )
    assert len(said) == 4  # baselines are compared with nothing


def test_without_onnx_the_findings_compare_with_eager():
    report = reports.without_onnx()
    assert report.first.figures["to_torchscript"].than_onnx is None
    (said,) = [one for one in report.first.findings if one.startswith("FP32 TorchScript: ")]
    assert said.startswith("FP32 TorchScript: 1.50× faster [1.50, 1.50] than PyTorch eager; ")


def test_a_failure_is_a_finding():
    report = reports.failed()
    assert "INT8 TFLite failed: the converter died." in report.first.findings
    assert [row.key for row in report.first.failed] == ["tflite.to_tflite"]


def test_one_process_alone_shows_neither_a_difference_nor_none():
    rows = tuple(replace(row, latency=Latency(row.latency.processes[:1])) for row in reports.ROWS)
    said = reports.normal(rows=rows).first.findings
    assert said[0].startswith("INT8 ONNX: 2.00× [unknown] the speed of FP32 ONNX")


def test_a_metric_with_small_numbers_keeps_its_digits():
    delta = Estimate(-0.0042, -0.0061, -0.0023)
    key = "tflite.to_tflite"
    scored = replace(reports.normal().first.row(key).scores, metric=0.7412, metric_delta=delta)
    report = reports.changed(reports.with_row(key, scores=scored), metric="map50")
    assert report.first.findings[3].endswith("map50 -0.0042 [-0.0061, -0.0023].")


def test_a_machine_that_was_not_quiet_is_said():
    noisy = reports.latency(2.0, (1.0, 1.4, 0.8, 1.0, 1.5, 0.9))
    said = reports.with_row("tflite.to_tflite", latency=noisy).first.findings[-1]
    assert said.startswith("The machine was not quiet while INT8 TFLite ran")


@pytest.mark.parametrize("report", reports.EVERY, ids=lambda one: one.__name__)
def test_json_has_no_infinities(report):
    found = report()
    data = json.loads(json.dumps(report_json(found), allow_nan=False))
    assert [row["key"] for row in data["rows"]] == [row.key for row in found.first.rows]
    assert data["findings"] == list(found.first.findings)


def test_json_says_infinite_figures_in_words():
    equal = reports.scores(10, 0, None)
    one = Latency(reports.latency(2.0).processes[:1])
    rows = tuple(replace(row, scores=equal, latency=one) for row in reports.ROWS)
    report = reports.normal(rows=rows)
    assert report.first.figures["ort.quantize"].sqnr == math.inf
    text = json.dumps(report_json(report), allow_nan=False)
    figures = json.loads(text)["rows"][2]["figures"]
    assert figures["sqnr"] == "inf"
    assert figures["median"]["low"] == "-inf"


def test_json_keeps_raw_latencies_and_errors():
    report = reports.failed()
    rows = {row["key"]: row for row in report_json(report)["rows"]}
    assert Latency.from_json(rows["eager"]["latency"]) == report.first.row("eager").latency
    assert rows["eager"]["error"] is None
    assert rows["tflite.to_tflite"]["latency"] is None
    assert rows["tflite.to_tflite"]["error"] == {
        "what": "the converter died",
        "why": "signal 11 in onnx2tf",
        "fix": "try --set tflite.seed=1",
    }


def test_an_error_beside_a_baseline_leaves_the_others_their_figures():
    report = reports.with_row("simplify", latency=None, error=StepError("it crashed"))
    figures = report.first.figures["ort.quantize"]
    assert figures.than_onnx is None
    assert figures.than_eager.value == pytest.approx(4, rel=1e-3)


def test_of_classes_alone_the_findings_say_the_agreement():
    classes = replace(reports.scores(0, 5, 30.0, labelled=False), head="argmax")
    report = reports.with_row("ort.quantize", scores=classes, latency=None)
    assert report.first.figures["ort.quantize"].sqnr is None
    (said,) = (one for one in report.first.findings if one.startswith("INT8 ONNX"))
    assert said.endswith("agrees with FP32 ONNX on 99.00 %.")


def test_a_label_says_what_was_baked_into_a_file():
    pixels = Pixels(factor=(1.0,), offset=(0.0,))
    image = TensorSpec(name="x", dtype="float32", shape=(1, 3, 8, 8), pixels=pixels)
    logits = TensorSpec(name="y", dtype="float32", shape=(1, 10))
    artifact = Artifact(
        path=Path("model.onnx"), format=Format.ONNX, precision="int8", inputs=(image,),
        outputs=(logits,),
    )  # fmt: skip
    assert label_of(artifact) == "baked INT8 ONNX"
    ends = replace(artifact, outputs=(replace(logits, head="argmax"),))
    assert label_of(ends) == "baked INT8 ONNX with argmax"
    assert label_of(replace(artifact, inputs=(logits,))) == "INT8 ONNX"
