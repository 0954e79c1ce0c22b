"""`wb show NAME`: a recipe's steps with their options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.cli.shared_options import RecipeName, Settings

if TYPE_CHECKING:
    from workbench.recipe import Recipe


def show(name: RecipeName, settings: Settings = []) -> None:  # noqa: B006 - typer copies it
    """Print a recipe's resolved plan: its steps with their options."""
    from workbench.recipe import load

    print_recipe(load(name).with_options(settings))


def print_recipe(recipe: Recipe) -> None:
    """A recipe's help and its steps with their options, branches indented."""
    import dataclasses

    print(f"{recipe.name}: {recipe.help}\n")
    for located in recipe.located():
        indent = "    " if located.branch else "  "
        options = dataclasses.asdict(located.step)
        text = "  ".join(f"{key}={_option_text(value)}" for key, value in options.items())
        print(f"{indent}{located.id:28} {text}")
    print()


def _option_text(value: object) -> str:
    """An option's value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return (
        ",".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).replace("None", "none")
    )
