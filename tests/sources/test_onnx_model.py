from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests import nets
from workbench.artifact import Artifact
from workbench.errors import InputError, ModelError
from workbench.model import ModelSource
from workbench.onnxgraph import signature
from workbench.sources.onnx_model import load_onnx
from workbench.steps import QuantizeStatic


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images())


def load(path: Path, folder: Path, name: str = "image") -> Artifact:
    folder.mkdir(exist_ok=True)
    source = ModelSource(spec=path.name, folder=path.parent)
    return load_onnx(source, {name: nets.normal(2, 3, 32, 32)}, folder)


def test_a_file_is_copied_and_the_users_own_is_untouched(
    original: Artifact, tmp_path: Path
) -> None:
    content, status = original.path.read_bytes(), original.path.stat()
    artifact = load(original.path, tmp_path / "in")
    assert artifact.path.parent == tmp_path / "in"
    assert artifact.inputs == original.inputs
    assert artifact.outputs == original.outputs
    assert (artifact.precision, artifact.history) == ("float32", ("source",))
    assert artifact.notes == ("opset 17",)
    some = nets.normal(5, 3, 32, 32, seed=1)
    np.testing.assert_array_equal(
        nets.run_onnx(artifact.path, some)[0], nets.run_onnx(original.path, some)[0]
    )
    assert original.path.read_bytes() == content
    assert original.path.stat().st_mtime_ns == status.st_mtime_ns
    assert {path.name for path in original.path.parent.iterdir()} == {"model.onnx"}


def test_one_input_may_have_another_name(original: Artifact, tmp_path: Path) -> None:
    assert load(original.path, tmp_path / "in", "pixels").inputs[0].name == "image"


def test_a_copy_holds_the_weights_that_lay_beside_the_file(
    original: Artifact, tmp_path: Path
) -> None:
    beside = tmp_path / "apart" / "model.onnx"
    beside.parent.mkdir()
    onnx.save(
        onnx.load(original.path), beside, save_as_external_data=True, location="model.data",
        size_threshold=0,
    )  # fmt: skip
    artifact = load(beside, tmp_path / "in")
    (beside.parent / "model.data").unlink()
    some = nets.normal(3, 3, 32, 32, seed=1)
    np.testing.assert_array_equal(
        nets.run_onnx(artifact.path, some)[0], nets.run_onnx(original.path, some)[0]
    )


def reaching(original: Artifact, path: Path, location: str) -> Path:
    """A copy whose first tensor is kept at that place."""
    model = onnx.load(original.path)
    tensor = model.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("how", ["../secret.bin", "absolute", "link", "folder link", "inner/../.."])
def test_tensors_outside_the_files_folder_are_refused(
    how: str, original: Artifact, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1 << 16))
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    location = {"absolute": str(secret), "link": "data.bin", "folder link": "sub/secret.bin",
                "inner/../..": "inner/../../secret.bin"}.get(how, how)  # fmt: skip
    if how == "link":
        (path.parent / "data.bin").symlink_to(secret)
    if how == "folder link":
        (path.parent / "sub").symlink_to(tmp_path)
    reaching(original, path, location)
    with pytest.raises(ModelError, match="keeps tensors outside its folder") as caught:
        load(path, tmp_path / "in")
    assert location[:60] in caught.value.what  # messages cut what is long
    assert not list((tmp_path / "in").iterdir())
    with pytest.raises(ModelError, match="outside its folder"):
        signature.files(path)


def test_tensors_in_nodes_and_their_graphs_are_looked_at_too(tmp_path: Path) -> None:
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/hostname")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "main", [], []))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside its folder, at '/etc/hostname'"):
        signature.files(tmp_path / "model.onnx")


def test_tensors_beside_the_file_are_part_of_it(original: Artifact, tmp_path: Path) -> None:
    path = reaching(original, tmp_path / "model" / "model.onnx", "deep/data.bin")
    (path.parent / "deep").mkdir()
    (path.parent / "deep" / "data.bin").write_bytes(bytes(1 << 16))
    assert signature.files(path) == [path, path.parent / "deep" / "data.bin"]
    assert load(path, tmp_path / "in").path.is_file()


@pytest.mark.parametrize(
    "content", [b"", b"hello, world\n", b"\x00" * 100, b"<!DOCTYPE html><html>404</html>"]
)
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "garbage.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.onnx cannot be read as ONNX"):
        load(path, tmp_path / "in")
    assert path.read_bytes() == content


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(share: float, original: Artifact, tmp_path: Path) -> None:
    content = original.path.read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        load(path, tmp_path / "in")


def test_a_quantized_file_is_refused_by_its_nodes(original: Artifact, tmp_path: Path) -> None:
    context = nets.context(tmp_path / "int8", nets.images())
    quantized = QuantizeStatic().run(original, context)
    with pytest.raises(ModelError, match="quantized already") as caught:
        load(quantized.path, tmp_path / "in")
    assert "QuantizeLinear" in caught.value.why
    assert caught.value.fix == "give the float model"


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite_are_named(
    value: float, original: Artifact, tmp_path: Path
) -> None:
    model = onnx.load(original.path)
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[-1] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path / "nan.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=f"NaN or Inf: {tensor.name}"):
        load(path, tmp_path / "in")


def test_wrong_input_names_are_said_from_both_sides(tmp_path: Path) -> None:
    arrays = {"zebra": nets.normal(8, 3, 16, 24), "apple": nets.normal(8, 5)}
    artifact = nets.exported(tmp_path, nets.build(nets.TwoInputs), nets.dataset_of(**arrays))
    source = ModelSource(spec="model.onnx", folder=tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="takes zebra, apple, the dataset gives zebra, pear"):
        wrong = {"zebra": arrays["zebra"], "pear": arrays["apple"]}
        load_onnx(source, wrong, tmp_path / "in")
    assert load_onnx(source, arrays, tmp_path / "in").inputs == artifact.inputs
