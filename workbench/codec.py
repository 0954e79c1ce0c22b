"""Frozen values as JSON and back: one codec for every record, report and message.

Dataclasses become objects, tuples lists, enums their values, paths their text, arrays nested lists
(booleans as 0 and 1), and numbers that JSON has no word for (infinities, NaN) their text.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Point:
    ...     x: float
    ...     name: str = ""
    >>> to_plain(Point(float("inf")))
    {'x': 'inf', 'name': ''}
    >>> from_plain({"x": "inf"}, Point)
    Point(x=inf, name='')
"""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar, get_origin

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """The value in what JSON has. Raises TypeError for what the codec does not know."""
    import msgspec

    return _finite(msgspec.to_builtins(value, enc_hook=_encode, str_keys=True))


def from_plain(data: Any, kind: type[T]) -> T:
    """A value of `kind` from what `to_plain` gave; unknown keys are passed over.

    Raises ValueError where the data does not fit.
    """
    import msgspec

    return msgspec.convert(data, kind, strict=False, dec_hook=_decode)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _encode(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        return (value.astype(int) if value.dtype == bool else value).tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is no plain value")


def _decode(kind: type, data: Any) -> Any:
    import numpy as np

    if kind is Path:
        return Path(data)
    if get_origin(kind) is np.ndarray or kind is np.ndarray:
        return np.asarray(data)
    raise TypeError(f"{kind.__name__} cannot be read back")
