"""Batches and wrong inputs, on real files in their runtimes; one of them kills its process."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from tests.nets import normal
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device.profile import Device
from workbench.errors import DeviceError
from workbench.measure.robustness import Batching, Misuse, Robustness, robustness
from workbench.onnxgraph import signature
from workbench.worker_pool import Pool, RenewedWorker

pytestmark = pytest.mark.process

CPU = Device(name="testing")


def onnx_file(path: Path, *nodes: onnx.NodeProto, shape: tuple = ("N", 8), kind: int = 1,
              more: tuple = (), weights: tuple = ()) -> Artifact:  # fmt: skip
    """A graph from `x` (and others) to `y`."""
    inputs = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", *more)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph(nodes, "g", inputs, [output], initializer=list(weights))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    specs = signature.signature(model)[0]
    outputs = (TensorSpec(name="y", dtype="float32", shape=(None, 8)),)
    return Artifact(path=path, format=Format.ONNX, precision="float32", inputs=specs,
                    outputs=outputs)  # fmt: skip


@pytest.fixture(scope="module")
def worker():
    with closing(Pool()) as pool, pool.lend() as lent:
        yield lent


def outcomes(found: Robustness) -> dict[str, str]:
    return {one.case: one.outcome for one in found.misuses}


def test_a_sound_file(tmp_path: Path, worker: RenewedWorker):
    artifact = onnx_file(tmp_path / "a.onnx", helper.make_node("Tanh", ["x"], ["y"]))
    found = robustness(artifact, {"x": normal(3, 8)}, CPU, worker)
    assert found.batching.equal
    assert found.batching.samples == 3
    assert found.batching.fixed == 0
    assert outcomes(found) == {
        "wrong shape": "refused", "wrong dtype": "refused", "missing input": "refused",
        "NaN inputs": "accepted",
    }  # fmt: skip
    said = {one.case: one.said for one in found.misuses}
    assert said["NaN inputs"] == "NaN came out"
    assert "Unexpected input data type" in said["wrong dtype"]
    assert Robustness.from_json(found.to_json()) == found


def test_a_sample_that_its_neighbours_change(tmp_path: Path, worker: RenewedWorker):
    """As in dynamic quantization, whose scales are those of the whole batch."""
    nodes = (
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["m", "x"], ["d"]),
        helper.make_node("Add", ["d", "m"], ["y"]),
    )
    x = normal(3, 8)
    found = robustness(onnx_file(tmp_path / "a.onnx", *nodes), {"x": x}, CPU, worker)
    assert not found.batching.equal
    assert found.batching.samples == 3
    # Alone each is its own mean, and 2 m - x is x.
    expected = np.abs(2 * x.mean(0) - 2 * x).max() / np.abs(x).max()
    assert found.batching.difference == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_does_not_run_though_its_axis_is_open(tmp_path: Path, worker: RenewedWorker):
    baked = helper.make_tensor("s", TensorProto.INT64, [2], [1, 8])
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    artifact = onnx_file(tmp_path / "a.onnx", node, weights=(baked,))
    batching = robustness(artifact, {"x": normal(2, 8)}, CPU, worker).batching
    assert batching.samples == 0
    assert "reshape" in batching.said.lower()


def test_a_batch_of_one_is_all_that_some_files_take(tmp_path: Path, worker: RenewedWorker):
    node = helper.make_node("Tanh", ["x"], ["y"])
    artifact = onnx_file(tmp_path / "a.onnx", node, shape=(1, 8))
    found = robustness(artifact, {"x": normal(3, 8)}, CPU, worker)
    assert found.batching == Batching(fixed=1)


def test_integers_and_open_axes(tmp_path: Path, worker: RenewedWorker):
    """No NaN to give, and no axis to be wrong about: another rank is."""
    nodes = (
        helper.make_node("Add", ["x", "mask"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=TensorProto.FLOAT),
    )
    artifact = onnx_file(
        tmp_path / "a.onnx", *nodes, shape=("N", "T"), kind=TensorProto.INT64, more=("mask",)
    )
    ids = np.arange(24).reshape(3, 8)
    found = robustness(artifact, {"x": ids, "mask": ids}, CPU, worker)
    assert outcomes(found) == {
        "wrong shape": "refused", "wrong dtype": "refused", "missing input": "refused",
        "NaN inputs": "not tried",
    }  # fmt: skip


class Deadly(nn.Module):
    """Writes far outside of its memory when it is given NaN."""

    def forward(self, x: Tensor) -> Tensor:
        if bool(torch.isnan(x).any()):
            far = torch.full([1, 1], 1 << 40, dtype=torch.long)
            found: Tensor = torch.ops.aten._sparse_coo_tensor_unsafe(far, torch.ones([1]), [4])
            return found.to_dense()
        return x * 2


def test_a_crash_is_found_and_the_other_cases_stand(tmp_path: Path, worker: RenewedWorker):
    path = tmp_path / "model.pt"
    torch.jit.script(Deadly()).save(str(path))
    spec = TensorSpec(name="x", dtype="float32", shape=(None, 8))
    artifact = Artifact(path=path, format=Format.TORCHSCRIPT, precision="float32", inputs=(spec,),
                        outputs=(spec,))  # fmt: skip
    found = robustness(artifact, {"x": normal(3, 8)}, CPU, worker)
    assert found.batching.equal
    assert outcomes(found)["missing input"] == "refused"
    # TorchScript checks neither shapes nor types by itself.
    assert outcomes(found)["wrong shape"] == outcomes(found)["wrong dtype"] == "accepted"
    (dead,) = [one for one in found.misuses if one.case == "NaN inputs"]
    assert dead.outcome == "crashed"
    assert "SIGSEGV" in dead.said


def test_a_file_that_does_not_open_is_an_error(tmp_path: Path, worker: RenewedWorker):
    artifact = onnx_file(tmp_path / "a.onnx", helper.make_node("Tanh", ["x"], ["y"]))
    artifact.path.write_bytes(artifact.path.read_bytes()[:40])
    with pytest.raises(DeviceError, match="cannot load"):
        robustness(artifact, {"x": normal(3, 8)}, CPU, worker)


def test_json_keeps_an_infinite_ratio():
    found = Robustness(
        batching=Batching(samples=3, difference=0.0, sqnr=float("inf")),
        misuses=(Misuse(case="NaN inputs", outcome="accepted", said="numbers came out"),),
    )
    assert Robustness.from_json(found.to_json()) == found
