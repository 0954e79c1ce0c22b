"""What commands print on."""

from __future__ import annotations

import sys

import pytest

from workbench.cli.output import table_console


@pytest.mark.parametrize(("terminal", "width"), [(True, 70), (False, 180)])
def test_a_terminal_has_its_own_width_and_a_pipe_a_wide_one(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setenv("TERM", "xterm")  # a dumb one has 80 columns whatever it says
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert table_console().width == width
