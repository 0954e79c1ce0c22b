from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.quantization.search.test_sensitivity import LAYERS, images, network, prepared
from workbench.artifact import Artifact
from workbench.codec import to_plain
from workbench.dataset import Dataset
from workbench.dataset.arrays import Arrays
from workbench.dataset.core import Split
from workbench.dataset.preprocess import Preprocess
from workbench.errors import StepError
from workbench.inspect.artifacts import open_artifact
from workbench.intervals import paired_difference
from workbench.quantization.core.engine import CalibratedNetwork, PlannedPlacement
from workbench.quantization.core.placement import OperatorPlacement
from workbench.quantization.core.plan import QuantizationPlan
from workbench.quantization.search import predictions
from workbench.quantization.search.budget import hold_budget
from workbench.quantization.search.budget_order import float_stages, model_noise
from workbench.quantization.search.budget_search import BudgetResult, BudgetSamples
from workbench.quantization.search.output_distance import decibels

Array = NDArray[Any]
Planned = tuple[CalibratedNetwork, OperatorPlacement, QuantizationPlan]


@pytest.fixture(scope="module")
def planned() -> Planned:
    return prepared()


def integers(model: onnx.ModelProto) -> set[str]:
    """The layers of a file that have INT8 weights."""
    return {node.name for node in model.graph.node
            if node.name in LAYERS and node.input[1].endswith("_dq8")}  # fmt: skip


@dataclass
class Made:
    """A score by layers: `wrong` gives the share of samples that INT8 layers get wrong."""

    wrong: Callable[[set[str]], float]
    count: int = 20_000
    what: str = "top-1"
    unseen: bool = True
    calls: list[tuple[set[str], tuple[int, ...]]] = field(default_factory=list)

    def reference(self, rows: Sequence[int]) -> Array:
        right: Array = np.asarray(rows) % 5 != 0  # FP32 is right on 80 %
        return right

    def __call__(self, model: onnx.ModelProto, rows: Sequence[int]) -> Array:
        layers = integers(model)
        self.calls.append((layers, tuple(rows)))
        hit = np.random.default_rng(np.asarray(rows)[0]).random(len(rows)) < self.wrong(layers)
        right: Array = self.reference(rows) & ~hit
        return right


def mended(planned: Planned, score: Any, max_drop: float = 1.0) -> BudgetResult[PlannedPlacement]:
    ready, placement, plan = planned
    found = hold_budget(ready, PlannedPlacement(placement, plan), max_drop, score)
    json.dumps(to_plain(found.evidence), allow_nan=False)
    return found


def test_what_holds_as_it_is_stays_as_it_is(planned: Planned) -> None:
    score = Made(lambda layers: 0.002)
    found = mended(planned, score)
    assert found.candidate is not None
    assert found.candidate.placement is planned[1]
    assert found.candidate.plan is planned[2]
    assert (found.floats, found.evidence.held) == ((), "interval")
    (note,) = found.notes
    assert note.startswith("max_drop=1: top-1 -0.1")
    assert "on 19700 samples that the search never used" in note
    assert len(score.calls) == 1


def test_the_layer_that_costs_accuracy_goes_to_float_and_no_other(planned: Planned) -> None:
    found = mended(planned, Made(lambda layers: 0.05 if "wide" in layers else 0.001))
    assert "wide" in found.floats
    assert len(found.floats) <= 2
    assert found.evidence.held == "interval"
    assert found.candidate is not None
    assert "wide" not in found.candidate.placement.nodes
    assert found.evidence.drop.high <= 1
    assert (
        found.candidate.plan is not planned[2]
    )  # planned anew: biases are those of this placement
    model = planned[0].write(found.candidate.placement, found.candidate.plan)
    assert integers(model) == set(LAYERS) - set(found.floats)
    assert f"{len(found.floats)} more layer(s) in float: " in found.notes[0]


def test_what_is_looked_at_last_was_never_searched_on(planned: Planned) -> None:
    score = Made(lambda layers: 0.03 * len(layers), count=2000)
    found = mended(planned, score)
    by_rows = {rows for _, rows in score.calls}
    assert len(by_rows) == 2
    one, other = by_rows
    assert not set(one) & set(other)
    assert len(one) + len(other) == 2000
    tried = found.evidence.tried
    assert {trial.samples_of for trial in tried} == {"search", "check"}
    assert found.evidence.samples == BudgetSamples(search=300, check=1700, unseen=True)


def test_the_interval_is_the_paired_one_widened_for_three_looks(planned: Planned) -> None:
    score = Made(lambda layers: 0.002)
    found = mended(planned, score)
    ((_, rows),) = score.calls
    model = planned[0].write(planned[1], planned[2])
    plain = paired_difference(score.reference(rows), score(model, rows))
    drop = found.evidence.drop
    assert drop.value == pytest.approx(-plain.value)
    middle = -(plain.low + plain.high) / 2
    assert (drop.high - middle) / (-plain.low - middle) == pytest.approx(2.394 / 1.960, rel=1e-3)


def test_few_samples_hold_it_by_the_estimate_and_say_so(planned: Planned) -> None:
    found = mended(planned, Made(lambda layers: 0.0, count=40))
    assert (found.evidence.held, found.floats) == ("estimate", ())
    assert found.evidence.drop.high > 1
    assert found.notes[1].startswith("20 samples cannot show a drop of at most 1")
    needed = int(found.notes[1].split("about ")[1].split(" ")[0].replace(",", ""))
    assert needed > 100


def test_a_budget_that_no_layer_in_int8_holds_leaves_the_float_file(planned: Planned) -> None:
    found = mended(planned, Made(lambda layers: 0.04 * len(layers)))
    assert found.candidate is None
    assert found.evidence.held == "no"
    (note,) = found.notes
    assert note.startswith("max_drop=1 is not held: top-1 -3.")  # what is reachable
    assert note.endswith("with 3 more layer(s) in float; handed on in FP32")


def test_without_evaluation_samples_it_is_agreement_on_calibration_samples(
    planned: Planned,
) -> None:
    found = mended(planned, None, max_drop=50)
    assert found.evidence.what == "agreement with FP32"
    assert found.evidence.samples.unseen is False
    assert "of calibration" in found.notes[0]
    assert found.notes[-1].startswith("no evaluation samples")


def test_stages_go_from_all_int8_to_all_float_with_less_noise_at_the_end(planned: Planned) -> None:
    ready, placement, plan = planned
    noise = model_noise(ready, placement, plan, ready.samples)
    stages = float_stages(ready, placement, noise)
    assert stages[0].floats == ()
    for one, other in pairwise(stages):
        assert set(one.floats) < set(other.floats)
        assert other.noise < one.noise
    assert set(stages[-1].floats) == set(LAYERS)
    assert stages[-1].noise == 0
    # Then the one that takes its tensors, which are on their grid as long as it is in INT8.
    assert stages[2].floats == ("wide", "third")
    assert [decibels(one.noise) for one in stages[:3]] == sorted(
        decibels(one.noise) for one in stages[:3]
    )
    assert decibels(stages[2].noise) > decibels(stages[0].noise) + 20


def dataset(labels: Array | None, metric: Any = None) -> Dataset:
    source = Arrays({"picture": images(30, seed=9)}, labels, "made")
    split = Split("evaluation", source, np.arange(5, 30), Preprocess())
    return Dataset("made", None, split, metric)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path: Path = tmp_path_factory.mktemp("budget") / "net.onnx"
    onnx.save(network(), path)
    return open_artifact(path)


def test_a_dataset_scores_by_its_labels_or_by_agreement(subject: Artifact) -> None:
    model = network()
    expected = predictions.predict_classes(model, [{"image": images(30, seed=9)}])
    labels = expected.copy()
    labels[7] = (labels[7] + 1) % 10
    labelled = predictions.evaluation_predictions(model, subject, dataset(labels))
    assert labelled is not None
    assert (labelled.what, labelled.count, labelled.unseen) == ("top-1", 25, True)
    rows = [20, 2, 3]  # the split starts at sample 5: 2 is sample 7
    assert labelled.reference(rows).tolist() == [True, False, True]
    assert labelled(model, rows).tolist() == [True, False, True]
    for one in (dataset(None), dataset(labels, lambda predictions, labels: 1.0),
                dataset(labels.astype(np.float32))):  # fmt: skip
        unlabelled = predictions.evaluation_predictions(model, subject, one)
        assert unlabelled is not None
        assert unlabelled.what == "agreement with FP32"
        assert unlabelled.reference(rows).all()
        assert unlabelled(model, rows).all()


def test_agreement_tells_which_samples_changed(subject: Artifact) -> None:
    model, other = network(), network()
    found = predictions.evaluation_predictions(model, subject, dataset(None))
    assert found is not None
    for tensor in other.graph.initializer:
        if tensor.name == "b3":
            changed = onnx.numpy_helper.to_array(tensor) + np.eye(10, dtype=np.float32)[4] * 1e3
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed, "b3"))
    expected = predictions.predict_classes(model, [{"image": images(30, seed=9)[5:]}])
    assert found(other, range(25)).tolist() == (expected == 4).tolist()


def test_most_samples_are_drawn_by_a_fixed_seed(
    subject: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MOST", 10)
    found = predictions.evaluation_predictions(network(), subject, dataset(None))
    assert found is not None
    assert found.count == 10
    again = predictions.evaluation_predictions(network(), subject, dataset(None))
    assert again is not None
    for one, other in zip(found.feeds(range(10)), again.feeds(range(10)), strict=True):
        assert (one["image"] == other["image"]).all()
    assert (
        predictions.evaluation_predictions(network(), subject, Dataset("none", None, None)) is None
    )


def test_outputs_that_are_no_classes_are_refused(planned: Planned) -> None:
    def feeds(rows: Sequence[int]) -> list[dict[str, Array]]:
        return [{"image": images()[list(rows)]}]

    model = network(classes=1)
    score = predictions.ClassPredictions(model, feeds, 20)
    with pytest.raises(StepError, match="needs a classifier") as caught:
        score.reference([0, 1])
    assert "2x1" in caught.value.why


def test_names_of_many_layers_are_not_all_in_the_note() -> None:
    from workbench.quantization.search.budget_search import name_layers

    assert name_layers(("a", "b")) == "a, b"
    assert name_layers(tuple("abcdefgh")) == "a, b, c, d and 4 others"
