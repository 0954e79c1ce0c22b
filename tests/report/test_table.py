"""The report in a terminal: everything shows, whatever the width."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tests.report import reports
from workbench.report import table, words


def printed(report, width):
    out = io.StringIO()
    table.show(report, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, table.WIDE, 200])
@pytest.mark.parametrize("make", reports.EVERY, ids=lambda make: make.__name__)
def test_nothing_is_cut_off_at_any_width(make, width):
    report = make()
    said = printed(report, width)
    assert "…" not in said
    assert max(len(line) for line in said.splitlines()) <= width
    for row in report.first.rows:
        figures = report.first.figures[row.key]
        assert row.label in said
        if row.error is None:
            cells = [words.size(figures.bytes), words.milliseconds_interval(figures.median),
                     words.faster(figures.than_onnx)]  # fmt: skip
            for cell in cells:
                assert all(part in said for part in cell.replace(" [", "\n[").split("\n"))


def test_a_failed_row_says_what_why_and_fix():
    report = reports.failed()
    said = " ".join(printed(report, 200).split())
    for row in report.first.failed:
        for text in (row.error.what, row.error.why, row.error.fix):
            assert " ".join(text.split()) in said


def test_brackets_in_names_are_not_markup():
    report = reports.normal(dataset="[/x] [red]")
    assert "[/x] [red]" in printed(report, 200)


def test_without_samples_there_is_no_accuracy_table():
    assert "Accuracy" not in printed(reports.without_data(), 200)
    assert "Accuracy" in printed(reports.normal(), 200)


def test_the_baseline_is_called_what_it_is_and_eager_only_named_where_it_ran():
    first = replace(reports.ROWS[2], label="a.onnx")
    report = reports.normal(
        rows=(first, *reports.ROWS[3:]), eager="", onnx=first.key, reference=first.key
    )
    said = printed(report, 200)
    assert "than a.onnx" in said
    assert "eager" not in said
    assert "FP32 ONNX" not in said
    assert "than eager" in printed(reports.normal(), 200)


def test_without_labels_the_table_is_of_the_outputs():
    said = printed(reports.unlabelled(), 200)
    assert "Outputs · 500 samples" in said
    assert "top-1" not in said
    assert "agreement" in said
    assert "Outputs" not in printed_without_quality(reports.unlabelled())


def printed_without_quality(report):
    out = io.StringIO()
    table.show(report, Console(file=out, width=200), quality=False)
    return out.getvalue()


def test_where_nothing_was_timed_no_column_is_empty():
    rows = tuple(replace(row, latency=None) for row in reports.ROWS)
    said = printed(reports.normal(rows=rows), 200)
    assert "median" not in said
    assert "load" not in said
    assert "9.10 MB" in said
