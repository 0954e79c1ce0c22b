"""Batches of named arrays."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from workbench import arrays


def test_the_examples_in_the_docstrings_hold():
    results = doctest.testmod(arrays)
    assert results.attempted == 4
    assert results.failed == 0


def test_samples_taken_apart_and_joined_are_the_batch():
    batch = {"x": np.arange(12.0).reshape(4, 3), "ids": np.arange(4)}
    samples = [list(sample.values()) for sample in arrays.split_samples(batch)]
    assert [[array.shape for array in sample] for sample in samples] == [[(1, 3), (1,)]] * 4
    joined = arrays.concatenate(samples)
    np.testing.assert_array_equal(joined[0], batch["x"])
    np.testing.assert_array_equal(joined[1], batch["ids"])


def test_batches_with_other_numbers_of_outputs_are_refused():
    output = np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        arrays.concatenate([[output, output], [output]])
