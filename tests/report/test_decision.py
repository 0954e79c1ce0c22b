"""The checklist, the formats and the samples in every form of the report."""

from __future__ import annotations

import io
import re
from urllib.parse import unquote

import pytest
from rich.console import Console

from tests.report import decided, reports
from tests.report.test_html import Page
from workbench.report import checklist, formats, html, markdown, table


def page(report) -> Page:
    found = Page()
    found.feed(html.render(report))
    return found


def printed(report, width: int = 200) -> str:
    out = io.StringIO()
    table.show(report, Console(file=out, width=width))
    return out.getvalue()


def test_markdown_has_each_line_with_each_artifacts_evidence():
    report = decided.report()
    text = markdown.render(report)
    for line in checklist.lines(report.first, report.verified):
        assert f"| {line.name} | {line.verdict} |" in text
        for one in line.findings:
            assert f"- {one.label}: **{one.verdict}**: {one.evidence[:30]}" in text
    for entry in formats.entries(report.first, report.versions):
        assert f"| {entry.label} | {entry.portability} | {entry.size} | {entry.speed} |" in text
    assert "samples `samples/simplify #1/main.cpp`" in text


def test_html_has_them_and_opens_what_is_not_in_order():
    report = decided.report()
    found = page(report)
    assert not found.open  # every tag was closed
    for line in checklist.lines(report.first, report.verified):
        for text in (line.name, line.asks, line.evidence):
            assert text in found.text
        for one in line.findings:
            assert one.evidence in found.text
    for entry in formats.entries(report.first, report.versions):
        assert all(part in found.text for part in (entry.portability, *entry.requires))
    opened = [attributes for tag, attributes in found.tags if tag == "details"]
    assert ["open" in one for one in opened] == [
        line.verdict in ("attention", "no")
        for line in checklist.lines(report.first, report.verified)
        if line.findings
    ]


def test_html_links_to_the_samples_beside_it():
    found = page(decided.report())
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert len(links) == 5
    assert "#" not in links[0]
    assert unquote(links[0]) == "samples/simplify #1/main.cpp"


def test_evidence_from_foreign_files_is_text_everywhere():
    bad = "</dd><script>alert(1)</script> | **x** [red]"
    report = decided.with_checks("simplify", robustness=None, missing=(bad,))
    assert "<script" not in html.render(report)
    assert bad in page(report).text
    rows = [line for line in markdown.render(report).splitlines() if "alert" in line]
    assert rows
    assert all("<script" not in line and "**x**" not in line for line in rows)
    assert "[red]" in printed(decided.with_row("simplify", label="[red] a", bytes=1, latency=None))


@pytest.mark.parametrize("make", reports.EVERY, ids=lambda make: make.__name__)
def test_where_nothing_was_looked_into_nothing_is_said(make):
    report = make()
    assert "checklist" not in markdown.render(report).lower()
    assert "Deployment checklist" not in html.render(report)
    assert "Checklist" not in printed(report)


def test_the_terminal_has_one_line_where_something_is_not_in_order():
    said = " ".join(printed(decided.report()).split())
    assert said.count("Checklist") == 1
    assert "outputs match: attention (INT8 TFLite); optimized: no (FP32 TFLite)." in said
    rows = tuple(row for row in decided.report().first.rows if row.label not in
                 ("FP32 TFLite", "INT8 TFLite"))  # fmt: skip
    assert "Checklist" not in printed(reports.changed(decided.report(), rows=rows))


def test_no_width_cuts_the_line_off():
    for width in (80, 120):
        said = printed(decided.report(), width)
        assert max(map(len, said.splitlines())) <= width
        assert "report.html" in re.sub(r"\s+", " ", said)
