"""What is measured where: only what runs on the device is timed, and a broken file costs a note."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests import nets
from tests.device.test_placement import chain
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.cache import Cache
from workbench.dataset.core import random_dataset
from workbench.dataset.facts import DatasetFacts
from workbench.device.profile import Device
from workbench.device.providers import CPU
from workbench.display import Quiet
from workbench.measure import accuracy
from workbench.measure.cached import latencies_of, placements_of
from workbench.measure.latency import PRESETS
from workbench.measure.measurement import DeviceMeasurements, Measurement
from workbench.measure.plan import MeasurePlan
from workbench.measure.target import Bench, MeasureData, MeasureTarget
from workbench.model import ModelSource
from workbench.report.blocks import Baselines, Terms, block_of
from workbench.worker_pool import Pool
from workbench.workspace import Workspace


def bench(provider: str, folder: Path, specs: tuple[TensorSpec, ...], pool: Pool) -> Bench:
    """A device of one provider, on random inputs."""
    return Bench(
        Device(name="mine", provider=provider),
        MeasureData(
            facts=DatasetFacts(name="random inputs", inputs=specs),
            load=lambda: random_dataset(specs),
        ),
        Workspace(Cache(folder), pool, Quiet()),
    )


def target(key: str, subject: Artifact | ModelSource) -> MeasureTarget:
    identity = subject.sha256 if isinstance(subject, Artifact) else "a model"
    form = str(subject.format) if isinstance(subject, Artifact) else "torch"
    return MeasureTarget(key=key, label=key, format=form, subject=subject, identity=identity)


@pytest.mark.parametrize("provider", ["cuda", "openvino"])
def test_a_tflite_file_is_not_timed_as_another_device(tmp_path: Path, provider: str) -> None:
    made = chain(tmp_path / "made.tflite", ["ABS"])
    with closing(Pool()) as pool:
        where = bench(provider, tmp_path / "cache", made.inputs, pool)
        plan = MeasurePlan(devices=(where.device,), preset=PRESETS["quick"])
        timed, _ = latencies_of({"tflite": target("tflite", made)}, where, plan, {})
    assert timed == {}
    scores = accuracy.score([np.eye(2)], [np.eye(2)], None)
    measurement = Measurement(on_cpu=True, scores=scores)
    (row,) = block_of(
        (target("tflite", made),),
        DeviceMeasurements(device=where.device, targets={"tflite": measurement}),
        Terms(dataset="d", preset="quick", metric="top-1", labelled=False, baselines=Baselines()),
    ).rows
    assert row.error is None
    assert row.latency is None
    assert row.notes == (
        "LiteRT ran it on the CPU, not on mine: accuracy is the CPU's, latency was not measured",
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
    subjects = {"eager": source, "bad": bad, "good": good}
    targets = {key: target(key, subject) for key, subject in subjects.items()}
    with closing(Pool()) as pool:
        where = bench("cpu", tmp_path / "cache", good.inputs, pool)
        found = placements_of(targets, where)
        assert list(found) == ["bad", "good"]
        assert found["bad"].notes == (
            "where its nodes ran is not known: ONNX Runtime cannot load bad.onnx",
        )
        assert set(found["good"].nodes) == {CPU}
        records = sorted((tmp_path / "cache" / "records").iterdir())
        assert len(records) == 1  # what failed may pass the next time
        assert placements_of(targets, where) == found
        assert sorted((tmp_path / "cache" / "records").iterdir()) == records
