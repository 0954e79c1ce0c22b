"""`wb new NAME`."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.shared_options import recipe_names


def new(
    name: Annotated[str, typer.Argument(help="The new recipe's name.")],
    source: Annotated[
        str, typer.Option("--from", help="The recipe to copy.", autocompletion=recipe_names)
    ] = "mobile-int8",
) -> None:
    """Copy a recipe to ./recipes for editing."""
    from workbench.library import copy_recipe

    typer.echo(f"wrote {copy_recipe(name, source)}: edit it, then 'wb recipe {name}'")
