"""Accuracy: scores against values worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from workbench.errors import DatasetError
from workbench.intervals import Estimate, paired_difference
from workbench.measure.accuracy import Scores, joined, score

# Three samples, seven classes: the order of preference is 6 5 4 3 2 1 0; 0 1 2 …; 3 then the rest.
REFERENCE = np.array(
    [[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [0, 0, 0, 9, 0, 0, 0]], np.float32
)
OUTPUTS = np.array(
    [[0, 1, 2, 3, 4, 6, 5], [6, 5, 4, 3, 2, 1, 0], [0, 0, 0, 8, 0, 0, 0]], np.float32
)
LABELS = np.array([6, 5, 3])


def test_top1_top5_and_agreement_are_counted():
    found = score([OUTPUTS], [REFERENCE], LABELS)
    # Sample 0: 6 is second. Sample 1: 5 is sixth. Sample 2: 3 is first.
    assert found.top1.tolist() == [False, False, True]
    assert found.top5.tolist() == [True, False, True]
    assert found.agree.tolist() == [False, True, True]
    assert found.accuracy == pytest.approx(100 / 3)
    assert found.top5_accuracy == pytest.approx(200 / 3)
    assert found.agreement == pytest.approx(200 / 3)
    assert len(found) == 3


def test_sqnr_is_over_all_samples_and_outputs():
    boxes = np.full((3, 2, 2), 2.0)
    found = score([OUTPUTS, boxes + 0.5], [REFERENCE, boxes], None)
    assert found.signal.tolist() == [91 + 16, 91 + 16, 81 + 16]
    assert found.noise.tolist() == [2 + 1, 0 + 1, 1 + 1]
    assert found.sqnr == pytest.approx(10 * math.log10(311 / 6))


def test_equal_outputs_agree_wholly():
    found = score([REFERENCE], [REFERENCE], None)
    assert (found.agreement, found.sqnr) == (100.0, math.inf)


def test_of_equal_values_the_first_class_is_taken_on_both_sides():
    tied = np.ones((2, 7), np.float32)
    found = score([tied], [tied], np.array([0, 5]))
    assert found.agree.all()
    assert found.top1.tolist() == [True, False]
    assert found.top5.tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "float16", "bool"])
def test_outputs_of_any_dtype_are_ranked(dtype):
    low = np.iinfo(dtype).min if dtype == "int8" else 0
    values = np.array([[low, 1, 0], [1, low, 0]]).astype(dtype)
    found = score([values], [values], np.array([1, 0]))
    assert found.top1.all()
    assert found.agree.all()


def test_without_labels_there_is_agreement_but_no_accuracy():
    found = score([OUTPUTS], [REFERENCE], None)
    assert (found.top1, found.top5, found.accuracy) == (None, None, None)
    assert found.agreement == pytest.approx(200 / 3)


@pytest.mark.parametrize("labels", [np.array([[6], [5], [3]]), np.array([6.0, 5.0, 3.0])])
def test_labels_that_are_no_classes_are_left_to_the_users_metric(labels):
    found = score([OUTPUTS], [REFERENCE], labels)
    assert found.top1 is None
    assert found.agree is not None


def test_of_five_classes_or_fewer_there_is_no_top5():
    found = score([OUTPUTS[:, :5]], [REFERENCE[:, :5]], np.array([4, 0, 3]))
    assert (found.top5, found.top5_accuracy) == (None, None)
    assert found.top1.all()


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 7, 2, 2)])
def test_outputs_that_are_no_classes_give_sqnr_alone(shape):
    reference = np.ones(shape)
    found = score([reference * 1.1], [reference], LABELS)
    assert (found.top1, found.top5, found.agree, found.agreement) == (None,) * 4
    assert found.sqnr == pytest.approx(20)


@pytest.mark.parametrize(("labels", "span"), [([0, 7, 1], "0 to 7"), ([-1, 2, 3], "-1 to 3")])
def test_a_label_that_is_no_class_is_an_error(labels, span):
    with pytest.raises(DatasetError) as caught:
        score([OUTPUTS], [REFERENCE], np.array(labels))
    assert caught.value.what == f"labels out of range: {span}, but the model has 7 classes"


def test_batches_joined_are_the_whole():
    rows = [slice(0, 1), slice(1, 3)]
    parts = [score([OUTPUTS[r]], [REFERENCE[r]], LABELS[r]) for r in rows]
    whole = score([OUTPUTS], [REFERENCE], LABELS)
    for name in ("top1", "top5", "agree", "signal", "noise"):
        np.testing.assert_array_equal(getattr(joined(parts), name), getattr(whole, name))
    assert joined([score([OUTPUTS], [REFERENCE], None)]).top1 is None


def test_a_delta_is_paired_with_the_baseline():
    baseline, one = (score([out], [REFERENCE], LABELS) for out in (REFERENCE, OUTPUTS))
    assert one.delta(baseline) == paired_difference(baseline.top1, one.top1)
    assert one.delta(baseline).value == pytest.approx(-100 / 3)
    assert one.delta(score([OUTPUTS], [REFERENCE], None)) is None
    assert score([OUTPUTS], [REFERENCE], None).delta(baseline) is None


def test_a_users_metric_takes_the_place_of_top1():
    one = score([OUTPUTS], [REFERENCE], LABELS)
    delta = Estimate(-0.1, -0.2, 0.0)
    mine = Scores(one.top1, one.top5, one.agree, one.signal, one.noise, 0.75, delta)
    assert (mine.accuracy, mine.delta(one)) == (0.75, delta)


@pytest.mark.parametrize("labels", [LABELS, None])
@pytest.mark.parametrize("metric", [(None, None), (0.5, Estimate(0.1, 0.0, 0.2))])
def test_scores_round_trip_through_json(labels, metric):
    one = score([OUTPUTS], [REFERENCE], labels)
    one = Scores(one.top1, one.top5, one.agree, one.signal, one.noise, *metric)
    back = Scores.from_json(json.loads(json.dumps(one.to_json())))
    for name in ("top1", "top5", "agree", "signal", "noise"):
        np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
    assert (back.metric, back.metric_delta) == metric
    assert back.accuracy == one.accuracy


def softmax(array):
    return np.exp(array) / np.exp(array).sum(1, keepdims=True)


def test_probabilities_are_compared_with_the_references():
    found = score([softmax(REFERENCE)], [REFERENCE], LABELS, "softmax")
    assert found.sqnr > 120
    assert (found.agreement, found.top5_accuracy) == (100.0, pytest.approx(200 / 3))
    noise = np.zeros_like(REFERENCE)
    noise[0, 0] = 0.1
    found = score([softmax(REFERENCE) + noise], [REFERENCE], None, "softmax")
    signal = float((softmax(REFERENCE) ** 2).sum())
    assert found.sqnr == pytest.approx(10 * math.log10(signal / 0.01), abs=1e-4)


def test_of_classes_alone_there_is_neither_an_sqnr_nor_a_top5():
    chosen = np.eye(7, dtype=np.float32)[[5, 0, 3]]
    found = joined([score([chosen], [REFERENCE], LABELS, "argmax")] * 2)
    assert (found.sqnr, found.top5, found.top5_accuracy) == (None, None, None)
    assert found.top1.tolist() == [False, False, True] * 2
    assert found.agree.tolist() == [False, True, True] * 2
    again = Scores.from_json(json.loads(json.dumps(found.to_json())))
    assert (again.sqnr, again.head) == (None, "argmax")


def test_a_reference_with_the_same_head_is_not_given_it_again():
    found = score([softmax(REFERENCE)], [softmax(REFERENCE)], LABELS, "softmax", "softmax")
    assert (found.sqnr, found.agreement) == (math.inf, 100.0)
