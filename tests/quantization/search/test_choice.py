"""What is left in float by all that was asked for, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.quantization.search.test_budget import Made, integers
from tests.quantization.search.test_sensitivity import batches, network
from workbench.device import profile
from workbench.quantization.core import engine
from workbench.quantization.explain import evidence
from workbench.quantization.search import choice, latency
from workbench.quantization.search.latency import Latency

DEVICE = profile.load("cpu")


def chosen(score: Any = None, **more: Any) -> tuple[engine.Calibrated, choice.Choice]:
    runtime = more.pop("runtime", "ort")
    options = engine.Options("fast", whole=True, runtime=runtime)
    ready = engine.calibrated(network(), batches, options)
    found = choice.chosen(
        ready, frozenset(), device=DEVICE, folder=Path("unused"), original=network(),
        score=score, **more,
    )  # fmt: skip
    return ready, found


def stages(ready: engine.Calibrated, made: choice.Choice) -> list[str]:
    assert made.placement is not None
    written: onnx.ModelProto = ready.written(made.placement, made.plan)
    return [one["name"] for one in evidence.found(ready, made, written, network())["waterfall"]]


def test_layers_in_float_for_the_budget_are_a_stage_of_their_own() -> None:
    score = Made(lambda layers: 0.05 if "wide" in layers else 0.001)
    ready, made = chosen(score, max_drop=1.0)
    assert made.placement is not None
    assert "wide" not in integers(ready.written(made.placement, made.plan))
    assert list(made.earlier) == ["layers in float for the budget"]
    assert made.evidence["budget"]["held"] != "no"
    assert stages(ready, made)[-2:] == ["all samples", "layers in float for the budget"]


def test_a_budget_that_changes_nothing_is_no_stage() -> None:
    ready, made = chosen(Made(lambda layers: 0.001), max_drop=1.0)
    assert made.earlier == {}
    assert made.evidence["budget"]["floats"] == []
    assert stages(ready, made)[-1] == "all samples"


def test_the_search_for_speed_is_of_onnx_runtime_alone() -> None:
    _, made = chosen(runtime="tflite", latency=True)
    assert made.notes == ("optimize=latency searches ONNX Runtime alone",)
    assert made.placement is not None


def test_what_speed_leaves_in_float_is_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(ready: engine.Calibrated, placement: Any, plan: Any, **_: Any) -> Latency:
        return Latency(ready.placed({"third"}), evidence={"tried": 1}, notes=("third is slow",))

    monkeypatch.setattr(latency, "fastest", fastest)
    ready, made = chosen(latency=True)
    assert made.placement is not None
    assert "third" not in made.plan.weights
    assert made.notes == ("third is slow",)
    assert made.evidence == {"latency": {"tried": 1}}
    assert stages(ready, made)[-1] == "slow layers in float"


def test_where_fp32_is_faster_there_is_no_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    def fastest(*_: Any, **__: Any) -> Latency:
        return Latency(None, notes=("FP32 is faster",))

    monkeypatch.setattr(latency, "fastest", fastest)
    _, made = chosen(Made(lambda layers: 1.0), latency=True, max_drop=1.0)
    assert made.placement is None
    assert made.evidence == {"latency": {}}  # and no budget was looked for
