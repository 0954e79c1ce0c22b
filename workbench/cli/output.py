"""What several commands print with: JSON, a console for tables, the live display on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from workbench.display import Display


def print_json(data: Any) -> None:
    """Plain values on stdout, as every command's `--json` has them."""
    print(json.dumps(data, indent=1))


def table_console() -> Console:
    """Stdout, wide enough for the tables where it is a pipe, which has no width."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=180)


@contextlib.contextmanager
def progress_display(quiet: bool) -> Iterator[Display]:
    """A live display on stderr where that is a terminal, none otherwise."""
    from workbench.display import Live, Quiet

    if quiet or not sys.stderr.isatty():
        yield Quiet()
        return
    from rich.console import Console

    live = Live(Console(stderr=True))
    try:
        yield live
    finally:
        live.close()
