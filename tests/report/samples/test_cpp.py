"""The C++ samples, compiled against ONNX Runtime's headers and run on the artifacts themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.nets import ConvNet, build, context, exported, run_onnx
from tests.report.samples import cases
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.onnxgraph import signature
from workbench.steps import BakePreprocess, QuantizeStatic, ToOrt

pytestmark = pytest.mark.process

WITHIN = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A network on pictures of 32x24, exported."""
    folder = tmp_path_factory.mktemp("network")
    return exported(folder / "export", build(ConvNet), cases.photos())


def own(artifact: Artifact, *arrays: np.ndarray) -> list[np.ndarray]:
    return run_onnx(artifact.path, *arrays)


def test_pixels_go_in_and_the_outputs_are_those_of_python(network: Artifact, tmp_path: Path):
    folder = cases.written(tmp_path, network, cases.described(cases.photos()))
    program = cases.compiled(folder)
    canonical = cases.photos().examples(3)["image"]
    for number, pixels in enumerate(cases.pictures(3)):
        found = cases.run(program, network.path, pixels)
        expected = own(network, canonical[number : number + 1])[0]
        assert list(found) == ["output"]
        np.testing.assert_allclose(found["output"], expected, **WITHIN)


def test_an_int8_ort_file(network: Artifact, tmp_path: Path):
    photos = cases.photos()
    quantized = QuantizeStatic().run(network, context(tmp_path / "quantize", photos))
    made = ToOrt().run(quantized, context(tmp_path / "ort", photos))
    program = cases.compiled(cases.written(tmp_path / "run", made, cases.described(photos)))
    found = cases.run(program, made.path, cases.pictures()[0])
    expected = own(made, photos.examples(1)["image"])[0]
    np.testing.assert_allclose(found["output"], expected, **WITHIN)


def test_a_file_that_takes_pixels_gets_them_as_they_are(network: Artifact, tmp_path: Path):
    photos = cases.photos()
    made = BakePreprocess().run(network, context(tmp_path / "bake", photos))
    folder = cases.written(tmp_path / "run", made, cases.described(photos))
    assert "0.485" not in (folder / "main.cpp").read_text()  # once is enough
    pixels = cases.pictures()[0]
    found = cases.run(cases.compiled(folder), made.path, pixels)
    np.testing.assert_allclose(found["output"], own(made, pixels[None])[0], **WITHIN)
    np.testing.assert_allclose(
        found["output"], own(network, photos.examples(1)["image"])[0], rtol=1e-3, atol=1e-3
    )


NAMES = (
    'a "quoted" \\ name', "${dollar} $name \\(swift)", "Größe 画像 🖼", "trailing\\", "*/ // /* */",
    "tab\tand line\nand ??/ trigraph", "\x01\x7f\u2028",
)  # fmt: skip
KINDS = {
    TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32, TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8,
    TensorProto.BOOL: np.bool_,
}  # fmt: skip


def strange(path: Path) -> Artifact:
    """A file that gives its inputs back, one of each type, under names that break careless code."""
    inputs, outputs, nodes = [], [], []
    for name, kind in zip(NAMES, KINDS, strict=True):
        inputs.append(helper.make_tensor_value_info(name, kind, ["N", 2, "M"]))
        outputs.append(helper.make_tensor_value_info(f"{name} out", kind, ["N", 2, "M"]))
        nodes.append(helper.make_node("Identity", [name], [f"{name} out"]))
    made = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    specs = signature.signature(model)
    return Artifact(path=path, format=Format.ONNX, precision="float32", inputs=specs[0],
                    outputs=specs[1])  # fmt: skip


def test_every_type_under_every_name(tmp_path: Path):
    artifact = strange(tmp_path / 'odd "name" \\ ??.onnx')
    # The second open axis is 5 in the dataset: the sample has its size.
    given = [TensorSpec(name=s.name, dtype=s.dtype, shape=(None, 2, 5)) for s in artifact.inputs]
    folder = cases.written(tmp_path / "run", artifact, cases.as_given(*given))
    program = cases.compiled(folder)
    generator = np.random.default_rng(0)
    arrays = [
        (generator.integers(-100, 100, (1, 2, 5)) * (1 if kind is not np.uint8 else -1) % 128)
        .astype(kind) for kind in KINDS.values()
    ]  # fmt: skip
    printed = cases.run(program, artifact.path, *arrays)
    assert list(printed) == [f"{name} out" for name in NAMES]
    for array, found in zip(arrays, printed.values(), strict=True):
        assert found.shape == (1, 2, 5)
        np.testing.assert_allclose(found, array.astype(np.float64), rtol=1e-7)


def test_a_raw_file_of_another_length_is_refused(tmp_path: Path):
    import subprocess

    artifact = strange(tmp_path / "model.onnx")
    given = [TensorSpec(name=s.name, dtype=s.dtype, shape=(None, 2, 5)) for s in artifact.inputs]
    folder = cases.written(tmp_path / "run", artifact, cases.as_given(*given))
    program = cases.compiled(folder)
    (tmp_path / "short.bin").write_bytes(bytes(39))
    command = [str(program), str(artifact.path), str(tmp_path / "short.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not have 40 bytes" in done.stderr
