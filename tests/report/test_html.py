"""The report as a page: whole, self-contained, escaped, and plain about what is worse."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import pytest

from tests.report import reports
from workbench.errors import StepError
from workbench.report import html
from workbench.report.data import Report

VOID = {"meta", "br", "link", "img", "hr"}


@dataclass
class Cell:
    classes: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """The page's table, its tags, and whether every tag that opens is closed."""

    rows: list[tuple[str, list[Cell]]] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append((found.get("class", ""), []))
        if tag in ("td", "th"):
            self.rows[-1][1].append(Cell(found.get("class", "")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.open and {"td", "th"} & set(self.open):
            cell = self.rows[-1][1][-1]
            cell.text = " ".join(f"{cell.text} {data}".split())


def page(report: Report) -> Page:
    parsed = Page()
    parsed.feed(html.render(report))
    assert parsed.open == []
    parsed.text = " ".join(parsed.text.split())
    return parsed


def cells(report: Report, label: str) -> dict[str, Cell]:
    (_, names), *rows = page(report).rows
    found = next(row for _, row in rows if row[0].text.startswith(label))
    return {name.text: cell for name, cell in zip(names, found, strict=True)}


EVERY = pytest.mark.parametrize("report", reports.EVERY, ids=lambda one: one.__name__)


@EVERY
def test_the_table_has_a_cell_for_every_column(report):
    (_, names), *rows = page(report()).rows
    assert len(names) == 11 + bool(report().first.eager) + bool(report().first.onnx)
    rows = [row for kind, row in rows if kind != "reason"]
    assert [len(row) for row in rows] == [len(names)] * len(report().first.rows)
    assert all(cell.text for row in rows for cell in row)


@EVERY
def test_nothing_is_requested_and_nothing_runs(report):
    text = html.render(report())
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http://" not in without_names
    assert "https://" not in without_names
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    found = page(report())
    assert not {tag for tag, _ in found.tags} & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in found.tags:
        assert "src" not in attributes, tag
        for name in ("href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#"), tag
        assert not [name for name in attributes if name.startswith("on")], tag


@EVERY
def test_ids_are_unique(report):
    ids = [attributes["id"] for _, attributes in page(report()).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_figures_stand_with_their_intervals():
    found = cells(reports.normal(), "INT8 TFLite")
    assert found["size"].text == "2.30 MB"
    assert found["× smaller"].text == "4.00×"
    assert found["median ms [95 % interval]"].text == "2.00 [1.96, 2.04]"
    assert found["× faster than FP32 ONNX"] == Cell("", "3.00× [3.00, 3.00]")
    assert found["top-1"].text == "92.00 %"
    assert found["SQNR"].text == "19.1 dB"
    text = html.render(reports.normal())
    assert re.search(r">2\.00\s*<small>\[1\.96, 2\.04\]</small>", text)


def test_worse_is_marked_and_no_difference_is_muted():
    report = reports.normal()
    column = "× faster than FP32 ONNX"
    assert cells(report, "FP32 TFLite")[column] == Cell("worse", "SLOWER 0.80× [0.80, 0.80]")
    assert cells(report, "INT8 ORT-mobile")[column] == Cell("same", "no difference [0.97, 1.03]")
    assert cells(report, "PyTorch eager")[column] == Cell("", "0.50× [0.50, 0.50]")
    delta = "top-1 delta [95 % interval]"
    assert cells(report, "INT8 ONNX")[delta] == Cell("same", "-0.40 [-1.18, +0.38]")
    assert cells(report, "INT8 TFLite")[delta] == Cell("worse", "-6.00 [-8.12, -3.83]")
    assert cells(report, "FP32 ONNX")[delta] == Cell("nothing", "–")


def test_a_better_accuracy_is_not_marked_worse():
    report = reports.with_row("ort.quantize", scores=reports.scores(0, 10, 25.0))
    delta = cells(report, "INT8 ONNX")["top-1 delta [95 % interval]"]
    assert delta.classes == ""
    assert delta.text.startswith("+2.00 [")


def test_equal_outputs_read_equal():
    report = reports.with_row("tflite-float32.to_tflite", scores=reports.scores(10, 0, None))
    assert cells(report, "FP32 TFLite")["SQNR"].text == "equal"


def test_a_failed_row_says_what_why_and_fix():
    rows = page(reports.failed()).rows
    place = next(i for i, (kind, _) in enumerate(rows) if kind == "failed")
    assert rows[place][1][0].text == "INT8 TFLite failed"
    kind, (reason,) = rows[place + 1]
    assert kind == "reason"
    assert reason.text == (
        "the converter died why: signal 11 in onnx2tf fix: try --set tflite.seed=1"
    )
    assert not [kind for kind, _ in page(reports.normal()).rows if kind]


def test_an_error_without_a_remedy_has_no_empty_lines():
    report = reports.with_row("ort.quantize", error=StepError("it crashed"))
    reason = next(row for kind, row in page(report).rows if kind == "reason")
    assert reason[0].text == "it crashed"


def test_findings_come_before_the_table():
    report = reports.normal()
    text = page(report).text
    for finding in report.first.findings:
        assert 0 < text.index(finding) < text.index("× smaller")


def test_users_text_is_escaped_everywhere():
    evil = "<script>alert('x')</script>\"&"
    row = replace(reports.ROWS[2], label=evil, notes=(evil,), path=evil, sha256=evil,
                  error=StepError(evil, evil, evil))  # fmt: skip
    report = reports.normal(
        rows=(*reports.ROWS[:2], replace(row, key="other", error=None), row, *reports.ROWS[3:]),
        **dict.fromkeys(
            ("recipe", "model", "dataset", "device", "preset", "metric", "created"), evil
        ),
        host={evil: evil},
        versions={evil: evil},
        notes=(evil,),
    )
    text = html.render(report)
    assert "<script" not in text
    parsed = page(report)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert parsed.text.count(evil) > 15


def test_each_plot_has_a_name_for_screen_readers():
    images = [attributes for tag, attributes in page(reports.normal()).tags if tag == "svg"]
    assert [image["role"] for image in images] == ["img"] * 3
    starts = ("Accuracy against size.", "Accuracy against latency.", "Latency distributions.")
    assert [image["aria-label"].startswith(one) for image, one in zip(images, starts, strict=True)]


def test_plots_follow_what_there_is():
    assert "Up and left is better" in page(reports.normal()).text
    assert "Up and left" not in page(reports.normal(metric="loss")).text
    assert "Agreement against size" in page(reports.unlabelled()).text
    assert "Agreement stands for it" in page(reports.unlabelled()).text
    without = page(reports.without_data())
    assert [tag for tag, _ in without.tags].count("svg") == 1
    rows = tuple(replace(row, latency=None, scores=None) for row in reports.ROWS)
    bare = page(reports.normal(rows=rows))
    assert [tag for tag, _ in bare.tags].count("svg") == 0
    assert "Latency distributions" not in bare.text


def test_artifacts_method_host_and_versions_are_there():
    text = page(reports.normal()).text
    for expected in ("ort/to_ort/model.int8.ort", "08" * 32, "2,300,000 bytes", "NNAPI: 96 of 98",
                     "opset 17", "6 fresh processes for each artifact", "at least 50 timed runs",
                     "20 dB more is a tenth", "that of FP32 ONNX", "avx2, avx512_vnni",
                     "onnxruntime 1.23.0", "calibration is min-max", "2025-01-02 03:04",
                     "83 s"):  # fmt: skip
        assert expected in text, expected


def test_a_preset_of_ones_own_and_no_data_are_described():
    text = page(reports.without_data()).text
    assert "Not measured: the run had no evaluation samples." in text
    assert "20 dB more" not in text
    assert "Preset mine" in page(reports.normal(preset="mine")).text


def test_the_page_is_for_light_dark_and_paper():
    text = html.render(reports.normal())
    assert text.startswith("<!doctype html>")
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert 'lang="en"' in text


def test_a_run_without_latency_says_so_and_claims_no_processes():
    page = html.render(reports.normal(preset="none"))
    assert "--no-latency was given" in page
    assert "0 fresh processes" not in page
