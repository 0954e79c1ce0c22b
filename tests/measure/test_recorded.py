"""Outputs kept for the next artifact: the same as were given, and none that cannot be kept."""

from __future__ import annotations

import numpy as np
import pytest

from workbench.dataset import Batch
from workbench.measure import recorded
from workbench.measure.recorded import Recorded, Recording, save


def batch(start: int, count: int) -> Batch:
    return Batch(start=start, inputs={"x": np.zeros((count, 1), np.float32)}, labels=None)


def test_what_was_recorded_is_given_back_by_batch(tmp_path):
    rng = np.random.default_rng(0)
    outputs = [rng.normal(size=(10, 3)).astype(np.float32), rng.integers(0, 9, (10, 2, 2))]
    recording = Recording("eager")
    for start in range(0, 10, 4):
        recording({"eager": [one[start : start + 4] for one in outputs], "other": []})
    known = Recorded(tmp_path, save(tmp_path, recording.arrays(10)))
    for start, count in ((0, 4), (4, 4), (8, 2)):
        given = known(batch(start, count))
        for wanted, found in zip(outputs, given, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted[start : start + count])


@pytest.mark.parametrize(
    "batches",
    [
        [],
        [np.zeros((4, 3)), np.zeros((4, 2))],  # as long as the batch's longest sample
        [np.zeros((4, 3))],  # a run that ended early
        [np.zeros(())],
    ],
)
def test_outputs_that_are_no_array_of_all_samples_are_not_kept(batches):
    recording = Recording("eager")
    for one in batches:
        recording({"eager": [one]})
    assert recording.arrays(8) == []


def test_many_bytes_are_not_kept(monkeypatch):
    monkeypatch.setattr(recorded, "LIMIT", 100)
    recording = Recording("eager")
    for _ in range(3):
        recording({"eager": [np.zeros((4, 2))]})  # 64 bytes
    assert recording.arrays(12) == []
    assert recording._batches == []
