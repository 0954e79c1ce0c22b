"""`optimize=latency` on a small real network, and what is concluded from latencies made up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.quantization.search.latency_nets import chain, made_up
from workbench.codec import to_plain
from workbench.device import profile
from workbench.errors import CrashError, WorkbenchError
from workbench.intervals import Estimate
from workbench.measure import latency as measured
from workbench.measure.latency import ProcessSamples
from workbench.quantization.core import engine
from workbench.quantization.core.engine import PlannedPlacement
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import OperatorPlacement, place_operators
from workbench.quantization.search import latency, latency_timing
from workbench.quantization.search.latency import FastestPlacement, TimingSetup, conclude
from workbench.quantization.search.latency_evidence import (
    LatencyEvidence,
    describe_trials,
    operator_times,
)
from workbench.quantization.search.latency_search import BASE, PlacementTrial
from workbench.quantization.search.latency_timing import Confirmation

NETWORK = Network(chain(3))


def timed(*medians: float) -> measured.Latency:
    """Processes of these medians, in milliseconds."""
    return measured.Latency(
        tuple(ProcessSamples(1, 1, (int(one * 1e6),), 1) for one in medians)
    )  # fmt: skip


def trial(name: str, *floats: str) -> PlacementTrial:
    one = Estimate(1.0, 1.0, 1.0)
    placement = place_operators(NETWORK, floats)
    return PlacementTrial(name, frozenset(floats), placement, 0.0, 1.0, one, one, one)


def concluded(
    best: Sequence[PlacementTrial], confirmed: Mapping[str, measured.Latency | WorkbenchError]
) -> FastestPlacement:
    costs = made_up(NETWORK, place_operators(NETWORK).nodes, [1, 1, 1], [3, 2, 1])
    baselines = tuple(name for name in confirmed if name.startswith("FP32"))
    operators = operator_times(NETWORK, costs)
    screened = LatencyEvidence("cpu", 1, 0, 1.0, {}, operators, describe_trials(best))
    return conclude(best, Confirmation(baselines, confirmed), screened)


def evidence_of(found: FastestPlacement) -> LatencyEvidence:
    assert found.evidence is not None
    return found.evidence


SIX = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)


def test_the_fastest_is_chosen() -> None:
    found = concluded(
        [trial(BASE), trial("prefix of 1", "c0", "a0")],
        {
            latency.PREPARED: timed(*SIX),
            BASE: timed(*(1.2 * one for one in SIX)),
            "prefix of 1": timed(*(0.8 * one for one in SIX)),
        },
    )
    assert found.placement == place_operators(NETWORK, {"c0", "a0"})
    assert found.floats == {"c0", "a0"}
    assert found.speed is not None
    assert found.speed.value == pytest.approx(1.25)
    assert "1.25× of FP32, prepared" in found.notes[0]
    assert evidence_of(found).chosen == "prefix of 1"


def test_fp32_is_kept_where_it_is_faster_and_the_reason_said() -> None:
    found = concluded(
        [trial(BASE)], {latency.PREPARED: timed(*SIX), BASE: timed(*(1.2 * one for one in SIX))}
    )
    assert found.placement is None
    assert "FP32 is kept" in found.notes[0]
    assert "Conv (3.00 ms in float, 6.00 in INT8)" in found.notes[0]
    assert evidence_of(found).chosen == "FP32"


def test_fp32_is_kept_where_the_interval_reaches_below_it() -> None:
    noisy = (0.9, 0.95, 1.1, 0.85, 0.9, 1.05)
    found = concluded([trial(BASE)], {latency.PREPARED: timed(*SIX), BASE: timed(*noisy)})
    assert found.speed is not None
    assert found.speed.value > 1 > found.speed.low
    assert found.placement is None


def test_the_faster_fp32_is_what_counts() -> None:
    found = concluded(
        [trial(BASE)],
        {
            latency.PREPARED: timed(*SIX),
            latency.ORIGINAL: timed(*(0.7 * one for one in SIX)),
            BASE: timed(*(0.8 * one for one in SIX)),
        },
    )
    assert found.placement is None
    assert evidence_of(found).fp32 == latency.ORIGINAL


def test_of_equals_the_searchs_own_choice_stands() -> None:
    drift = (1.01, 0.99, 1.02, 0.98, 1.01, 1.0)
    found = concluded(
        [trial(BASE), trial("other", "c0", "a0")],
        {
            latency.PREPARED: timed(*(2 * one for one in SIX)),
            BASE: timed(*SIX),
            "other": timed(*(0.999 * one for one in drift)),
        },
    )
    assert evidence_of(found).chosen == BASE


def test_a_placement_that_crashes_is_passed_over() -> None:
    crash = CrashError("a worker process died", "signal SIGSEGV")
    found = concluded(
        [trial("other", "c0", "a0"), trial(BASE)],
        {latency.PREPARED: timed(*(2 * one for one in SIX)), "other": crash, BASE: timed(*SIX)},
    )
    assert evidence_of(found).chosen == BASE
    assert "SIGSEGV" in evidence_of(found).crashed["other"]
    with pytest.raises(CrashError):
        concluded([trial(BASE)], {latency.PREPARED: crash, BASE: timed(*SIX)})
    none = concluded([trial(BASE)], {latency.PREPARED: timed(*SIX), BASE: crash})
    assert none.placement is None
    assert "no quantized file ran" in none.notes[0]


def test_fp32_is_not_kept_where_another_finalist_is_surely_faster() -> None:
    found = concluded(
        [trial(BASE), trial("other", "c0", "a0")],
        {
            latency.PREPARED: timed(*SIX),
            BASE: timed(0.5, 0.6, 0.5, 0.6, 0.5, 1.2),
            "other": timed(*(0.8 * one for one in SIX)),
        },
    )
    assert evidence_of(found).chosen == "other"


def test_more_rounds_are_run_while_it_is_not_decided() -> None:
    fast, even = timed(*(0.5 * one for one in SIX)), timed(*reversed(SIX))
    slow = timed(*(2 * one for one in SIX))

    def decided(latencies: Mapping[str, measured.Latency], *baselines: str) -> bool:
        return Confirmation(baselines, latencies).is_decided

    assert decided({"FP32": timed(*SIX), "a": fast, "b": even}, "FP32")
    assert decided({"FP32": timed(*SIX), "a": slow}, "FP32")
    assert not decided({"FP32": timed(*SIX), "b": even}, "FP32")
    assert not decided({"FP32": slow, "other": timed(*SIX), "b": even}, "FP32", "other")
    assert decided({"FP32": timed(*SIX)}, "FP32")


def batches(size: int) -> Iterator[dict[str, Any]]:
    images = np.random.default_rng(0).standard_normal((20, 3, 16, 16)).astype(np.float32)
    for start in range(0, 20, size):
        yield {"x": images[start : start + size]}


@pytest.fixture(scope="module")
def ready() -> engine.CalibratedNetwork:
    return engine.calibrate(
        chain(6, 16), batches, engine.QuantizationOptions(preset="fast", whole=True)
    )


def test_graphs_of_other_placements_have_float_weights_there(
    ready: engine.CalibratedNetwork,
) -> None:
    placement = ready.place()
    graphs = latency.QuantizedGraphs(ready, ready.plan(placement), frozenset())
    first = {name for node in ready.network.nodes[:2] for name in (node.name,)}
    made = onnx.ModelProto.FromString(graphs.serialize(graphs.place(frozenset(first))))
    before = onnx.ModelProto.FromString(graphs.serialize(placement))
    types = {one.name: one.data_type for one in made.graph.initializer}
    assert types[ready.network.nodes[0].inputs[1]] == onnx.TensorProto.FLOAT
    kinds = [sum(n.op_type == "DequantizeLinear" for n in m.graph.node) for m in (before, made)]
    assert kinds[0] - kinds[1] == 4  # of the input, the first output, weights and bias
    feeds = next(batches(1))
    outputs = [onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds)[0]
               for m in (ready.network.model, made)]  # fmt: skip
    assert np.abs(outputs[1] - outputs[0]).max() < 0.1 * np.abs(outputs[0]).max()


def test_the_same_file_is_known(ready: engine.CalibratedNetwork) -> None:
    placement = ready.place()
    graphs = latency.QuantizedGraphs(ready, ready.plan(placement), frozenset())
    leaky = [node.name for node in ready.network.nodes if node.op == "LeakyRelu"]
    # Quantized on both sides, an operator is fused whatever the placement says of it.
    assert graphs.identity(ready.place(leaky[1:2])) == graphs.identity(placement)
    assert graphs.identity(ready.place(["c0"])) != graphs.identity(placement)


@pytest.mark.process
def test_a_real_network(
    ready: engine.CalibratedNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(latency_timing.CONFIRM, processes=2, warmup=1, seconds=0.01)
    monkeypatch.setattr(latency_timing, "CONFIRM", few)
    monkeypatch.setattr(latency_timing, "TIMES", 0)
    placement = ready.place()
    said: list[float] = []
    found = latency.find_fastest(
        ready, PlannedPlacement(placement, ready.plan(placement)),
        TimingSetup(profile.load("cpu"), tmp_path, budget_s=4), chain(6, 16),
        lambda part, note: said.append(part),
    )  # fmt: skip
    evidence = json.loads(json.dumps(to_plain(found.evidence)))
    names = {one["name"] for one in evidence["trials"]}
    assert {BASE, "prefix of 1"} <= names
    assert {one["name"] for one in evidence["confirmed"]} & names
    first = evidence["trials"][0]
    assert first["predicted_ms"] == pytest.approx(first["median_ms"]["value"], rel=0.5)
    assert evidence["operators_ms"]["Conv"]["int8"] > 0
    assert isinstance(found.placement, OperatorPlacement) or "FP32 is kept" in found.notes[0]
    assert said == sorted(said)
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_int8_is_nothing_to_place(
    ready: engine.CalibratedNetwork, tmp_path: Path
) -> None:
    names = [node.name for node in ready.network.nodes]
    placement = ready.place(names)
    planned = PlannedPlacement(placement, ready.plan(ready.place()))
    found = latency.find_fastest(ready, planned, TimingSetup(profile.load("cpu"), tmp_path))
    assert found.placement is None
