"""What is measured where: only what runs on the device is timed, and a broken file costs a note."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import nets
from tests.device.test_placement import chain
from workbench import recipe as recipes
from workbench.artifact import Artifact, Format
from workbench.cache import Cache
from workbench.dataset.facts import DatasetFacts
from workbench.device.profile import Device
from workbench.device.providers import CPU
from workbench.display import Quiet
from workbench.engine.facts import ModelFacts
from workbench.engine.outcome import Outcome, StepResult
from workbench.engine.request import Request
from workbench.measure.cached import latencies_of, placements_of
from workbench.measure.latency import PRESETS
from workbench.model import ModelSource
from workbench.report.build import rows_from
from workbench.worker_pool import Pool


def request(provider: str, artifact: Artifact) -> Request:
    return Request(
        recipe=recipes.load("mobile-int8"), settings=(), data=artifact.inputs,
        source=ModelSource(spec="net.py:build"), device=Device(name="mine", provider=provider),
    )  # fmt: skip


def outcome(artifact: Artifact) -> Outcome:
    located = recipes.load("mobile-int8").located()[0]
    return Outcome(
        model=ModelFacts(fingerprint="f", bytes=1),
        dataset=DatasetFacts(name="d"),
        results=(StepResult(located, artifact),),
    )


@pytest.mark.parametrize("provider", ["cuda", "openvino"])
def test_a_tflite_file_is_not_timed_as_another_device(tmp_path: Path, provider: str) -> None:
    made = chain(tmp_path / "made.tflite", ["ABS"])
    asked, found = request(provider, made), outcome(made)
    key = found.results[0].located.id
    cache = Cache(tmp_path / "cache")
    timed, _ = latencies_of(asked, PRESETS["quick"], found, {key: made}, cache, Quiet())
    assert timed == {}
    row = rows_from(asked, found, timed, {}, {}, {})[-1]
    assert row.error is None
    assert row.latency is None
    assert row.notes[-1] == (
        "LiteRT ran it on the CPU, not on mine: accuracy is the CPU's, latency was not measured"
    )


@pytest.mark.process
def test_a_file_that_does_not_load_costs_its_placement_and_no_more(tmp_path: Path) -> None:
    good = nets.exported(
        tmp_path / "good", nets.build(nets.Mlp), nets.dataset_of(x=nets.normal(8, 8))
    )
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"nothing")
    bad = Artifact(path=path, format=Format.ONNX, precision="float32", inputs=good.inputs,
                   outputs=good.outputs)  # fmt: skip
    source = ModelSource(spec="net.py:build")
    targets = {"eager": source, "bad": bad, "good": good}
    asked, cache, pool = request("cpu", good), Cache(tmp_path / "cache"), Pool()
    try:
        found = placements_of(asked, outcome(good), targets, cache, pool)
        assert list(found) == ["bad", "good"]
        assert found["bad"].notes == (
            "where its nodes ran is not known: ONNX Runtime cannot load bad.onnx",
        )
        assert set(found["good"].nodes) == {CPU}
        records = sorted((tmp_path / "cache" / "records").iterdir())
        assert len(records) == 1  # what failed may pass the next time
        assert placements_of(asked, outcome(good), targets, cache, pool) == found
        assert sorted((tmp_path / "cache" / "records").iterdir()) == records
    finally:
        pool.close()
