"""What a live object would do, as a digest: values, a user's functions, a module's attributes.

Of an installed package's functions and classes the name counts alone: its version is in the keys of
the cache. A user's are followed: code, defaults, closure, and the globals that the code names.

>>> def scaled(factor):
...     return lambda x: factor * x
>>> digest_of(scaled(2)) == digest_of(scaled(2)), digest_of(scaled(2)) == digest_of(scaled(3))
(True, False)
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.usercode import OWN_MODULE, is_users_file

DEPTH = 100  # of values within values: more than networks nest, less than Python's stack
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...), range, Path)


def digest_of(*values: Any) -> str:
    """SHA-256 of all that decides what the values would do."""
    form = _Form()
    text = json.dumps([form.of(value) for value in values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _Form:
    """JSON of live objects, without their addresses. An object that comes again is its number."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.kept: list[Any] = []  # so that no object's id is given away again
        self.depth = 0

    def of(self, value: Any) -> Any:
        """The form of any value."""
        if isinstance(value, _PLAIN):
            return [type(value).__name__, repr(value)]
        if id(value) in self.numbers:
            return ["again", self.numbers[id(value)]]
        self.numbers[id(value)] = len(self.numbers)
        self.kept.append(value)
        if self.depth == DEPTH:
            return _name(value)
        self.depth += 1
        try:
            return self._of_object(value)
        except Exception:  # noqa: BLE001 - whatever a foreign object raises when it is looked at
            return _name(value)
        finally:
            self.depth -= 1

    def _of_object(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            items = [(self.of(key), self.of(item)) for key, item in value.items()]
            return [_name(value), items]
        if isinstance(value, set | frozenset):
            return [_name(value), sorted(json.dumps(self.of(item)) for item in value)]
        if isinstance(value, tuple | list):
            return [_name(value), [self.of(item) for item in value]]
        if isinstance(value, functools.partial):
            return ["partial", self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, types.ModuleType):
            return ["module", value.__name__]
        if hasattr(value, "__array__") and hasattr(value, "dtype"):
            return _of_array(value)
        return [self.of(type(value)), self._attributes(value)]

    def _of_function(self, function: types.FunctionType) -> Any:
        if not _is_users(function):
            return _name(function)
        return [
            _name(function), self._of_code(function.__code__, function.__globals__),
            self.of(function.__defaults__), self.of(function.__kwdefaults__),
            [self.of(_content(cell)) for cell in function.__closure__ or ()],
        ]  # fmt: skip

    def _of_code(self, code: types.CodeType, scope: Mapping[str, Any]) -> Any:
        """Instructions and constants, and what the code's names stand for."""
        constants = [
            self._of_code(constant, scope) if isinstance(constant, types.CodeType) else
            self.of(constant) for constant in code.co_consts
        ]  # fmt: skip
        named = {name: scope[name] for name in code.co_names if name in scope}
        modules = [value for value in named.values() if isinstance(value, types.ModuleType)]
        for module in modules:  # helper.shift: of a user's module what is named beside it
            if _is_users(module):
                named |= {f"{module.__name__}.{name}": value for name, value in
                          vars(module).items() if name in code.co_names}  # fmt: skip
        followed = {name: self.of(value) for name, value in named.items()}
        return [code.co_code.hex(), code.co_names, constants, followed]

    def _of_class(self, kind: type) -> Any:
        if not _is_users(kind):
            return _name(kind)
        own = {
            key: self.of(getattr(value, "__func__", getattr(value, "fget", value)))
            for key, value in vars(kind).items()
            if key not in ("__dict__", "__weakref__", "__doc__", "__annotations__", "__module__")
        }
        return [_name(kind), [self.of(base) for base in kind.__bases__], own]

    def _attributes(self, value: Any) -> Any:
        """What an object holds; an object of C alone holds nothing that could be told."""
        own = getattr(value, "__dict__", None) or {}
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        own = own | {name: getattr(value, name) for name in slots if hasattr(value, name)}
        if not own:
            text = repr(value)
            return "" if " at 0x" in text else text
        return {str(key): self.of(item) for key, item in own.items()}


def _of_array(array: Any) -> Any:
    """A NumPy array's or a tensor's dtype, shape and bytes."""
    import numpy as np

    dtype, shape = str(array.dtype), list(array.shape)
    if hasattr(array, "detach"):
        from torch import uint8

        array = array.detach().cpu().contiguous().flatten().view(uint8).numpy()
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return [dtype, shape, hashlib.sha256(content.data).hexdigest()]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a recursive function's own, not filled yet
        return None


def _name(value: Any) -> str:
    kind = value if isinstance(value, type | types.FunctionType) else type(value)
    return f"{OWN_MODULE.sub('', kind.__module__ or '')}.{kind.__qualname__}"


def _is_users(value: Any) -> bool:
    """Whether a function or a class stands in a file of the user's own, or in none."""
    try:
        file = Path(inspect.getfile(value))
    except OSError:
        return True
    except TypeError:  # built in, or a class made without a file
        methods = vars(value).values() if isinstance(value, type) else ()
        return any(isinstance(item, types.FunctionType) and _is_users(item) for item in methods)
    return not file.is_file() or is_users_file(file)
