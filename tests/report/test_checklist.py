"""The deployment checklist: verdicts follow from what was measured, and say on what they rest."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.report import decided, reports
from workbench.errors import StepError
from workbench.measure.robustness import Batching, Misuse, Robustness
from workbench.report import checklist
from workbench.report.checklist import ChecklistLine, Finding
from workbench.report.data import Report, Verified
from workbench.report.report_json import report_json

NAMES = ("exports", "outputs match", "optimized", "batching", "error handling", "files verified")


def lines(report: Report) -> tuple[ChecklistLine, ...]:
    return checklist.lines(report.first, report.verified)


def line(report: Report, name: str) -> ChecklistLine:
    return next(one for one in lines(report) if one.name == name)


def finding(report: Report, name: str, label: str) -> Finding:
    return next(one for one in line(report, name).findings if one.label == label)


def test_every_line_is_there_in_order_with_evidence():
    found = lines(decided.report())
    assert tuple(one.name for one in found) == NAMES
    assert all(one.evidence and one.asks for one in found)
    artifacts = [row.label for row in decided.report().first.rows if row.path]
    for one in found[:-1]:
        assert [part.label for part in one.findings] == artifacts
        assert all(part.evidence for part in one.findings)
    read = json.loads(json.dumps(report_json(decided.report()), allow_nan=False))["checklist"]
    assert [one["name"] for one in read] == list(NAMES)
    assert read[0]["artifacts"][0]["verdict"] == "yes"


def test_without_anything_measured_it_says_so_and_claims_nothing():
    """Latency and scores were not measured, nothing was opened, nothing read back."""
    rows = tuple(replace(row, latency=None, scores=None) for row in reports.normal().first.rows)
    report = reports.normal(rows=rows, samples=0)
    for one in lines(report):
        assert one.verdict == "not measured", one.name
        assert all(part.verdict == "not measured" for part in one.findings)
    assert checklist.attention(report.first, report.verified) == ()


def test_exports_name_the_steps_and_what_was_read_back():
    found = finding(decided.report(), "exports", "FP32 ONNX")
    assert found.verdict == "yes"
    assert found.evidence == (
        "export opset=17 → simplify; read back as onnx, opset 17, 98 operators"
    )


def test_a_branch_that_failed_wants_attention_and_all_of_them_are_a_no():
    error = StepError("the converter died", "", "")
    report = decided.with_row("tflite.to_tflite", path="", error=error)
    assert line(report, "exports").verdict == "attention"
    assert finding(report, "exports", "INT8 TFLite").evidence == "the converter died"
    rows = tuple(
        replace(row, path="", error=error) if row.path else row
        for row in decided.report().first.rows
    )
    assert line(reports.changed(report, rows=rows), "exports").verdict == "no"


def test_a_file_that_could_not_be_read_back_is_not_measured():
    report = decided.with_checks("simplify", facts=None, missing=("the file is damaged",))
    found = finding(report, "exports", "FP32 ONNX")
    assert found.verdict == "not measured"
    assert "the file is damaged" in found.evidence


@pytest.mark.parametrize(
    ("precision", "decibels", "verdict"),
    [
        ("float32", 61.0, "yes"), ("float32", 59.0, "attention"), ("float32", 9.0, "no"),
        ("float16", 41.0, "yes"), ("float16", 39.0, "attention"),
        ("int8", 21.0, "yes"), ("int8", 19.0, "attention"), ("int8", 9.0, "no"),
        ("dynamic-int8", 19.0, "attention"), ("int8", None, "yes"),
    ],
)  # fmt: skip
def test_outputs_are_judged_by_what_the_precision_keeps(precision, decibels, verdict):
    scores = reports.scores(10, 0, decibels)
    report = decided.with_row("ort.quantize", precision=precision, scores=scores)
    found = finding(report, "outputs match", "INT8 ONNX")
    assert found.verdict == verdict
    assert "on 500 samples" in found.evidence
    assert ("are expected of" in found.evidence) == (verdict != "yes")


def test_a_loss_of_accuracy_wants_attention_though_the_outputs_are_near():
    report = decided.with_row("ort.quantize", scores=reports.scores(60, 52, 25.0))
    found = finding(report, "outputs match", "INT8 ONNX")
    assert found.verdict == "attention"
    assert "top-1 -10.00 [" in found.evidence


def test_the_line_has_the_least_sqnr_and_the_worst_verdict():
    found = line(decided.report(), "outputs match")
    assert found.verdict == "attention"  # INT8 TFLite: 19.1 dB
    assert found.evidence == (
        "of 5 artifacts 3 yes, 1 attention, 1 not measured; "
        "the least SQNR is 19.1 dB, of INT8 TFLite, on 500 samples"
    )


def test_optimized_has_nodes_sizes_and_speeds():
    report = decided.report()
    assert finding(report, "optimized", "INT8 ONNX").evidence.startswith(
        "212 nodes exported, 280 (190 of them to and from integers) here; "
        "3.83× smaller than PyTorch eager; 2.00× ["
    )
    # Slower than FP32 ONNX, and not smaller.
    slow = finding(report, "optimized", "FP32 TFLite")
    assert slow.verdict == "no"
    assert "SLOWER: 0.80× [" in slow.evidence
    same = finding(report, "optimized", "INT8 ORT-mobile")
    assert same.verdict == "yes"
    assert "no difference in speed from FP32 ONNX" in same.evidence
    assert "the smallest is INT8 TFLite, 2.30 MB, the fastest is INT8 TFLite" in (
        line(report, "optimized").evidence
    )


def test_slower_but_smaller_wants_attention_and_larger_too():
    slow = decided.with_row("ort.quantize", latency=reports.latency(9.0, seed=3))
    assert finding(slow, "optimized", "INT8 ONNX").verdict == "attention"
    large = decided.with_row("ort.quantize", bytes=9_300_000)
    assert finding(large, "optimized", "INT8 ONNX").verdict == "attention"
    unknown = decided.with_row("ort.quantize", latency=None)
    found = finding(unknown, "optimized", "INT8 ONNX")
    assert found.verdict == "not measured"
    assert "speed not measured" in found.evidence


def robust(batching: Batching) -> Report:
    return decided.with_checks("simplify", robustness=replace(decided.SOUND, batching=batching))


@pytest.mark.parametrize(
    ("batching", "verdict", "evidence"),
    [
        (Batching(fixed=1), "yes", "takes one sample at a time: its batch is fixed to 1"),
        (Batching(fixed=4), "attention", "takes batches of 4, no others"),
        (Batching(said="Reshape: no"), "no",
         "its batch axis is open, and a batch did not run: Reshape: no"),
        (Batching(samples=3, difference=0.02, sqnr=35.0), "attention",
         "in a batch of 3 a sample's outputs are not those of its own run: SQNR 35.0 dB, by up to "
         "2 % of the largest output"),
        (Batching(samples=3, difference=0.9, sqnr=4.0), "no",
         "in a batch of 3 a sample's outputs are not those of its own run: SQNR 4.0 dB, by up to "
         "90 % of the largest output"),
        (Batching(samples=3, difference=0.0, sqnr=float("inf")), "yes",
         "a batch of 3 gives each sample's own outputs"),
    ],
)  # fmt: skip
def test_batching(batching, verdict, evidence):
    found = finding(robust(batching), "batching", "FP32 ONNX")
    assert (found.verdict, found.evidence) == (verdict, evidence)


def handling(*misuses: Misuse) -> Finding:
    robustness = Robustness(batching=Batching(fixed=1), misuses=misuses)
    report = decided.with_checks("simplify", robustness=robustness)
    return finding(report, "error handling", "FP32 ONNX")


def test_wrong_inputs_that_are_refused_are_in_order_whatever_nan_does():
    found = handling(*decided.REFUSED, decided.NAN)
    assert found.verdict == "yes"
    assert found.evidence == (
        "refused with an error: wrong shape, wrong dtype, missing input; "
        "NaN inputs are taken: NaN came out"
    )
    silent = Misuse(case="NaN inputs", outcome="not tried", said="its inputs are integers")
    assert handling(*decided.REFUSED, silent).evidence.endswith(
        "NaN inputs not tried: its inputs are integers"
    )


def test_a_case_that_was_not_tried_leaves_the_line_open():
    untried = Misuse(case="wrong shape", outcome="not tried", said="unexpected KeyError")
    found = handling(untried, *decided.REFUSED[1:], decided.NAN)
    assert found.verdict == "not measured"
    assert "wrong shape not tried: unexpected KeyError" in found.evidence


def test_a_wrong_input_taken_in_silence_wants_attention():
    taken = Misuse(case="missing input", outcome="accepted", said="it ran, and numbers came out")
    found = handling(*decided.REFUSED[:2], taken, decided.NAN)
    assert found.verdict == "attention"
    assert "missing input taken in silence: it ran, and numbers came out" in found.evidence


def test_a_crash_is_a_no_even_of_nan():
    dead = Misuse(case="NaN inputs", outcome="crashed", said="signal SIGSEGV")
    found = handling(*decided.REFUSED, dead)
    assert found.verdict == "no"
    assert "NaN inputs: THE PROCESS DIED (signal SIGSEGV)" in found.evidence


def test_what_was_not_tried_says_why():
    why = "batching and error handling: ONNX Runtime cannot load it"
    report = decided.with_checks("simplify", robustness=None, missing=(why,))
    for name in ("batching", "error handling"):
        found = finding(report, name, "FP32 ONNX")
        assert (found.verdict, found.evidence) == ("not measured", why)


def test_files_that_differ_are_a_no():
    report = replace(decided.report(), verified=Verified(files=7, differing=("artifacts/a.onnx",)))
    found = line(report, "files verified")
    assert found.verdict == "no"
    assert "artifacts/a.onnx" in found.evidence
    assert line(decided.report(), "files verified").evidence.startswith("7 files read back")


def test_the_terminal_is_told_of_what_wants_attention_and_of_nothing_else():
    report = decided.report()
    said = checklist.attention(report.first, report.verified)
    assert said == ("outputs match: attention (INT8 TFLite)", "optimized: no (FP32 TFLite)")
