"""Every layer's figures and the waterfall, on a network of which the answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.quantization.search.test_sensitivity import LAYERS, batches, images, network
from workbench.codec import to_plain
from workbench.device import profile
from workbench.quantization.core import engine, fake_quantization
from workbench.quantization.explain.evidence import QuantizationEvidence, gather_evidence
from workbench.quantization.search.choice import PlacementGoals, choose_placement
from workbench.quantization.search.latency import TimingSetup


def made(preset: str = "balanced", **more: Any) -> tuple[QuantizationEvidence, onnx.ModelProto]:
    given: Any = {"preset": preset, "whole": True} | more
    ready = engine.calibrate(network(), batches, engine.QuantizationOptions(**given))
    place = TimingSetup(profile.load("cpu"), Path("unused"))
    found = choose_placement(ready, ready.options.floats, PlacementGoals(), place, network())
    assert found.planned is not None
    written = ready.write(found.planned.placement, found.planned.plan)
    return gather_evidence(ready, found, written, network()), written


@pytest.fixture(scope="module")
def balanced() -> tuple[QuantizationEvidence, onnx.ModelProto]:
    return made()


def test_every_layer_has_its_figures(
    balanced: tuple[QuantizationEvidence, onnx.ModelProto],
) -> None:
    found, _ = balanced
    layers = {layer.name: layer for layer in found.layers}
    assert set(LAYERS) < set(layers)
    assert layers["image"].op == "input"
    assert layers["image"].weight_sqnr is None
    assert "relu0" not in layers  # it became the clipping of a quantization
    for name in LAYERS:
        one = layers[name]
        assert one.precision == "int8"
        assert 25 < one.weight_sqnr < 60
    for name in ("image", "first", "leaky", "third"):
        one = layers[name]
        assert one.low <= 0 <= one.high
        assert 0 <= one.clipped < 0.05
        assert one.sqnr > 15
    assert layers["first"].low == 0  # behind a ReLU
    assert sum(one.noise or 0 for one in found.layers) == pytest.approx(1, abs=0.01)


def test_the_waterfall_goes_from_min_max_to_the_file(
    balanced: tuple[QuantizationEvidence, onnx.ModelProto],
) -> None:
    found, written = balanced
    stages = found.waterfall
    assert [one.name for one in stages] == [
        "min-max, weights to the nearest", "equalization", "ranges by their effect",
        "bias correction", "weights rounded by reconstruction",
    ]  # fmt: skip
    assert stages[-1].sqnr > stages[0].sqnr + 10
    assert all(0 <= one.agreement <= 1 for one in stages)
    expected, outputs = (  # as the file runs here: on CPUs without VNNI its kernels saturate
        onnxruntime.InferenceSession(model.SerializeToString()).run(
            None, {"image": images()[: found.staged]}
        )[0]
        for model in (network(), written)
    )
    file = fake_quantization.output_sqnr([expected], [outputs])
    assert stages[-1].sqnr == pytest.approx(file, abs=0.1)


def test_what_a_preset_leaves_out_is_no_stage() -> None:
    found, _ = made("fast")
    assert found.waterfall[-1].name == "all samples"
    plain, _ = made(without=("equalization", "projection", "bias_correction",
                             "reconstruction", "compensation"))  # fmt: skip
    assert [one.name for one in plain.waterfall] == [
        "min-max, weights to the nearest", "all samples",
    ]  # fmt: skip


def test_layers_in_float_say_so() -> None:
    found, _ = made(floats=frozenset({"wide"}))
    (wide,) = [one for one in found.layers if one.name == "wide"]
    assert (wide.precision, wide.weight_sqnr, wide.sqnr) == ("float32", None, None)


def test_it_is_json_and_holds_the_scales(
    balanced: tuple[QuantizationEvidence, onnx.ModelProto], tmp_path: Path
) -> None:
    found, _ = balanced
    found.save(tmp_path / "figures.json")
    again = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert again["layers"] == to_plain(found)["layers"]
    assert not {"latency", "budget"} & again.keys()  # nothing was searched
    scales = again["scales"]
    assert scales
    assert all(np.all(np.array(one) > 0) for one in scales.values())
