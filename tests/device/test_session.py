from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from tests import nets
from tests.inspect.files import Flatbuffer
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device.session import infer, open_session
from workbench.errors import DeviceError, InputError
from workbench.model import ModelSource

IMAGES = {"image": nets.normal(5, 3, 32, 32, seed=3)}


@pytest.fixture(autouse=True)
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """The small network as a user's factory."""
    folder = tmp_path_factory.mktemp("factory")
    (folder / "net.py").write_text("from tests import nets\nbuild = nets.build\n")
    return ModelSource(spec="net.py:build", folder=folder)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images())


def test_eager_and_onnx_give_equal_canonical_outputs(
    source: ModelSource, onnx_file: Artifact
) -> None:
    eager = infer(open_session(source, 1, IMAGES), IMAGES)
    onnx = infer(open_session(onnx_file, 1), IMAGES)
    assert len(eager) == len(onnx) == 1
    assert eager[0].shape == (5, 10)
    np.testing.assert_allclose(onnx[0], eager[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(eager[0], nets.run_torch(nets.build(), IMAGES["image"]), rtol=1e-5)


def test_eager_sets_the_threads_asked_for_and_takes_zero_for_all(source: ModelSource) -> None:
    open_session(source, 1, IMAGES)
    assert torch.get_num_threads() == 1
    found = infer(open_session(source, 0, IMAGES), IMAGES)
    assert torch.get_num_threads() == os.cpu_count()
    assert found[0].shape == (5, 10)


def test_inputs_are_matched_by_name_not_by_order(tmp_path: Path) -> None:
    second, first = nets.normal(4, 6), nets.normal(4, 6, seed=1)
    data = nets.dataset_of(second=second, first=first)
    made = nets.exported(tmp_path, nets.build(nets.Difference), data)
    (found,) = infer(open_session(made, 1), {"first": first, "second": second})
    np.testing.assert_allclose(found, 2 * second - first, rtol=1e-5)


def test_a_single_input_needs_no_matching_name(onnx_file: Artifact) -> None:
    (named,) = infer(open_session(onnx_file, 1), IMAGES)
    (other,) = infer(open_session(onnx_file, 1), {"pixels": IMAGES["image"]})
    np.testing.assert_array_equal(named, other)


def test_names_that_do_not_match_are_an_error(tmp_path: Path) -> None:
    arrays = {"zebra": nets.normal(8, 3, 16, 24), "apple": nets.normal(8, 5)}
    made = nets.exported(tmp_path, nets.build(nets.TwoInputs), nets.dataset_of(**arrays))
    with pytest.raises(InputError, match="takes zebra, apple, the dataset gives zebra, pear"):
        infer(open_session(made, 1), {"zebra": arrays["zebra"], "pear": arrays["apple"]})


def test_a_fixed_batch_file_takes_many_samples_one_by_one(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    module = nets.build(nets.Outputs)
    made = nets.exported(tmp_path, module, data, ("scores", "embedding"), dynamic_batch=False)
    for count in (1, 5):
        some = nets.normal(count, 8, seed=count)
        scores, embedding = infer(open_session(made, 1), {"x": some})
        wanted = nets.run_torch(module, some)
        np.testing.assert_allclose(scores, wanted["scores"], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(embedding, wanted["embedding"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("format", "runtime"),
    [(Format.ONNX, "ONNX Runtime"), (Format.ORT, "ONNX Runtime"), (Format.TFLITE, "LiteRT")],
)
@pytest.mark.parametrize("content", [b"", b"garbage " * 40])
def test_a_file_that_cannot_be_read_is_the_devices_error(
    format: Format, runtime: str, content: bytes, onnx_file: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / f"broken.{format}"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match=rf"{runtime} cannot load broken\.{format}"):
        open_session(replace(onnx_file, path=path, format=format), 1)


@pytest.mark.parametrize("format", [Format.ONNX, Format.TFLITE])
def test_a_file_that_is_not_there_is_the_devices_error(
    format: Format, onnx_file: Artifact, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="cannot load absent"):
        open_session(replace(onnx_file, path=tmp_path / "absent", format=format), 1)


def test_a_format_without_a_runtime_is_the_devices_error(onnx_file: Artifact) -> None:
    with pytest.raises(DeviceError, match="no runtime here for torch"):
        open_session(replace(onnx_file, format=Format.TORCH), 1)


# A TFLite file of one operator, written by hand: int8 transposed, with its own scales.


def int8_relu(path: Path, shape: tuple[int, ...] = (1, 2, 3, 4)) -> Path:
    """A TFLite file: y = relu(x) on int8 tensors `a` and `b`, in steps of 0.05 from 3."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, buffer: int) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), buffer
        made.type = schema.TensorType.INT8
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale, made.quantization.zeroPoint = [0.05], [3]
        return made

    operator = schema.OperatorT()
    operator.inputs, operator.outputs, operator.opcodeIndex = [0], [1], 0
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [tensor("a", 1), tensor("b", 2)], [operator]
    graph.inputs, graph.outputs = [0], [1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT() for _ in range(3)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def int8_artifact(path: Path, permutation: tuple[int, ...] = (0, 2, 3, 1)) -> Artifact:
    """Canonical x and y float32 [1, 4, 2, 3], kept in the file as NHWC."""
    x = TensorSpec(
        name="x", dtype="float32", shape=(1, 4, 2, 3), stored="a", permutation=permutation
    )
    y = replace(x, name="y", stored="b")
    return Artifact(
        path=path, format=Format.TFLITE, precision="int8", inputs=(x,), outputs=(y,)
    )  # fmt: skip


def test_integer_inputs_and_outputs_are_quantized_and_given_back_as_real(tmp_path: Path) -> None:
    session = open_session(int8_artifact(int8_relu(tmp_path / "relu.tflite")), 1)
    x = nets.normal(5, 4, 2, 3)
    (found,) = infer(session, {"x": x})
    assert found.dtype == np.float32
    assert found.shape == x.shape
    np.testing.assert_allclose(found, np.maximum(x, 0), atol=0.0251)
    steps = found / 0.05
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)


def test_what_lies_outside_an_integers_range_is_clipped(tmp_path: Path) -> None:
    session = open_session(int8_artifact(int8_relu(tmp_path / "relu.tflite")), 1)
    x = np.full((1, 4, 2, 3), 1000, np.float32)
    x[0, 0] = -1000
    (found,) = infer(session, {"x": x})
    np.testing.assert_allclose(found[0, 1:], (127 - 3) * 0.05, rtol=1e-5)
    np.testing.assert_array_equal(found[0, 0], 0)


def test_prepared_inputs_are_int8_in_the_files_own_order(tmp_path: Path) -> None:
    session = open_session(int8_artifact(int8_relu(tmp_path / "relu.tflite")), 1)
    x = nets.normal(2, 4, 2, 3)
    prepared = session.prepare({"x": x})
    assert len(prepared) == 2
    assert prepared[0][0].dtype == np.int8
    wanted = np.clip(np.round(x.transpose(0, 2, 3, 1) / 0.05 + 3), -128, 127)
    np.testing.assert_array_equal(np.concatenate([one[0] for one in prepared]), wanted)


def test_threads_of_zero_mean_all_to_litert_too(tmp_path: Path) -> None:
    artifact = int8_artifact(int8_relu(tmp_path / "relu.tflite"))
    assert infer(open_session(artifact, 0), {"x": nets.normal(1, 4, 2, 3)})[0].shape == (1, 4, 2, 3)


def ids_file(path: Path) -> Artifact:
    """A TFLite file of ids, int64 to the model and int32 in the file, which it gives back twice."""
    flat = Flatbuffer()
    x, y = flat.tensor("x", (1, 3), "int32"), flat.tensor("y", (1, 6), "int32")
    flat.operator("CONCATENATION", [x, x], [y], schema.ConcatenationOptionsT())
    flat.model.subgraphs[0].operators[0].builtinOptions.axis = 1
    spec = TensorSpec(name="x", dtype="int64", shape=(1, 3))
    return Artifact(
        path=flat.save(path, [x], [y]), format=Format.TFLITE, precision="float32", inputs=(spec,),
        outputs=(replace(spec, name="y", shape=(1, 6)),),
    )  # fmt: skip


def test_ids_become_the_files_integers_or_are_refused(tmp_path: Path) -> None:
    session = open_session(ids_file(tmp_path / "ids.tflite"), 1)
    ids = np.array([[1, -2, 2**31 - 1], [4, 5, 6]])
    np.testing.assert_array_equal(infer(session, {"x": ids})[0], np.hstack([ids, ids]))
    with pytest.raises(InputError, match="'x' holds 2147483648, which the file's int32 cannot"):
        session.prepare({"x": ids + (ids == 2**31 - 1)})
    with pytest.raises(InputError, match=r"'x' holds 0\.5"):
        session.prepare({"x": np.array([[0.5, 1, 2]])})


def _onnx(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> None:
    made = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _value(name: str, kind: int, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def test_onnx_outputs_are_taken_by_name_in_the_artifacts_order(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    ends = [_value(name, TensorProto.FLOAT, "n", 3) for name in ("x", "minus", "size")]
    _onnx(tmp_path / "two.onnx", nodes, ends[:1], ends[1:])
    specs = [TensorSpec(name=name, dtype="float32", shape=(None, 3), stored=stored)
             for name, stored in (("b", "size"), ("a", "minus"))]  # fmt: skip
    artifact = Artifact(
        path=tmp_path / "two.onnx", format=Format.ONNX, precision="float32",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 3)),), outputs=tuple(specs),
    )  # fmt: skip
    some = nets.normal(2, 3)
    size, minus = infer(open_session(artifact, 1), {"x": some})
    np.testing.assert_array_equal(size, np.abs(some))
    np.testing.assert_array_equal(minus, -some)
    (one,) = infer(open_session(replace(artifact, outputs=(specs[1],)), 1), {"x": some})
    np.testing.assert_array_equal(one, -some)


def test_onnx_takes_numbers_of_another_size_but_not_of_another_kind(tmp_path: Path) -> None:
    for kind in (TensorProto.INT64, TensorProto.FLOAT16):
        node = helper.make_node("Abs", ["x"], ["y"])
        _onnx(tmp_path / "typed.onnx", [node], [_value("x", kind, "n", 3)],
              [_value("y", kind, "n", 3)])  # fmt: skip
        whole = kind == TensorProto.INT64
        spec = TensorSpec(name="x", dtype="int32" if whole else "float32", shape=(None, 3))
        artifact = Artifact(path=tmp_path / "typed.onnx", format=Format.ONNX, precision="",
                            inputs=(spec,), outputs=(replace(spec, name="y"),))  # fmt: skip
        given = np.array([[-1, 2, -3]], spec.dtype)
        (found,) = infer(open_session(artifact, 1), {"x": given})
        assert found.tolist() == [[1, 2, 3]]
        with pytest.raises(Exception, match="Unexpected input data type"):
            infer(open_session(artifact, 1), {"x": given.astype("float32" if whole else "int64")})


def test_onnx_inputs_that_are_as_the_file_has_them_are_fed_whole(tmp_path: Path) -> None:
    """A state's first axis is the layers, and is not to be taken apart with the batch's."""
    node = helper.make_node("Add", ["h", "x"], ["y"])
    _onnx(tmp_path / "state.onnx", [node],
          [_value("h", TensorProto.FLOAT, 2, 1, 3), _value("x", TensorProto.FLOAT, 1, 1, 3)],
          [_value("y", TensorProto.FLOAT, 2, 1, 3)])  # fmt: skip
    h, x = (TensorSpec(name=n, dtype="float32", shape=(k, 1, 3)) for n, k in (("h", 2), ("x", 1)))
    artifact = Artifact(path=tmp_path / "state.onnx", format=Format.ONNX, precision="",
                        inputs=(h, x), outputs=(replace(h, name="y"),))  # fmt: skip
    given = {"h": nets.normal(2, 1, 3), "x": nets.normal(1, 1, 3, seed=1)}
    (found,) = infer(open_session(artifact, 1), given)
    np.testing.assert_allclose(found, given["h"] + given["x"])


def test_torchscript_outputs_are_taken_by_place_and_all_where_none_are_known(
    tmp_path: Path,
) -> None:
    module = nets.build(nets.Outputs)
    torch.jit.trace(module, torch.randn(2, 8), strict=False).save(str(tmp_path / "dict.pt"))
    some = nets.normal(3, 8)
    wanted = nets.run_torch(module, some)
    x = TensorSpec(name="x", dtype="float32", shape=())
    artifact = Artifact(path=tmp_path / "dict.pt", format=Format.TORCHSCRIPT, precision="",
                        inputs=(x,), outputs=())  # fmt: skip
    assert [a.shape for a in infer(open_session(artifact, 1), {"x": some})] == [(3, 4), (3, 6)]
    second = TensorSpec(name="embedding", dtype="float32", shape=(None, 6), stored="#1")
    (found,) = infer(open_session(replace(artifact, outputs=(second,)), 1), {"x": some})
    np.testing.assert_allclose(found, wanted["embedding"].numpy(), rtol=1e-6)
