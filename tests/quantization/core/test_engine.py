"""The whole engine on a small network: what its passes decide, and what they may not do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.quantization.search.test_sensitivity import (
    COUNT,
    LAYERS,
    batches,
    images,
    network,
    prepared,
)
from workbench.quantization.core import engine, equalization_noise, fake_quantization, presets
from workbench.quantization.core.plan import ActivationRange, QuantizationPlan
from workbench.quantization.core.samples import count_samples
from workbench.quantization.prepare.graph_runs import run_graph


def loss(model: Any, seed: int = 50) -> float:
    """SQNR in dB on samples that calibration did not see."""
    feeds = [{"image": images(64, seed)}]
    (expected,) = run_graph(network(), feeds, ["logits"])[0]
    (found,) = run_graph(model, feeds, ["logits"])[0]
    return fake_quantization.output_sqnr([expected], [found])


def quantized(preset: str = "balanced", **more: Any) -> engine.QuantizationResult:
    given: Any = {"preset": preset, "whole": True} | more
    return engine.quantize(network(), batches, engine.QuantizationOptions(**given))


@pytest.fixture(scope="module")
def balanced() -> engine.QuantizationResult:
    return quantized()


def test_it_is_nearer_to_float_than_min_max(balanced: engine.QuantizationResult) -> None:
    ready, placement, _ = prepared()
    plain = fake_quantization.min_max_plan(
        ready.network, placement, ready.stats, balanced.plan.scheme
    )
    worst = loss(ready.write(placement, plain))
    assert min(loss(balanced.model), loss(quantized("fast").model)) > worst + 10


def test_every_layer_is_quantized_and_the_file_loads(balanced: engine.QuantizationResult) -> None:
    assert set(balanced.plan.weights) == set(LAYERS) <= set(balanced.placement.nodes)
    assert any(note.startswith("equalized: ") for note in balanced.notes)
    assert {one.key for one in balanced.model.metadata_props} == {"workbench.equalized"}
    onnxruntime.InferenceSession(balanced.model.SerializeToString())


def test_the_same_seed_gives_the_same_file(balanced: engine.QuantizationResult) -> None:
    assert quantized().model.SerializeToString() == balanced.model.SerializeToString()


def test_named_layers_are_left_in_float() -> None:
    made = quantized(floats=frozenset({"wide"}))
    assert set(made.plan.weights) == set(LAYERS) - {"wide"}
    (wide,) = [node for node in made.model.graph.node if node.name == "wide"]
    assert wide.input[1] in {tensor.name for tensor in made.model.graph.initializer}


def test_best_plans_the_nearest_way_on_all_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = ((), ("bias_correction",))
    best = replace(presets.PRESETS["best"], variants=ways)
    monkeypatch.setitem(presets.PRESETS, "best", best)
    ready = engine.calibrate(network(), batches, engine.QuantizationOptions("best", whole=True))
    seen: list[tuple[bool, int]] = []
    monkeypatch.setattr(engine, "SequentialQuantizer", _watched(seen))
    plan = ready.plan(ready.place())
    assert [count for _, count in seen] == [30, 30, COUNT]  # four fifths, in whole batches
    assert [corrected for corrected, _ in seen[:2]] == [True, False]
    assert bool(plan.biases) == seen[2][0]


def _watched(seen: list[tuple[bool, int]]) -> Any:
    class Watched(engine.SequentialQuantizer):
        def run(self, samples: Any) -> QuantizationPlan:
            seen.append(("bias_correction" in self.techniques, count_samples(samples)))
            return super().run(samples)

    return Watched


def test_an_equalization_that_loses_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = equalization_noise.least_noise_factors

    def wrong(*given: Any) -> Any:
        found = right(*given)
        return np.exp(np.random.default_rng(0).normal(0, 4, np.shape(found)))

    monkeypatch.setattr(equalization_noise, "least_noise_factors", wrong)
    ready = engine.calibrate(network(), batches, engine.QuantizationOptions(whole=True))
    assert ready.scales == {}
    assert any(note.startswith("not equalized: ") for note in ready.notes)
    (before,) = run_graph(network(), [{"image": images()}], ["logits"])[0]
    (after,) = run_graph(ready.network.model, [{"image": images()}], ["logits"])[0]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_a_plan_worse_than_min_max_is_not_taken() -> None:
    ready, placement, plan = prepared()
    assert ready.guard(placement, plan) is plan
    spoilt = replace(plan, ranges={name: ActivationRange(-1e4, 1e4) for name in plan.ranges})
    found = ready.guard(placement, spoilt)
    assert found is not spoilt
    assert found.ranges["image"].high == pytest.approx(float(images().max()))


def test_no_more_samples_are_read_than_the_preset_takes() -> None:
    read: list[int] = []

    def endless(size: int) -> Any:
        while True:
            read.append(size)
            yield {"image": images(size, len(read))}

    ready = engine.calibrate(network(), endless, engine.QuantizationOptions("fast"))
    assert sum(read) == sum(len(one["image"]) for one in ready.samples) < 64 + engine.BATCH


def test_samples_are_copies_of_what_the_dataset_gives() -> None:
    memory = np.empty((engine.BATCH, 3, 12, 12), np.float32)

    def reused(size: int) -> Any:
        for given in batches(size):
            memory[:] = given["image"]
            yield {"image": memory}

    ready = engine.calibrate(network(), reused, engine.QuantizationOptions())
    np.testing.assert_array_equal(
        np.concatenate([one["image"].numpy() for one in ready.samples]), images()
    )
