"""Users' own callables, named `file.py:function` or `package.module:function`, and what they read.

They are the user's own code and run with the user's rights, as README says.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import InputError, did_you_mean

# What a module that came from a file of the user's is called by, before the file's own name.
OWN_PREFIX = "workbench_user_"
OWN_MODULE = re.compile(rf"^{OWN_PREFIX}[0-9a-f]+_")


def resolve(spec: str, relative_to: Path) -> Callable[..., Any]:
    """The callable that `file.py:name` or `package.module:name` names.

    A file's folder is put on the import path, so that its neighbours can be imported as when it is
    run. Raises InputError where the file, the module or the name is not there, or fails.
    """
    module_name, colon, name = spec.rpartition(":")
    if not colon or not module_name or not name:
        raise InputError(
            f"'{spec}' names no function", "", "write file.py:function or package.module:function"
        )
    module = (
        _from_file(module_name, relative_to)
        if module_name.endswith(".py")
        else _from_package(module_name)
    )
    function = getattr(module, name, None)
    if function is None:
        public = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(f"{module_name} has no '{name}'", "", did_you_mean(name, public))
    if not callable(function):
        raise InputError(f"{spec} is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]


def _from_file(file: str, relative_to: Path) -> Any:
    try:
        path = (relative_to / Path(file).expanduser()).resolve()
    except RuntimeError as error:  # ~nobody
        raise InputError(f"there is no file {file}", str(error)) from error
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    # A name of its own for each path: two users' `model.py` must not be one module.
    name = f"{OWN_PREFIX}{abs(hash(str(path))):x}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InputError(
            f"{path} fails when imported", f"{type(error).__name__}: {error}"
        ) from error
    return module


def _from_package(module: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"there is no module {module}",
                str(error),
                "install it, or run wb in the folder that holds it",
            ) from error
        raise InputError(
            f"{module} fails when imported", f"{type(error).__name__}: {error}"
        ) from error


class Dependencies:
    """The user's files that a stretch of code read: sources it imported, data it opened."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.active = False

    def note(self, value: Any) -> None:
        """Add a file by its path; what is no path (a descriptor) is passed over."""
        if isinstance(value, bytes):
            value = os.fsdecode(value)
        if isinstance(value, str | os.PathLike):
            self.paths.add(Path(value))


@contextmanager
def watch_files(dependencies: Dependencies) -> Iterator[None]:
    """Record into `dependencies` the user's files that the block rests on.

    That is every one that it opens for reading, and every module loaded by its end: one that was
    loaded before is not opened again, but is used all the same.
    """

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if dependencies.active and event == "open" and arguments[1] in ("r", "rb", None):
            dependencies.note(arguments[0])

    sys.addaudithook(hook)  # cannot be taken off again; `active` turns it into a no-op
    dependencies.active = True
    try:
        yield
    finally:
        dependencies.active = False
        for module in list(sys.modules.values()):
            dependencies.note(getattr(module, "__file__", None) or "/")
        dependencies.paths = {path for path in dependencies.paths if is_users_file(path)}


# The workbench's own code is in the keys of the cache already.
_NOT_USERS = (
    Path(__file__).resolve().parent,
    *(
        Path(sysconfig.get_path(key)).resolve()
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
    ),
)


@lru_cache(maxsize=4096)
def _resolved_folder(folder: Path) -> Path:
    return folder.resolve()


def is_users_file(path: Path) -> bool:
    """Whether a file is the user's own: not the interpreter's, not an installed package's."""
    # Folders are resolved once for all their files: a process has loaded thousands.
    plain = path.is_absolute() and path.name != ".." and not path.is_symlink()
    resolved = _resolved_folder(path.parent) / path.name if plain else path.resolve()
    if not resolved.is_file() or str(resolved).startswith(("/proc/", "/sys/", "/dev/", "/etc/")):
        return False
    if resolved.suffix in (".pyc", ".so"):
        return False
    return not any(resolved.is_relative_to(root) for root in _NOT_USERS)
