"""Progress of parts of a piece of work."""

from __future__ import annotations

import doctest

from workbench import progress


def test_the_example_in_the_docstring_holds() -> None:
    results = doctest.testmod(progress)
    assert results.attempted > 0
    assert results.failed == 0


def test_a_part_begins_and_ends_where_it_is_told() -> None:
    seen: list[tuple[float, str]] = []
    part = progress.span_progress(lambda fraction, note: seen.append((fraction, note)), 0.25, 0.75)
    progress.span_progress(part, 0.5, 1.0)(0.0, "inner")
    part(1.0, "outer")
    assert seen == [(0.5, "inner"), (0.75, "outer")]
