"""Splits and batches: order, fingerprints, overlap, and the samples that cannot be right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from workbench.artifact import TensorSpec
from workbench.dataset import Dataset, Split, random_dataset
from workbench.dataset.arrays import Arrays, IndexedSamples
from workbench.dataset.core import random_inputs
from workbench.dataset.preprocess import Preprocess
from workbench.errors import DatasetError

ROWS = np.arange(28, dtype=np.float32).reshape(7, 4)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])


def split(
    rows=ROWS, labels=LABELS, order=None, name="evaluation", place="rows.npy", **options
) -> Split:
    inputs = rows if isinstance(rows, dict) else {"input": rows}
    count = len(next(iter(inputs.values())))
    return Split(
        name,
        Arrays(inputs, labels, place),
        np.arange(count) if order is None else np.asarray(order),
        Preprocess(**options),
    )


def dataset(calibration, evaluation) -> Dataset:
    return Dataset("mine", calibration, evaluation)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7, 8, 100])
def test_batches_cover_everything_in_order_whatever_their_size(size):
    order = [3, 0, 6, 1, 5, 2, 4]
    batches = list(split(order=order).batches(size))
    np.testing.assert_array_equal(np.concatenate([b.inputs["input"] for b in batches]), ROWS[order])
    assert np.concatenate([b.labels for b in batches]).tolist() == LABELS[order].tolist()
    assert [b.start for b in batches] == list(range(0, 7, size))
    assert [len(b) for b in batches] == [min(size, 7 - start) for start in range(0, 7, size)]


@pytest.mark.parametrize(("limit", "lengths"), [(5, [3, 2]), (3, [3]), (0, []), (99, [3, 3, 1])])
def test_a_limit_takes_the_first_samples(limit, lengths):
    assert [len(batch) for batch in split().batches(3, limit)] == lengths


def test_a_split_without_labels_has_batches_without():
    unlabelled = split(labels=None)
    assert unlabelled.labels is None
    assert [batch.labels for batch in unlabelled.batches(4)] == [None, None]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_sample_that_is_not_finite_is_named(bad, size):
    rows = ROWS.copy()
    rows[4, 2] = bad
    with pytest.raises(DatasetError) as caught:
        list(split(rows, order=[0, 1, 2, 3, 6, 5, 4]).batches(size))
    assert caught.value.what == "rows.npy, row 4: input 'input' contains NaN or Inf"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_sample_of_another_shape_is_named_whatever_the_batch_size(size):
    items = [np.zeros(3)] * 5 + [np.zeros(4)] + [np.zeros(3)]
    odd = Split("evaluation", IndexedSamples(items, "make.py:f"), np.arange(7), Preprocess())
    with pytest.raises(DatasetError) as caught:
        list(odd.batches(size))
    assert "make.py:f, sample 5: input 'input' has shape (4,), others (3,)" in caught.value.what
    assert "preprocess.resize" in caught.value.fix


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float64"])
def test_batches_keep_the_dtype(dtype):
    batch = next(split(ROWS.astype(dtype)).batches(4))
    assert batch.inputs["input"].dtype == dtype


def test_inputs_are_specs_with_a_batch_axis_after_preprocessing():
    images = np.zeros((2, 6, 8, 3), np.uint8)
    image_split = split(images, None, scale=255.0, layout="NCHW")
    assert image_split.inputs == (TensorSpec(name="input", dtype="float32", shape=(None, 3, 6, 8)),)


def test_the_fingerprint_is_of_the_content_and_not_of_its_place():
    base = split().fingerprint
    assert split(place="elsewhere.npy", name="calibration").fingerprint == base
    assert split(np.concatenate([ROWS, ROWS]), np.tile(LABELS, 2), range(7)).fingerprint == base


@pytest.mark.parametrize(
    "other",
    [
        split(ROWS + np.eye(7, 4, dtype=np.float32)),
        split(labels=LABELS[::-1].copy()),
        split(labels=None),
        split(order=[1, 0, 2, 3, 4, 5, 6]),
        split(order=range(6)),
        split({"other": ROWS}),
        split(ROWS.view(np.int32)),
        split(ROWS.reshape(7, 2, 2)),
        split(scale=2.0),
        split(labels=LABELS.astype(np.int32)),
    ],
)
def test_the_fingerprint_changes_with_content_labels_order_and_preprocessing(other):
    assert other.fingerprint != split().fingerprint


def test_fingerprints_of_several_inputs_do_not_depend_on_their_order():
    a, b = ROWS, ROWS + 1
    ordered, same = split({"a": a, "b": b}), split({"b": b, "a": a})
    assert ordered.fingerprint == same.fingerprint != split({"a": b, "b": a}).fingerprint


def test_a_sample_in_both_splits_is_found():
    evaluation = np.concatenate([ROWS + 100, ROWS[2:4]])
    data = dataset(split(), split(evaluation, None, place="other.npy"))
    with pytest.raises(DatasetError) as caught:
        data.check()
    assert "mine: 2 of 9 evaluation samples are calibration samples too" in caught.value.what
    assert "other.npy, row 7" in caught.value.why


def test_only_the_samples_of_a_split_count_for_overlap():
    dataset(split(order=[0, 1]), split(ROWS.copy(), order=[2, 3])).check()


@pytest.mark.parametrize(
    "other", [ROWS.reshape(7, 2, 2) + 100, ROWS.astype(np.float64) + 100, {"x": ROWS + 100}]
)
def test_splits_of_other_shapes_types_or_names_are_refused(other):
    with pytest.raises(DatasetError, match="differ in shape or type"):
        dataset(split(), split(other)).check()


def test_disjoint_and_lone_splits_pass():
    dataset(split(), split(ROWS + 100)).check()
    dataset(None, split()).check()
    dataset(split(), None).check()
    whole = split()
    parts = [dataclasses.replace(whole, indices=np.array(part)) for part in ([0, 1], [2, 3])]
    dataset(*parts).check()


def test_calibrating_takes_all_samples_or_as_many_as_asked_for():
    data = dataset(split(), None)
    assert data.calibrating(None) == (data.calibration, 7)
    assert data.calibrating(3) == (data.calibration, 3)
    with pytest.raises(DatasetError, match="8 calibration samples asked for, mine has 7") as caught:
        data.calibrating(8)
    assert "samples=7 or less" in caught.value.fix


def test_calibrating_without_samples_asks_for_data():
    with pytest.raises(DatasetError, match="no calibration samples") as caught:
        dataset(None, split()).calibrating(None)
    assert "--data" in caught.value.fix


def test_examples_are_the_first_calibration_samples():
    data = dataset(split(order=[4, 2, 0]), split(ROWS + 100))
    np.testing.assert_array_equal(data.examples(2)["input"], ROWS[[4, 2]])
    np.testing.assert_array_equal(data.examples(99)["input"], ROWS[[4, 2, 0]])
    np.testing.assert_array_equal(dataset(None, split()).examples(1)["input"], ROWS[:1])


def test_without_data_examples_are_seeded_and_shaped_as_described():
    specs = (
        TensorSpec(name="x", dtype="float16", shape=(None, 3, None)),
        TensorSpec(name="ids", dtype="int64", shape=(None, 5)),
    )
    data = random_dataset(specs)
    first = data.examples(4, seed=1)
    assert {name: (a.shape, str(a.dtype)) for name, a in first.items()} == {
        "x": ((4, 3, 1), "float16"), "ids": ((4, 5), "int64"),
    }  # fmt: skip
    assert set(np.unique(first["ids"])) <= {0, 1}
    assert data.inputs == specs
    np.testing.assert_array_equal(first["x"], random_inputs(specs, 4, 1)["x"])
    assert not np.array_equal(first["x"], data.examples(4, seed=2)["x"])
