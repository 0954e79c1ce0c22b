"""Facts and robustness of a run's artifacts: found once, kept, and no reason for a row to fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.cache import Cache
from workbench.dataset.core import random_dataset
from workbench.dataset.facts import DatasetFacts
from workbench.device.profile import Device
from workbench.display import Quiet
from workbench.measure import checks
from workbench.measure.target import Bench, MeasureData
from workbench.worker_pool import Pool
from workbench.workspace import Workspace

pytestmark = pytest.mark.process

SPEC = TensorSpec(name="x", dtype="float32", shape=(None, 8))


def file(path: Path, operator: str = "Tanh") -> Artifact:
    node = helper.make_node(operator, ["x"], ["y"])
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])]
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, outputs),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(model, path)
    return Artifact(path=path, format=Format.ONNX, precision="float32", inputs=(SPEC,),
                    outputs=(replace(SPEC, name="y"),), history=("made",))  # fmt: skip


@pytest.fixture
def run(tmp_path: Path):
    """`checks_of` for artifacts of a run on random inputs, with one cache."""
    cache, pool = Cache(tmp_path / "cache"), Pool()
    data = MeasureData(
        facts=DatasetFacts(name="random inputs", inputs=(SPEC,)),
        load=lambda: random_dataset((SPEC,)),
    )

    def find(targets: dict[str, Artifact], start: Artifact) -> tuple[dict, str]:
        display = Told()
        bench = Bench(Device(name="testing"), data, Workspace(cache, pool, display))
        return checks.checks_of(targets, start, bench), display.state

    yield find
    pool.close()


class Told(Quiet):
    state = ""

    def done(self, task: str, state: str = "done") -> None:
        assert task == "checks"
        self.state = state


def test_found_once_then_read_from_the_cache(run, tmp_path: Path):
    artifact = file(tmp_path / "a.onnx")
    found, state = run({"a": artifact}, artifact)
    assert state == "done"
    one = found["a"]
    assert one.ir == 8
    assert one.nodes_before == 1
    assert one.history == ("made",)
    assert one.missing == ()
    assert one.facts.operators == {"Tanh": 1}
    assert one.robustness.batching.equal
    again, state = run({"a": artifact}, artifact)
    assert state == "cached"
    assert again == found


def test_another_file_is_looked_into_anew(run, tmp_path: Path):
    first = file(tmp_path / "a.onnx")
    run({"a": first}, first)
    found, state = run({"a": file(tmp_path / "b.onnx", "Sin")}, first)
    assert state == "done"
    assert found["a"].facts.operators == {"Sin": 1}


def test_a_file_that_does_not_open_says_why_and_stops_no_other(run, tmp_path: Path):
    good, bad = file(tmp_path / "good.onnx"), file(tmp_path / "bad.onnx")
    bad.path.write_bytes(bad.path.read_bytes()[:50])
    found, _ = run({"good": good, "bad": bad}, good)
    assert found["good"].robustness is not None
    assert found["bad"].facts is None
    assert found["bad"].robustness is None
    assert "could not be inspected" in found["bad"].missing[0]
    assert found["bad"].missing[1].startswith("batching and error handling: ")


@pytest.mark.parametrize("version", [3, 8, 13])
def test_the_ir_version_is_read_from_the_first_bytes(tmp_path: Path, version: int):
    artifact = file(tmp_path / "a.onnx")
    model = onnx.load(artifact.path)
    model.ir_version = version
    onnx.save(model, artifact.path)
    assert checks.ir_version(artifact.path) == version
    for other in (b"", b"\x08", b"\x12\x05ab", b"\x08\xff\x01"):
        artifact.path.write_bytes(other)
        assert checks.ir_version(artifact.path) == 0
