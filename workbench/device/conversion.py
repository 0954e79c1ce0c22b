"""Arrays as a file's inputs take them, and its outputs as values: types and quantization."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import InputError

Array = NDArray[Any]


def match_dtype(array: Array, dtype: np.dtype[Any] | None) -> Array:
    """An array in the size that the file takes, never of another kind."""
    if dtype is None or array.dtype == dtype:
        return array
    alike = array.dtype.kind == dtype.kind or {array.dtype.kind, dtype.kind} == {"i", "u"}
    return array.astype(dtype) if alike else array


def quantize_input(array: Array, kind: Any, parameters: tuple[float, int], name: str) -> Array:
    """Float values as the integers that an input with quantization parameters takes.

    kind: the input's dtype. parameters: (scale, zero point), scale 0 of an input without.
    Raises InputError where an input of plain integers, such as ids, cannot hold a value.
    """
    scale, zero_point = parameters
    dtype = np.dtype(kind)
    if array.dtype == dtype:
        return array
    if scale == 0:
        with np.errstate(invalid="ignore"):  # of what does not fit, which is refused below
            cast: Array = array.astype(dtype)
        if dtype.kind in "iu" and not (cast == array).all():
            lost = array[cast != array].flat[0]
            raise InputError(
                f"input '{name}' holds {lost}, which the file's {dtype} cannot hold",
                "",
                "give values that fit",
            )
        return cast
    limits = np.iinfo(dtype)
    rounded = np.round(array / scale + zero_point)
    stored: Array = np.clip(rounded, limits.min, limits.max).astype(dtype)
    return stored


def dequantize_output(array: Array, parameters: tuple[float, int]) -> Array:
    """The values of an output's integers; floats, and integers without parameters, as they are."""
    scale, zero_point = parameters
    if scale == 0 or array.dtype.kind == "f":
        return array
    real: Array = ((array.astype(np.float32) - zero_point) * scale).astype(np.float32)
    return real
