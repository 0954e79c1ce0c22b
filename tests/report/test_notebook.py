"""A report in a notebook: every row and finding, and the figures for pandas."""

from __future__ import annotations

import sys
import types
from html import escape

import pytest

from tests.report import reports
from workbench.intervals import Estimate
from workbench.report.notebook import report_records


@pytest.mark.parametrize("make", reports.EVERY, ids=lambda make: make.__name__)
def test_every_row_finding_and_error_is_shown(make):
    report = make()
    page = report._repr_html_()
    for block in report.blocks:
        for row in block.rows:
            assert escape(row.label) in page
            if row.error is not None:
                assert escape(row.error.what) in page
        for finding in block.findings:
            assert escape(finding) in page
    heads = page.split("<thead>")[1].split("</thead>")[0].count("<th ")
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    assert all(line.count("<td ") == heads for line in body.split("<tr>")[1:])


def test_every_figure_is_a_column_for_pandas(monkeypatch):
    report = reports.EVERY[0]()
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    frame = report.to_pandas()
    records = report_records(report)
    assert len(frame) == len(records) == sum(len(block.rows) for block in report.blocks)
    for record, line in zip(records, frame, strict=True):
        assert {"device", "artifact", "bytes", "median", "median_low", "error"} <= set(line)
        if isinstance(record["median"], Estimate):
            assert line["median_high"] == record["median"].high
    assert len({tuple(line) for line in frame}) == 1
