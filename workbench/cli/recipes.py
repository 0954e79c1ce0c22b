"""`wb recipes`."""

from __future__ import annotations

import typer


def recipes() -> None:
    """List the recipes."""
    from workbench.library import recipe_summaries

    summaries = recipe_summaries()
    width = max((len(name) for name in summaries), default=0)
    for name, text in summaries.items():
        typer.echo(f"{name:{width}}  {text}")
