"""What is read of `.tflite` files, and what LiteRT's XNNPACK takes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.inspect.files import Flatbuffer, dense, floats
from workbench.artifact import Format, digest
from workbench.errors import DeviceError, ModelError
from workbench.inspect import Tensor, read, tflite_delegate, tflite_file


@pytest.mark.process
def test_signature_counts_and_what_xnnpack_takes(tmp_path: Path) -> None:
    path = dense(tmp_path / "dense.tflite")
    facts = read(path)
    assert facts.format is Format.TFLITE
    assert facts.inputs == (Tensor(name="x", dtype="float32", shape=(1, 6)),)
    assert facts.outputs == (Tensor(name="y", dtype="float32", shape=(1, 4)),)
    assert facts.operators == {"FULLY_CONNECTED": 1}
    assert (facts.parameters, facts.macs, facts.precision) == (28, 24, "float32")
    assert facts.takes["XNNPACK"].startswith("1/1 nodes, 1 partition (LiteRT ")
    assert (facts.sha256, facts.bytes) == (digest(path), path.stat().st_size)
    assert facts.opsets == {}
    assert facts.notes == ()


@pytest.mark.parametrize(
    ("dtype", "activations", "precision"),
    [("float32", "float32", "float32"), ("int8", "float32", "dynamic-int8"),
     ("int8", "int8", "int8"), ("int8", "int16", "int16")],
)  # fmt: skip
def test_precision_and_quantization(
    dtype: str, activations: str, precision: str, tmp_path: Path
) -> None:
    facts = tflite_file.read(dense(tmp_path / "dense.tflite", dtype, activations))
    assert facts.precision == precision
    expected = None if activations == "float32" else (0.5, -3)
    assert facts.inputs[0].quantization == expected
    assert facts.parameters == 28  # a quantized bias is a parameter too


# An operator, its inputs (those named w… are constant), its output, its options, and the count.
CASES: dict[str, tuple[dict[str, tuple[int, ...]], tuple[int, ...], Any, int]] = {
    "CONV_2D": ({"x": (1, 8, 8, 3), "w": (5, 3, 3, 3)}, (1, 4, 4, 5), None, 4 * 4 * 5 * 27),
    "DEPTHWISE_CONV_2D": (
        {"x": (1, 8, 8, 3), "w": (1, 3, 3, 6)}, (1, 8, 8, 6), None, 8 * 8 * 6 * 9),
    "TRANSPOSE_CONV": (
        {"w0": (4,), "w": (5, 3, 3, 2), "x": (1, 4, 4, 2)}, (1, 8, 8, 5), None,
        4 * 4 * 2 * 5 * 9),
    "CONV_3D": (
        {"x": (1, 4, 4, 4, 2), "w": (3, 3, 3, 2, 5)}, (1, 2, 2, 2, 5), None, 8 * 5 * 54),
    "FULLY_CONNECTED": ({"x": (7, 6), "w": (4, 6)}, (7, 4), None, 7 * 24),
    "BATCH_MATMUL": ({"x": (2, 3, 4), "z": (2, 4, 5)}, (2, 3, 5), None, 2 * 3 * 4 * 5),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (
        {"x": (1, 7, 6), "w": (5, 6), "w2": (5, 5)}, (1, 7, 5), None, 7 * 5 * 11),
}  # fmt: skip


def build(
    path: Path,
    kind: str,
    taken: dict[str, tuple[int, ...]],
    output: tuple[int, ...],
    options: Any = None,
) -> Path:
    flat = Flatbuffer()
    indices = {}
    for name, shape in taken.items():
        dtype = "int32" if name == "w0" else "float32"
        data = np.ones(shape, dtype) if name.startswith("w") else None
        indices[name] = flat.tensor(name, shape, dtype, data)
    result = flat.tensor("y", output)
    flat.operator(kind, list(indices.values()), [result], options)
    return flat.save(path, [indices["x"]], [result])


@pytest.mark.parametrize("kind", CASES)
def test_macs_by_hand(kind: str, tmp_path: Path) -> None:
    inputs, output, options, expected = CASES[kind]
    facts = tflite_file.read(build(tmp_path / "one.tflite", kind, inputs, output, options))
    assert facts.macs == expected, facts.notes
    weights = [shape for name, shape in inputs.items() if name[0] == "w" and name != "w0"]
    assert facts.parameters == sum(int(np.prod(shape)) for shape in weights)


def test_a_transposed_product(tmp_path: Path) -> None:
    options = schema.BatchMatMulOptionsT()
    options.adjY = True
    taken = {"x": (2, 3, 4), "z": (2, 5, 4)}
    path = build(tmp_path / "one.tflite", "BATCH_MATMUL", taken, (2, 3, 5), options)
    assert tflite_file.read(path).macs == 2 * 3 * 4 * 5


def test_the_gates_of_an_lstm(tmp_path: Path) -> None:
    flat = Flatbuffer()
    data, output = flat.tensor("x", (1, 7, 6)), flat.tensor("y", (1, 7, 5))
    gates = [flat.tensor(f"i{n}", (5, 6), data=floats(5, 6)) for n in range(4)]
    loops = [flat.tensor(f"r{n}", (5, 5), data=floats(5, 5)) for n in range(4)]
    flat.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", [data, *gates, *loops, *[-1] * 15], [output], None
    )
    facts = tflite_file.read(flat.save(tmp_path / "lstm.tflite", [data], [output]))
    assert facts.macs == 7 * 4 * 5 * (6 + 5)


def test_weights_that_share_a_buffer_count_once(tmp_path: Path) -> None:
    flat = Flatbuffer()
    data = flat.tensor("x", (1, 6))
    first = flat.tensor("w", (6, 6), data=floats(6, 6))
    second = flat.tensor("v", (6, 6), buffer=len(flat.model.buffers) - 1)
    middle, output = flat.tensor("m", (1, 6)), flat.tensor("y", (1, 6))
    flat.operator("FULLY_CONNECTED", [data, first, -1], [middle])
    flat.operator("FULLY_CONNECTED", [middle, second, -1], [output])
    facts = tflite_file.read(flat.save(tmp_path / "two.tflite", [data], [output]))
    assert (facts.parameters, facts.macs) == (36, 72)


def test_an_open_axis_leaves_the_macs_unknown_unless_it_is_the_batch(tmp_path: Path) -> None:
    for signature, macs in (((-1, 5, 6), 5 * 24), ((1, -1, 6), None)):
        flat = Flatbuffer()
        data = flat.tensor("x", (1, 5, 6), signature=signature)
        weights = flat.tensor("w", (4, 6), data=floats(4, 6))
        output = flat.tensor("y", (1, 5, 4))
        flat.operator("FULLY_CONNECTED", [data, weights, -1], [output])
        facts = tflite_file.read(flat.save(tmp_path / "open.tflite", [data], [output]))
        assert facts.macs == macs
        assert facts.inputs[0].shape == tuple(None if size < 0 else size for size in signature)
        assert any("an axis is open" in note for note in facts.notes) == (macs is None)


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    path = build(tmp_path / "svdf.tflite", "SVDF", {"x": (1, 6)}, (1, 4))
    facts = tflite_file.read(path)
    assert facts.macs is None
    assert facts.notes == ("MACs unknown: SVDF is not counted",)


def mixed(path: Path) -> Path:
    """RELU, then an operator that XNNPACK has not (SIN), then two that it has."""
    flat = Flatbuffer()
    tensors = [flat.tensor(name, (1, 4, 4, 2)) for name in "abcde"]
    for kind, index in (("RELU", 0), ("SIN", 1), ("RELU", 2), ("RELU6", 3)):
        flat.operator(kind, [tensors[index]], [tensors[index + 1]])
    return flat.save(path, [tensors[0]], [tensors[4]])


def test_partitions_are_the_runtimes_own(tmp_path: Path) -> None:
    text = tflite_delegate.delegated_nodes(mixed(tmp_path / "mixed.tflite"))
    taken, rest = text.split(" nodes, ", 1)
    assert rest.partition(" (LiteRT")[0] in ("2 partitions; not SIN", "1 partition"), text
    assert taken in ("3/4", "4/4")


def test_what_a_delegate_replaced_is_found_from_its_border() -> None:
    def node(index: int, inputs: list[int], outputs: list[int]) -> dict[str, Any]:
        return {"index": index, "inputs": inputs, "outputs": outputs}

    # 0 → 1 → 2 → 3, where the delegate has nodes 1 and 2 and keeps a constant (9).
    nodes = [node(0, [0], [1]), node(1, [1, 9], [2]), node(2, [2, 1], [3]), node(3, [3], [4])]
    assert tflite_delegate._replaced(nodes, node(4, [1, 9], [3])) == {1, 2}


@pytest.mark.process
def test_an_operator_that_the_runtime_lacks_costs_only_its_answer(tmp_path: Path) -> None:
    flat = Flatbuffer()
    data, output = flat.tensor("x", (1, 6)), flat.tensor("y", (1, 6))
    flat.operator("CUSTOM", [data], [output])
    flat.model.operatorCodes[0].customCode = b"FlexErf"
    path = flat.save(tmp_path / "flex.tflite", [data], [output])
    with pytest.raises(DeviceError):
        tflite_delegate.delegated_nodes(path)
    facts = read(path)
    assert facts.operators == {"CUSTOM:FlexErf": 1}
    assert facts.takes == {}
    assert facts.macs is None
    assert any(note.startswith("LiteRT cannot load it: ") for note in facts.notes)


@pytest.mark.process
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_a_truncated_file_is_refused(share: float, tmp_path: Path) -> None:
    data = dense(tmp_path / "dense.tflite").read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match="cannot be read as TFLite"):
        read(cut)


@pytest.mark.process
def test_a_weight_beyond_the_files_end_is_refused(tmp_path: Path) -> None:
    flat = Flatbuffer()
    data, output = flat.tensor("x", (1, 6)), flat.tensor("y", (1, 6))
    flat.operator("RELU", [data], [output])
    flat.model.buffers[0].offset, flat.model.buffers[0].size = 400, 1 << 40
    path = flat.save(tmp_path / "far.tflite", [data], [output])
    with pytest.raises(ModelError, match="beyond the file's end"):
        read(path)
