"""What is read of ONNX files, and which are refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.inspect.files import floats, graph, save_onnx
from workbench.artifact import Format, digest
from workbench.errors import ModelError
from workbench.inspect import Tensor, read

NET = graph(
    """g (float[batch, 3, 8, 8] image, float[1] gain) => (float[batch, 4] scores, int64[batch] best)
    {
        c = Conv <pads = [1, 1, 1, 1]> (image, w, b)
        a = Mul (c, gain)
        p = GlobalAveragePool (a)
        scores = Flatten (p)
        best = ArgMax <axis = 1, keepdims = 0> (scores)
    }""",
    more=', "com.microsoft" : 1',
)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return save_onnx(tmp_path, NET, w=floats(4, 3, 3, 3), b=floats(4))


def test_signature_and_counts(net: Path) -> None:
    facts = read(net)
    assert facts.format is Format.ONNX
    assert facts.inputs == (
        Tensor(name="image", dtype="float32", shape=(None, 3, 8, 8)),
        Tensor(name="gain", dtype="float32", shape=(1,)),
    )
    assert facts.outputs == (
        Tensor(name="scores", dtype="float32", shape=(None, 4)),
        Tensor(name="best", dtype="int64", shape=(None,)),
    )
    assert facts.operators == dict.fromkeys(
        ("ArgMax", "Conv", "Flatten", "GlobalAveragePool", "Mul"), 1
    )
    assert facts.opsets == {"ai.onnx": 17, "com.microsoft": 1}
    assert (facts.parameters, facts.macs) == (4 * 27 + 4, 4 * 64 * 27)
    assert facts.precision == "float32"
    assert facts.bytes == net.stat().st_size
    assert facts.sha256 == digest(net)
    assert facts.notes == ()


def test_weights_listed_among_the_inputs_are_none(net: Path) -> None:
    model = onnx.load(net)
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [4, 3, 3, 3]))
    onnx.save(model, net)
    assert [tensor.name for tensor in read(net).inputs] == ["image", "gain"]


def test_a_rank_that_is_not_declared(net: Path) -> None:
    model = onnx.load(net)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, net)
    assert read(net).outputs[0] == Tensor(name="scores", dtype="float32", shape=(), ranked=False)


def test_shared_weights_and_index_tensors_are_not_counted_twice(tmp_path: Path) -> None:
    text = graph(
        """g (float[N, 6] x) => (float[N, 6] y)
        { a = MatMul (x, w) b = MatMul (a, w) y = Reshape (b, to) }"""
    )
    facts = read(save_onnx(tmp_path, text, w=floats(6, 6), to=np.array([-1, 6])))
    assert facts.parameters == 36
    assert facts.macs == 72


def test_constants_in_nodes_are_weights_too(tmp_path: Path) -> None:
    text = graph(
        """g (float[N, 2] x) => (float[N, 2] y)
        { w = Constant <value = float[2, 2] {1, 2, 3, 4}> () y = MatMul (x, w) }"""
    )
    facts = read(save_onnx(tmp_path, text))
    assert (facts.parameters, facts.macs) == (4, 4)


def test_local_functions_are_counted_as_what_they_consist_of(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
    g (float[N, 6] x) => (float[N, 4] y) { a = local.twice (x) y = MatMul (a, w) }
    <domain: "local", opset_import: ["" : 17]> twice (x) => (y) { y = Add (x, x) }"""
    facts = read(save_onnx(tmp_path, text, w=floats(6, 4)))
    assert facts.operators == {"Add": 1, "MatMul": 1}
    assert facts.macs == 24
    assert "1 local functions, written out" in facts.notes


def test_float16_and_dynamic_int8(tmp_path: Path) -> None:
    half = graph("g (float16[N, 6] x) => (float16[N, 4] y) { y = MatMul (x, w) }")
    assert read(save_onnx(tmp_path, half, w=floats(6, 4).astype(np.float16))).precision == "float16"
    dynamic = graph(
        """g (float[N, 6] x) => (int32[N, 4] y)
        { q, s, z = DynamicQuantizeLinear (x) y = MatMulInteger (q, w, z, wz) }"""
    )
    facts = read(save_onnx(tmp_path, dynamic, w=np.ones((6, 4), np.int8), wz=np.int8(0)))
    assert (facts.precision, facts.parameters, facts.macs) == ("dynamic-int8", 24, 24)


def test_static_int8_by_the_dtype_of_its_zero_points(tmp_path: Path) -> None:
    text = graph(
        """g (float[N, 6] x) => (float[N, 4] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            v = DequantizeLinear (w, s, wz)
            y = MatMul (d, v)
        }""",
        opset=21,
    )
    tensors = {"s": np.float32(0.1), "w": np.ones((6, 4), np.int8), "wz": np.int8(0)}
    assert read(save_onnx(tmp_path, text, z=np.uint8(3), **tensors)).precision == "int8"
    assert read(save_onnx(tmp_path, text, z=np.uint16(3), **tensors)).precision == "int16"
    weights_only = text.replace("q = QuantizeLinear (x, s, z)", "").replace(
        "d = DequantizeLinear (q, s, z)", "d = Identity (x)"
    )
    assert read(save_onnx(tmp_path, weights_only, **tensors)).precision == "int8-weights"


def external(folder: Path, location: str) -> Path:
    """The net with its weights `w` said to be elsewhere."""
    path = save_onnx(folder, NET, w=floats(4, 3, 3, 3), b=floats(4))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "C:\\w.bin", "..\\w.bin", "", "a\0b"]
)
def test_weights_outside_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(432))
    with pytest.raises(ModelError, match="takes its weights from outside its folder"):
        read(external(tmp_path / "inner", location))


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(432))
    (tmp_path / "inner" / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="takes its weights from outside its folder"):
        read(external(tmp_path / "inner", "w.bin"))


def test_weights_beside_the_file_are_noted_and_not_needed(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    missing = read(path)
    assert "missing beside it: w.bin: the model cannot be run" in missing.notes
    (tmp_path / "w.bin").write_bytes(bytes(432))
    there = read(path)
    assert there.notes == ("weights in 1 more file: 0.00 MB",)
    assert there.macs == missing.macs == 4 * 64 * 27
    assert there.parameters == 112


def test_a_name_that_is_no_text_is_refused(net: Path) -> None:
    net.write_bytes(net.read_bytes().replace(b"GlobalAveragePool", b"Global\xff\xfeeragePool"))
    with pytest.raises(ModelError, match="a name in it is not UTF-8"):
        read(net)


def test_an_empty_graph_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.write_bytes(onnx.ModelProto(ir_version=8, graph=onnx.GraphProto()).SerializeToString())
    with pytest.raises(ModelError, match="its graph is empty"):
        read(path)


def test_damaged_files_never_do_more_than_be_refused(net: Path, tmp_path: Path) -> None:
    data, generator = net.read_bytes(), random.Random(0)
    refused = 0
    for turn in range(200):
        damaged = bytearray(data)
        if turn % 2:
            for _ in range(turn % 7 + 1):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        else:
            damaged = damaged[: generator.randrange(len(damaged))]
        path = tmp_path / "damaged.onnx"
        path.write_bytes(damaged)
        try:
            read(path)
            assert turn % 2, "a truncated file was read"
        except ModelError:
            refused += 1
    assert refused >= 100
