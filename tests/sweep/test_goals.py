"""Goals and limits from words, and their figures from a report."""

from __future__ import annotations

import pytest

from workbench.errors import InputError, StepError
from workbench.intervals import Estimate
from workbench.sweep.goals import Goal, parse_goals, parse_limits

FIGURES = {
    "bytes": 343210, "load_ms": 2.5, "peak_bytes": 2_000_000, "agreement": 99.0,
    "median": {"value": 1.5, "low": 1.4, "high": 1.7},
    "delta": {"value": -0.5, "low": -1.0, "high": 0.25},
}  # fmt: skip


def report(**changes):
    row = {"key": "a", "error": None, "figures": {**FIGURES, **changes}}
    slow = {**FIGURES, "median": {"value": 9.0, "low": 8.0, "high": 10.0}}
    other = {"device": "board", "error": None, "rows": [{**row, "figures": slow}]}
    return {"device": "cpu", "error": None, "rows": [row], "devices": [other]}


def test_figures_have_units_and_intervals():
    assert Goal("size").of(report(), "a") == Estimate(0.3432, 0.3432, 0.3432)
    assert Goal("latency", "cpu").of(report(), "a") == Estimate(1.5, 1.4, 1.7)
    assert Goal("latency", "board").of(report(), "a").value == 9
    assert Goal("drop").of(report(), "a") == Estimate(0.5, -0.25, 1.0)
    assert Goal("memory", "cpu").of(report(), "a").value == 2
    assert Goal("load", "cpu").of(report(), "a").value == 2.5


def test_without_labels_agreement_counts():
    assert Goal("drop").of(report(delta=None), "a") == Estimate(1, 1, 1)


def test_what_is_missing_or_failed_is_an_error():
    with pytest.raises(StepError, match="a has no latency@cpu"):
        Goal("latency", "cpu").of(report(median=None), "a")
    with pytest.raises(StepError, match="a has no drop"):
        Goal("drop").of(report(delta=None, agreement=None), "a")
    with pytest.raises(StepError, match="no row b"):
        Goal("size").of(report(), "b")
    failed = report()
    failed["rows"][0]["error"] = {"what": "it broke", "why": "", "fix": ""}
    with pytest.raises(StepError, match="it broke"):
        Goal("size").of(failed, "a")


def test_words_name_goals():
    found = parse_goals("size, latency,latency@board,size", ["cpu", "board"], True)
    assert [one.name for one in found] == ["size", "latency@cpu", "latency@board"]
    assert found[1].axis == "latency on cpu (ms)"


@pytest.mark.parametrize(
    ("text", "timed", "said"),
    [
        ("sise", True, "did you mean 'size'"),
        ("", True, "names nothing"),
        ("latency", False, "latency needs a device that is measured"),
        ("latency@pixel", True, "add --device pixel"),
        ("latency@", True, "is not measured"),
        ("size@cpu", True, "the same on every device"),
    ],
)
def test_wrong_goals(text, timed, said):
    with pytest.raises(InputError, match=said):
        parse_goals(text, ["cpu"], timed)


def test_limits():
    found = parse_limits(1.0, "500kB", ["board=5", "2.5ms"], ["cpu", "board"], True)
    assert [(one.goal.name, one.high) for one in found] == [
        ("drop", 1.0), ("size", 0.5), ("latency@board", 5.0), ("latency@cpu", 2.5)
    ]  # fmt: skip
    assert found[0].over(1.5) == 0.5
    assert found[0].over(0.5) < 0
    assert parse_limits(None, "1.5 MiB", [], ["cpu"], True)[0].high == 1.5 * 2**20 / 1e6


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((-1.0, None, []), "--max-drop cannot be -1"),
        ((float("nan"), None, []), "--max-drop cannot be nan"),
        ((None, "much", []), "--max-size cannot be 'much'"),
        ((None, "0", []), "--max-size cannot be '0'"),
        ((None, "1.2.3MB", []), "--max-size cannot be"),
        ((None, None, ["cpu=fast"]), "--max-latency cannot be 'cpu=fast'"),
        ((None, None, ["cpu=-1"]), "--max-latency cannot be"),
        ((None, None, ["pixel=5"]), "add --device pixel"),
    ],
)
def test_wrong_limits(limits, said):
    with pytest.raises(InputError, match=said):
        parse_limits(*limits, ["cpu"], True)


def test_a_limit_on_latency_needs_a_measurement():
    with pytest.raises(InputError, match="measures nothing"):
        parse_limits(None, None, ["5"], ["cpu"], False)
