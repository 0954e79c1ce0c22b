"""Values come back from JSON as they were."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench.artifact import Format, Pixels, TensorSpec
from workbench.codec import from_plain, to_plain


@dataclass(frozen=True)
class Everything:
    number: float
    shape: tuple[int | None, ...]
    counts: Mapping[str, int]
    array: NDArray[Any] | None
    path: Path
    spec: TensorSpec | None
    format: Format


def test_a_value_comes_back_from_json_text():
    pixels = Pixels(factor=(1.0,), offset=(0.5,), reversed=True)
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 3), pixels=pixels)
    value = Everything(
        -math.inf, (1, None), {"a": 1}, np.array([[1.5, 2.0]]), Path("/a b"), spec, Format.ORT
    )
    again = from_plain(json.loads(json.dumps(to_plain(value), allow_nan=False)), Everything)
    np.testing.assert_array_equal(again.array, value.array)
    assert isinstance(again.shape, tuple)
    assert {**vars(again), "array": 0} == {**vars(value), "array": 0}


def test_booleans_are_bits_and_nan_is_text():
    assert to_plain(np.array([True, False])) == [1, 0]
    assert to_plain({"a": (math.nan, np.float32(0.5))}) == {"a": ["nan", 0.5]}


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="name"):
        from_plain({"dtype": "float32", "shape": []}, TensorSpec)
    with pytest.raises(TypeError, match="object is no plain value"):
        to_plain(object())
