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
from workbench.quantization.explain.evidence import gather_evidence
from workbench.quantization.search import latency
from workbench.quantization.search.choice import (
    PlacementChoice,
    PlacementGoals,
    choose_placement,
)
from workbench.quantization.search.latency import FastestPlacement
from workbench.quantization.search.latency_evidence import LatencyEvidence

DEVICE = profile.load("cpu")


def chosen(
    score: Any = None, runtime: Any = "ort", **goals: Any
) -> tuple[engine.CalibratedNetwork, PlacementChoice]:
    options = engine.QuantizationOptions("fast", whole=True, runtime=runtime)
    ready = engine.calibrate(network(), batches, options)
    place = latency.TimingSetup(DEVICE, Path("unused"))
    goals = PlacementGoals(score=score, **goals)
    return ready, choose_placement(ready, frozenset(), goals, place, network())


def file_of(ready: engine.CalibratedNetwork, made: PlacementChoice) -> onnx.ModelProto:
    assert made.planned is not None
    return ready.write(made.planned.placement, made.planned.plan)


def stages(ready: engine.CalibratedNetwork, made: PlacementChoice) -> list[str]:
    evidence = gather_evidence(ready, made, file_of(ready, made), network())
    return [stage.name for stage in evidence.waterfall]


def test_layers_in_float_for_the_budget_are_a_stage_of_their_own() -> None:
    score = Made(lambda layers: 0.05 if "wide" in layers else 0.001)
    ready, made = chosen(score, max_drop=1.0)
    assert "wide" not in integers(file_of(ready, made))
    assert list(made.earlier) == ["layers in float for the budget"]
    assert made.budget is not None and made.budget.held != "no"
    assert stages(ready, made)[-2:] == ["all samples", "layers in float for the budget"]


def test_a_budget_that_changes_nothing_is_no_stage() -> None:
    ready, made = chosen(Made(lambda layers: 0.001), max_drop=1.0)
    assert made.earlier == {}
    assert made.budget is not None and made.budget.floats == ()
    assert stages(ready, made)[-1] == "all samples"


def test_the_search_for_speed_is_of_onnx_runtime_alone() -> None:
    _, made = chosen(runtime="tflite", latency=True)
    assert made.notes == ("optimize=latency searches ONNX Runtime alone",)
    assert made.planned is not None


def test_what_speed_leaves_in_float_is_planned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    evidence = LatencyEvidence("cpu", 1, 0, 1.0, {}, {}, ())

    def find_fastest(ready: engine.CalibratedNetwork, *_: Any) -> FastestPlacement:
        placement = ready.place({"third"})
        return FastestPlacement(placement, evidence=evidence, notes=("third is slow",))

    monkeypatch.setattr(latency, "find_fastest", find_fastest)
    ready, made = chosen(latency=True)
    assert made.planned is not None
    assert "third" not in made.planned.plan.weights
    assert made.notes == ("third is slow",)
    assert made.latency is evidence and made.budget is None
    assert stages(ready, made)[-1] == "slow layers in float"


def test_where_fp32_is_faster_there_is_no_placement(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_fastest(*_: Any) -> FastestPlacement:
        return FastestPlacement(None, notes=("FP32 is faster",))

    monkeypatch.setattr(latency, "find_fastest", find_fastest)
    _, made = chosen(Made(lambda layers: 1.0), latency=True, max_drop=1.0)
    assert made.planned is None
    assert made.budget is None  # and none was looked for
