"""A sweep's result in every form: what a table, CSV, SVG and page say of the same trials."""

from __future__ import annotations

import csv
import io
import sys
import types
import xml.etree.ElementTree as ElementTree
from html import escape

import pytest

from tests.sweep import fakes
from workbench.errors import StepError
from workbench.intervals import Estimate
from workbench.sweep import loop, page, plot
from workbench.sweep.front_files import as_csv, as_markdown
from workbench.sweep.goals import Goal
from workbench.sweep.result import Result, format_figure, load_result, summary

FIGURES = {
    ("fast", "8"): (1.0, 4.0), ("fast", "16"): (3.0, 3.9), ("balanced", "8"): (2.0, 1.0),
    ("balanced", "16"): (2.5, 3.0), ("best", "8"): (5.0, 0.5),
}  # fmt: skip


def answer(settings):
    key = (settings["quantize.preset"], settings["quantize.samples"])
    return fakes.report(*FIGURES[key]) if key in FIGURES else StepError("it | broke", "why", "")


def swept(folder, **changes) -> Result:
    record = fakes.record(folder, fakes.spec(**changes))
    study = loop.prepare_sweep(record, resume=False)
    loop.run_trials(record, study, fakes.Fake(answer), lambda _: None, print)
    return load_result(record)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return swept(tmp_path_factory.mktemp("sweep") / "s")


def test_the_front_comes_first_and_its_knee_is_named(found):
    states = [(one.trial.number, one.state, one.knee) for one in found.points]
    assert states == [
        (0, "front", False), (2, "front", True), (4, "front", False),
        (3, "dominated", False), (1, "dominated", False), (5, "failed", False),
    ]  # fmt: skip
    lines = summary(found)
    assert lines[0] == "6 trials of mobile-int8, grid: 3 on the front of size and drop, 1 failed"
    assert lines[1] == "knee: trial 2, quantize.preset=balanced quantize.samples=8"


def test_the_table_has_intervals_and_options(found):
    assert found.headings() == [
        "trial", "state", "size (MB)", "accuracy drop (points)", "quantize.preset",
        "quantize.samples",
    ]  # fmt: skip
    knee = found.cells(found.points[1])
    assert knee == ["2", "front, knee", "2", "1.00 [0.90, 1.10]", "balanced", "8"]
    assert found.cells(found.points[-1])[:4] == ["5", "failed", "–", "–"]


def test_csv_and_json_agree(found):
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    plain = found.to_json()
    assert plain["knee"] == 2
    for row, point in zip(rows, plain["points"], strict=True):
        assert int(row["trial"]) == point["trial"]
        if point["figures"]:
            assert float(row["drop_high"]) == point["figures"]["drop"]["high"]
    assert rows[-1]["error"] == "it | broke   why: why"


def test_markdown_keeps_its_columns(found):
    lines = [line for line in as_markdown(found).splitlines() if line.startswith("| ")]
    assert len({line.count("|") - line.count("\\|") for line in lines}) == 1


def test_the_plot_has_every_point_where_it_belongs(found):
    text = plot.picture(found)
    tree = ElementTree.fromstring(text)
    marks = {
        title.text.splitlines()[0]: group.find("{*}circle")
        for group in tree.iter("{http://www.w3.org/2000/svg}g")
        if (title := group.find("{*}title")) is not None
    }
    assert set(marks) == {f"trial: {number}" for number in range(5)}
    places = {name: (float(one.get("cx")), float(one.get("cy"))) for name, one in marks.items()}
    assert places["trial: 0"][0] < places["trial: 2"][0] < places["trial: 4"][0]
    assert places["trial: 0"][1] < places["trial: 2"][1] < places["trial: 4"][1]
    for x, y in places.values():
        assert plot.LEFT <= x <= plot.WIDTH - plot.RIGHT
        assert plot.TOP <= y <= plot.HEIGHT - plot.BOTTOM
    assert marks["trial: 2"].get("fill") == plot.KNEE
    assert marks["trial: 1"].get("fill") == plot.COLOURS["dominated"]


def test_the_page_has_no_script_and_escapes_errors(found):
    text = page.render(found)
    assert "<script" not in text
    assert "http" not in text
    assert "trial 5: it | broke" in text
    assert text.count('class="dot') == 5


def test_one_goal_is_drawn_against_what_else_is_known(tmp_path):
    found = swept(tmp_path / "s", goals=(Goal("size"),))
    assert [(a.name, b.name) for a, b in plot.pairs(found)] == [("size", "drop")]
    assert [one.trial.number for one in found.front] == [0]


def test_nothing_done_is_said(tmp_path):
    record = fakes.record(tmp_path / "s")
    loop.prepare_sweep(record, resume=False)
    empty = load_result(record)
    assert "nothing" in plot.picture(empty) or "no trial" in plot.picture(empty)
    assert "no trial" in " ".join(summary(empty))
    assert "<table" in page.render(empty)


def test_repeats_are_one_point(tmp_path):
    found = swept(tmp_path / "s", search="random", trials=20)
    settings = [one.trial.settings for one in found.points if one.state != "failed"]
    assert len(settings) == len(set(settings))
    assert "repeated another's settings" in summary(found)[0]


def test_figures_have_their_units_digits():
    assert format_figure(Goal("size"), Estimate(0.34321, 0.34321, 0.34321)) == "0.3432"
    assert format_figure(Goal("latency", "cpu"), Estimate(1.5, 1.4, 1.71)) == "1.50 [1.40, 1.71]"
    assert format_figure(Goal("drop"), None) == "–"


def test_ticks_are_round():
    axis = plot.axis(Goal("drop"), [0.03, 4.2], 0, 100)
    assert not axis.log
    assert axis.ticks() == pytest.approx([0, 1, 2, 3, 4])
    wide = plot.axis(Goal("size"), [0.1, 30], 0, 100)
    assert wide.log
    assert wide.ticks() == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10, 20])


def test_a_notebook_shows_every_trial_and_the_summary(found):
    page = found._repr_html_()
    assert page.count("<tr>") == 1 + len(found.points)
    for line in summary(found):
        assert escape(line) in page


def test_a_frame_has_a_line_for_each_trial(found, monkeypatch):
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = list
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    frame = found.to_pandas()
    assert [line["trial"] for line in frame] == [point.trial.number for point in found.points]
    best = frame[0]
    point = found.points[0]
    assert best["size"] == point.trial.figures["size"].value
    assert best["drop_low"] == point.trial.figures["drop"].low
    assert f"quantize.preset={best['quantize.preset']}" in point.trial.settings
    assert frame[-1]["error"]
