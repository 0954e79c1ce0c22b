"""The report as Markdown: a whole table, what failed, and text that breaks nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.report import reports
from workbench.errors import StepError
from workbench.report import html, markdown
from workbench.report.data import Report
from workbench.report.report_json import report_json


def table(report: Report) -> list[list[str]]:
    """The cells of the one table, split as GitHub does: at pipes without a backslash."""
    lines = [line for line in markdown.render(report).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def figures(report: Report, label: str) -> dict[str, str]:
    names, _, *rows = table(report)
    return next(dict(zip(names, row, strict=True)) for row in rows if row[0].startswith(label))


@pytest.mark.parametrize("report", reports.EVERY, ids=lambda one: one.__name__)
def test_every_row_has_a_cell_for_every_column(report):
    names, rule, *rows = table(report())
    assert len(names) == 11 + bool(report().first.eager) + bool(report().first.onnx)
    assert {len(row) for row in (rule, *rows)} == {len(names)}
    assert all(cell for row in rows for cell in row)
    assert len(rows) == len(report().first.rows)


def test_the_figures_stand_under_their_names():
    assert figures(reports.normal(), "INT8 TFLite") == {
        "artifact": "INT8 TFLite",
        "size": "2.30 MB",
        "× smaller": "4.00×",
        "load ms": "28.3",
        "median ms [95 % interval]": "2.00 [1.96, 2.04]",
        "p90 ms [95 % interval]": "2.08 [2.04, 2.12]",
        "× faster than eager": "6.00× [6.00, 6.00]",
        "× faster than FP32 ONNX": "3.00× [3.00, 3.00]",
        "peak memory": "30.00 MB",
        "top-1": "92.00 %",
        "top-1 delta [95 % interval]": "-6.00 [-8.12, -3.83]",
        "agreement": "92.40 %",
        "SQNR": "19.1 dB",
    }


def test_without_onnx_no_column_compares_with_it():
    names = markdown.headings(reports.without_onnx().first)
    assert [name for name in names if name.startswith("× faster")] == ["× faster than eager"]


def test_slower_and_no_difference_are_said():
    report = reports.normal()
    column = "× faster than FP32 ONNX"
    assert figures(report, "FP32 TFLite")[column] == "SLOWER 0.80× [0.80, 0.80]"
    assert figures(report, "INT8 ORT-mobile")[column] == "no difference [0.97, 1.03]"
    assert figures(report, "PyTorch eager")[column] == "0.50× [0.50, 0.50]"


def test_equal_outputs_read_equal():
    report = reports.with_row("tflite-float32.to_tflite", scores=reports.scores(10, 0, None))
    assert figures(report, "FP32 TFLite")["SQNR"] == "equal"


def test_a_users_metric_names_its_columns():
    names = table(reports.normal(metric="map50"))[0]
    assert names[9:11] == ["map50", "map50 delta [95 % interval]"]


def test_the_caption_says_on_what():
    said = markdown.caption(reports.normal().first)
    assert said == (
        "cpu, 1 thread; batch 1; preset standard; 500 evaluation samples of digits. Intervals are "
        "95 %, by bootstrap over 6 fresh processes. × smaller is against PyTorch eager. Delta, "
        "agreement and SQNR are against FP32 ONNX."
    )
    assert "no labels" in markdown.caption(reports.unlabelled().first)
    assert "× smaller is against FP32 ONNX" in markdown.caption(reports.without_eager().first)
    assert "accuracy was not measured" in markdown.caption(reports.without_data().first)


def test_findings_notes_host_and_versions_are_there():
    report = reports.normal()
    text = markdown.render(report)
    assert all(f"- {finding}" in text for finding in report.first.findings)
    for expected in ("`ort/to_ort/model.int8.ort`", "CoreML: not usable", "opset 17",
                     "calibration is min-max", "isa: avx2, avx512_vnni", "memory (GiB): 7.8",
                     "onnxruntime 1.23.0", "2025-01-02 03:04"):  # fmt: skip
        assert expected in text


def test_a_failed_row_says_what_why_and_fix():
    text = markdown.render(reports.failed())
    assert figures(reports.failed(), "INT8 TFLite (failed)")["size"] == "–"
    assert "- **INT8 TFLite**: the converter died\n  - why: signal 11 in onnx2tf\n" in text
    assert "  - fix: try --set tflite.seed=1\n" in text
    assert "What failed" not in markdown.render(reports.normal())


def test_what_was_measured_before_an_error_stands():
    report = reports.with_row("ort.quantize", scores=None, error=StepError("it crashed"))
    found = figures(report, "INT8 ONNX (failed)")
    assert found["median ms [95 % interval]"] == "3.00 [2.94, 3.06]"
    assert found["top-1"] == "–"


def test_text_cannot_break_the_table_or_the_page():
    label = "a|b\\|c\n# d <script> *e* `f`"
    row = replace(reports.ROWS[5], label=label, error=StepError("no\n\n# heading", "x | y"))
    report = reports.normal(model="<img src=x>", rows=(*reports.ROWS[:5], row))
    names, _, *rows = table(report)
    assert {len(row) for row in rows} == {len(names)}
    text = markdown.render(report)
    assert r"a\|b\\\|c # d &lt;script> \*e\* \`f\` (failed)" in text
    assert "<script" not in text
    assert "<img" not in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        "# mobile-int8 on &lt;img src=x>"
    ]


def test_every_form_says_where_an_artifact_ran():
    nodes = {"CUDAExecutionProvider": 41, "CPUExecutionProvider": 3}
    report = reports.with_row("ort.quantize", placement=nodes, left={"Softmax": 2, "TopK": 1})
    said = "CUDAExecutionProvider: 41 nodes, CPUExecutionProvider: 3 nodes (Softmax ×2, TopK)"
    assert f"ran on {said}" in markdown.render(report)
    assert said in html.render(report)
    (row,) = [one for one in report_json(report)["rows"] if one["key"] == "ort.quantize"]
    assert row["placement"] == {"nodes": nodes, "left": {"Softmax": 2, "TopK": 1}}
