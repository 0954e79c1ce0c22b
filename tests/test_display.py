"""The progress display: every task a line, and a time left that follows the work."""

from __future__ import annotations

import io

from rich.console import Console

from workbench.display import Live


def live():
    out = io.StringIO()
    return Live(Console(file=out, force_terminal=True, width=100)), out


def test_the_time_left_is_what_is_not_done_yet():
    display, _ = live()
    display.plan({"export": 10, "quantize": 30})
    assert display.seconds_left() == 40
    display.done("export")
    assert display.seconds_left() == 30
    display.done("quantize", "cached")
    assert display.seconds_left() == 0
    display.close()


def test_a_running_task_counts_by_the_clock_and_never_below_its_progress():
    display, _ = live()
    display.plan({"export": 100})
    display.update("export", 0.5, "half")
    assert 90 < display.seconds_left() <= 100
    display._tasks["export"].started -= 1000  # it takes longer than expected
    assert display.seconds_left() == 100 * 0.5 * 0.2
    display.close()


def test_every_task_shows_with_its_state_and_note():
    display, out = live()
    display.plan({"export": 10, "quantize": 30})
    display.done("export", "failed")
    display.update("quantize", 0.25, "calibrating 3/12")
    display.message("another run is making it")
    display.close()
    said = out.getvalue()
    for text in ("export", "failed", "quantize", "calibrating 3/12", "another run", "s left"):
        assert text in said
