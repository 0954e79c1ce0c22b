"""The digest of the workbench's code that decides a result: a module and all that it imports.

Imports are followed as text, inside functions too, and so are the worker jobs that a module calls
by name. Those for type checking alone decide nothing. Of packages on the way only what is imported
from them by name counts: `workbench/steps/__init__.py` lists every step, and decides none's result.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import cache as memoized
from pathlib import Path

from workbench.process import JOBS

PACKAGE = Path(__file__).parent

_FOR_TYPES = re.compile(r"^if TYPE_CHECKING:\n(?:[ \t].*\n|\n)*", re.MULTILINE)
_IMPORT = re.compile(
    r"^[ \t]*(?:from (workbench[\w.]*) import (\([^)]*\)|.*)|import (workbench[\w.]*))",
    re.MULTILINE,
)
_JOB = re.compile(r"\.(?:call|start|warming)\(\s*\"(\w+)\"")


def code_digest(*modules: str, package: Path = PACKAGE) -> str:
    """The digest of the sources of modules such as `workbench.steps.export` and their imports."""
    hashed = hashlib.sha256()
    for module in sorted(import_closure(*modules, package=package)):
        hashed.update(_file_digest(package, module).encode())
    return hashed.hexdigest()


@memoized
def import_closure(*modules: str, package: Path = PACKAGE) -> frozenset[str]:
    """Modules of the package with all that they import; those that are not of it have none."""
    closure: set[str] = set()
    waiting = [module for module in modules if _file(package, module)]
    while waiting:
        module = waiting.pop()
        if module not in closure:
            closure.add(module)
            waiting += _imports(package, module)
    return frozenset(closure)


@memoized
def _imports(package: Path, module: str) -> tuple[str, ...]:
    """The modules that one imports or whose jobs it starts."""
    file = _file(package, module)
    assert file is not None
    return tuple(dict.fromkeys(named_modules(file.read_text(encoding="utf-8"), package)))


def named_modules(text: str, package: Path = PACKAGE) -> Iterator[str]:
    """The package's modules that a source text imports, or whose jobs it starts."""
    text = _FOR_TYPES.sub("", text)
    for source, names, whole in _IMPORT.findall(text):
        if whole:
            yield whole
            continue
        for name in re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names)):
            inner = f"{source}.{name}"
            if _file(package, inner):
                yield inner
            elif _file(package, source):
                yield source
    for job in _JOB.findall(text):
        if job in JOBS:
            yield JOBS[job].partition(":")[0]


@memoized
def _file(package: Path, module: str) -> Path | None:
    """The file of a module of the package; None where it has none."""
    name, *parts = module.split(".")
    if name != package.name:
        return None
    path = package.joinpath(*parts)
    # The module first: beside library.py an installed package has the folder library/ of data.
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


@memoized
def _file_digest(package: Path, module: str) -> str:
    file = _file(package, module)
    assert file is not None
    return f"{module} {hashlib.sha256(file.read_bytes()).hexdigest()}"
