"""Where recipes, datasets and device profiles are found by name.

A user's own project with the folders `recipes`, `calibration` and `devices` is a workbench too:
the working directory's come first, then the copies inside the installed package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from workbench.errors import InputError, RecipeError, did_you_mean

Kind = Literal["recipes", "calibration", "devices"]

_SUFFIX: dict[Kind, str] = {"recipes": ".py", "calibration": ".toml", "devices": ".toml"}
_NOUN: dict[Kind, str] = {"recipes": "recipe", "calibration": "dataset", "devices": "device"}


def folders(kind: Kind) -> tuple[Path, ...]:
    """The folders searched for `kind`, first match wins."""
    package = Path(__file__).parent
    installed = package / "library" / kind
    # In a checkout (or an editable install) the package's neighbours are the originals.
    shipped = installed if installed.is_dir() else package.parent / kind
    return (Path.cwd() / kind, shipped)


def entries(kind: Kind) -> dict[str, Path]:
    """Every entry of `kind` by name; a file `mobile_int8.py` is named `mobile-int8`."""
    paths: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.glob(f"*{_SUFFIX[kind]}")):
            if not path.name.startswith(("_", ".")):
                paths.setdefault(path.stem.replace("_", "-"), path.resolve())
    return paths


def find(kind: Kind, name: str) -> Path:
    """The file of an entry, given by name or by path.

    Raises InputError, with the nearest known name, where there is none.
    """
    if "/" in name or "\\" in name or name.endswith(_SUFFIX[kind]):
        try:
            path = Path(name).expanduser()
        except RuntimeError:  # ~nobody
            path = Path(name)
        if not path.is_file():
            raise InputError(f"there is no {_NOUN[kind]} file {name}")
        return path.resolve()
    paths = entries(kind)
    key = name.replace("_", "-")
    if key not in paths:
        searched = ", ".join(str(folder) for folder in folders(kind))
        raise InputError(
            f"there is no {_NOUN[kind]} named '{name}'",
            f"looked in {searched}",
            did_you_mean(key, paths),
        )
    return paths[key]


def recipe_summaries() -> dict[str, str]:
    """Every known recipe's name with the first line of its docstring, without running any."""
    import ast

    summaries = {}
    for name, path in entries("recipes").items():
        try:
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        except (SyntaxError, ValueError, OSError) as error:
            text = f"cannot be read: {error}"
        summaries[name] = text.strip().partition("\n")[0]
    return summaries


def copy_recipe(name: str, source: str) -> Path:
    """Copy a recipe's file into ./recipes under a new name. Raises RecipeError where it exists."""
    import re
    import shutil

    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is None:
        raise RecipeError(f"'{name}' cannot name a recipe", "", "use letters, digits and '-'")
    origin = find("recipes", source)
    target = Path("recipes") / f"{name.replace('-', '_')}.py"
    if target.exists():
        raise RecipeError(f"{target} exists already", "", "choose another name, or edit it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(origin, target)
    return target
