"""`wb cache`."""

from __future__ import annotations

from typing import Annotated

import typer


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
) -> None:
    """Show where the cache is and how much it holds."""
    from workbench.cache import Cache

    results = Cache()
    if clear:
        results.clear()
    typer.echo(f"{results.folder}  {results.size() / 1e6:.1f} MB")
