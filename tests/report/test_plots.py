"""The plots: what they show, what they leave out, and SVG that may share a page."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from tests.report import reports
from workbench.errors import StepError
from workbench.measure.latency import Latency
from workbench.report import plots
from workbench.report.data import Block

EVERY = (plots.accuracy_size, plots.accuracy_latency, plots.latency_distributions)
LABELS = {row.label for row in reports.ROWS}


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(element.itertext()) for element in elements]


def places(svg: str) -> dict[str, tuple[float, float]]:
    """Where each artifact's label stands, in points from the upper left."""
    found = {}
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        name = "".join(element.itertext())
        if name in LABELS:
            found[name] = (float(element.attrib["x"]), float(element.attrib["y"]))
    return found


def scored(*db: float | None) -> Block:
    """A block without classes: only the SQNR is known of each row."""
    rows = tuple(
        replace(row, scores=replace(reports.scores(0, 0, one), top1=None, top5=None, agree=None))
        for row, one in zip(reports.ROWS, db, strict=True)
    )
    return reports.normal(rows=rows, labelled=False).first


@pytest.mark.parametrize("plot", EVERY)
def test_a_plot_is_one_svg_with_every_label_as_text(plot):
    svg = plot(reports.normal().first)
    assert svg.startswith("<svg ") and svg.endswith("</svg>")
    assert set(texts(svg)) >= LABELS


@pytest.mark.parametrize("plot", EVERY)
def test_the_same_report_gives_the_same_plot_whatever_the_user_set(plot):
    first = plot(reports.normal().first)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "svg.hashsalt": "x"}):
        assert plot(reports.normal().first) == first


def test_a_plot_leaves_settings_and_pyplot_alone():
    before = matplotlib.rcParams.copy()  # reading "backend" would import pyplot
    known = "matplotlib.pyplot" in sys.modules
    plots.accuracy_size(reports.normal().first)
    assert matplotlib.rcParams.copy() == before
    assert ("matplotlib.pyplot" in sys.modules) == known


def test_no_id_stands_in_two_plots_and_every_reference_is_met():
    page = "".join(plot(reports.normal().first) for plot in EVERY)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 20
    referred = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert referred
    assert {a or b for a, b in referred} <= set(ids)


@pytest.mark.parametrize("plot", EVERY)
def test_a_plot_has_no_background_date_or_ink_of_its_own(plot):
    svg = plot(reports.normal().first)
    assert "currentColor" in svg
    assert "#000000" not in svg and "#ffffff" not in svg and plots.INK not in svg
    assert "metadata" not in svg


@pytest.mark.parametrize(
    ("report", "axis"),
    [
        (reports.normal().first, "top-1 (%)"),
        (reports.normal(metric="map50").first, "map50"),
        (reports.unlabelled().first, "agreement with FP32 ONNX (%), no labels"),
        (scored(30, None, 20, 20, 90, 15),
         "SQNR against FP32 ONNX (dB), no labels"),
        (scored(None, None, 20, 20, 90, 15),
         "SQNR against FP32 ONNX (dB), no labels; equal outputs left out"),
    ],
)  # fmt: skip
def test_the_axis_says_what_it_shows(report, axis):
    for plot in EVERY[:2]:
        assert axis in texts(plot(report))


def test_quality_is_by_row():
    assert plots.quality(reports.normal().first).values["tflite.to_tflite"] == pytest.approx(92)
    agreement = plots.quality(reports.unlabelled().first)
    assert agreement.values["tflite.to_tflite"] == pytest.approx(92.4)
    assert agreement.values["simplify"] == 100
    ratios = plots.quality(scored(None, None, 20, 20, 90, 15)).values
    assert set(ratios) == {row.key for row in reports.ROWS[2:]}
    assert plots.quality(reports.without_data().first) is None


def test_without_data_only_latencies_are_plotted():
    report = reports.without_data().first
    assert plots.accuracy_size(report) == plots.accuracy_latency(report) == ""
    assert set(texts(plots.latency_distributions(report))) >= LABELS


def test_nothing_to_plot_is_no_plot():
    rows = tuple(replace(row, latency=None) for row in reports.ROWS)
    report = reports.normal(rows=rows).first
    assert plots.latency_distributions(report) == plots.accuracy_latency(report) == ""
    assert plots.accuracy_size(report)
    empty = reports.normal(rows=()).first
    assert [plot(empty) for plot in EVERY] == ["", "", ""]


@pytest.mark.parametrize("plot", EVERY)
def test_a_failed_row_is_left_out(plot):
    assert set(texts(plot(reports.failed().first))) & LABELS == LABELS - {"INT8 TFLite"}
    half = reports.with_row("ort.quantize", error=StepError("it crashed")).first
    assert "INT8 ONNX" not in texts(plot(half))


def test_higher_is_up_and_larger_is_right():
    found = places(plots.accuracy_size(reports.normal().first))
    assert found["INT8 TFLite"][1] > found["INT8 ONNX"][1] + 50  # y runs downwards
    assert found["INT8 ONNX"][0] + 50 < found["PyTorch eager"][0]


def test_labels_of_equal_points_do_not_overlap():
    same = reports.scores(10, 0, 40.0)
    rows = tuple(replace(row, scores=same, bytes=9_000_000) for row in reports.ROWS)
    found = list(places(plots.accuracy_size(reports.normal(rows=rows).first)).values())
    assert len(found) == 6
    for place, (x, y) in enumerate(found):
        for other_x, other_y in found[:place]:
            assert abs(y - other_y) > 8 or abs(x - other_x) > 70


def test_wide_ranges_are_logarithmic():
    near, far = (
        reports.normal().first,
        reports.with_row("eager", latency=reports.latency(3000.0)).first,
    )
    for plot in (plots.accuracy_latency, plots.latency_distributions):
        assert "0" in texts(plot(near))
        assert {"10", "100", "1000"} <= set(texts(plot(far)))
        assert "0" not in texts(plot(far))


def test_no_difference_in_accuracy_is_not_drawn_as_one():
    """0.4 points fill a fifth of the axis at most."""
    rows = reports.ROWS[:4]
    svg = plots.accuracy_size(reports.normal(rows=rows).first)
    found = places(svg)
    height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])
    lowest, highest = max(y for _, y in found.values()), min(y for _, y in found.values())
    assert lowest - highest < height / 5


def test_one_process_has_no_bar_but_a_point():
    rows = tuple(replace(row, latency=Latency(row.latency.processes[:1])) for row in reports.ROWS)
    svg = plots.accuracy_latency(reports.normal(rows=rows).first)
    assert set(texts(svg)) >= LABELS
    assert svg.count("LineCollection") == 0
    assert plots.accuracy_latency(reports.normal().first).count("LineCollection") == 6


def test_every_process_is_a_dot():
    svg = plots.latency_distributions(reports.normal().first)
    dots = re.findall(r'id="distributions-PathCollection_\d+">(.*?)\n   </g>', svg, re.DOTALL)
    assert [dot.count("<use ") for dot in dots] == [6] * 6


def test_formats_have_markers_and_precisions_colours():
    svg = plots.accuracy_size(reports.normal().first)
    assert plots.COLOURS["float32"].lower() in svg
    assert plots.COLOURS["int8"].lower() in svg
    assert len(set(plots.MARKERS.values())) == len(plots.MARKERS)


def test_names_are_text_and_neither_formulas_nor_markup():
    odd = reports.with_row("ort.quantize", label="$x_1_2$ <b> & co").first
    for plot in EVERY:
        assert "$x_1_2$ <b> & co" in texts(plot(odd))
    assert "$map_50$" in texts(plots.accuracy_size(reports.normal(metric="$map_50$").first))


def test_samples_of_any_length_are_pooled():
    one = reports.ROWS[0].latency.processes
    uneven = Latency((*one[:5], replace(one[5], samples_ns=tuple(np.full(7, 10**7).tolist()))))
    assert plots.latency_distributions(reports.with_row("eager", latency=uneven).first)
