"""QDQ files as INT8 `.tflite` files: the very numbers of the one in the other.

Conversions take seconds each, so they run once for all tests.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from tests import nets
from workbench.artifact import Artifact, Format
from workbench.device.session import infer, open_session
from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph, strip_qdq
from workbench.steps import ToTflite
from workbench.tflite.flatbuffer import Flatbuffer
from workbench.tflite.hard_activations import taken_apart
from workbench.tflite.integer_weights import float_rows, rows_of, scale_rows
from workbench.tflite.quantized import measure_ranges, notes

pytestmark = [pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore:::torch")]

Array = NDArray[Any]
HEIGHT, WIDTH = 24, 40


class Gated(nn.Module):
    """A float stem, hard-swish, a residual, a gate, grouped and depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.wide = nn.Conv2d(16, 16, 1, groups=2)
        self.gate = nn.Conv2d(16, 16, 1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(16, 40)

    def forward(self, image: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.stem(image))
        x = x + nn.functional.leaky_relu(self.deep(x), 0.1)
        x = self.wide(self.pool(x)).relu()
        x = x * nn.functional.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class Headed(nn.Sequential):
    """With a Softmax, of which TensorFlow's quantizer knows the range without being told."""

    def __init__(self) -> None:
        super().__init__(Gated(), nn.Softmax(1))


def pictures() -> Any:
    return nets.images(12, HEIGHT, WIDTH)


def quantized(source: Artifact, path: Path, exclude: tuple[str, ...], logits: bool) -> Artifact:
    """As onnxruntime quantizes it, but for operators of a kind or an output that is named."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            rows = pictures().examples(12)["image"]
            self.left = iter([{"image": rows[i : i + 1]} for i in range(len(rows))])

        def get_next(self) -> Any:
            return next(self.left, None)

    prepared = path.with_name("prepared.onnx")
    path.parent.mkdir(parents=True)
    quant_pre_process(source.path, prepared, skip_symbolic_shape=True)
    nodes = [
        node.name
        for node in onnx.load(prepared).graph.node
        if any(word in name for name in (*node.output, node.op_type) for word in exclude)
    ]
    quantize_static(
        prepared, path, Reader(), per_channel=True, activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8, nodes_to_exclude=nodes,
        extra_options={} if logits else {"OpTypesToExcludeOutputQuantization": ["Gemm"]},
    )  # fmt: skip
    return replace(source, path=path, format=Format.ONNX, precision="int8")


CASES: dict[str, tuple[Any, tuple[str, ...], bool, str]] = {
    "whole": (Headed, ("Softmax",), True, "int8"),
    "integers": (nets.ConvNet, (), False, "int8-io"),
    "logits": (Gated, (), False, "int8"),
    "stem": (Gated, ("stem", "hardswish", "_HS_", "HardSwish"), False, "int8"),
}


class Made:
    """A case's float, quantized and converted files, and what each gives."""

    def __init__(self, case: str, folder: Path) -> None:
        module, exclude, logits, precision = CASES[case]
        options = {"channels": 32} if module is nets.ConvNet else {}
        self.source = nets.exported(folder / "float", nets.build(module, **options), pictures())
        self.qdq = quantized(self.source, folder / "qdq" / "model.onnx", exclude, logits)
        self.stripped = taken_apart(onnx.load(self.qdq.path))
        context = nets.context(folder / "tflite", pictures(), work=folder / "work")
        self.tflite = ToTflite(precision=precision).run(self.qdq, context)
        self.flat = Flatbuffer(self.tflite.path.read_bytes())
        some = {"image": nets.normal(12, 3, HEIGHT, WIDTH)}
        self.outputs = [
            infer(open_session(self.source, 1), some)[0],
            nets.run_onnx(self.qdq.path, some["image"])[0],
            infer(open_session(self.tflite, 1), some)[0],
        ]

    def kinds(self) -> list[str]:
        return [self.flat.kind(one) for one in self.flat.operators]


@pytest.fixture(scope="module", params=CASES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return request.param, Made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.process
def test_both_files_agree_better_than_either_does_with_float(made: tuple[str, Made]) -> None:
    case, one = made
    floats, qdq, tflite = one.outputs
    # `integers` has outputs of 8 bits, and a concatenation's inputs on one grid.
    more = -4 if case == "integers" else 5
    assert nets.decibels(qdq, tflite) > nets.decibels(floats, qdq) + more
    assert nets.decibels(floats, tflite) > 20


@pytest.mark.process
def test_every_grid_of_the_qdq_file_is_in_the_tflite_file(made: tuple[str, Made]) -> None:
    case, one = made
    flat = one.flat
    found = {
        (float(grid[0][0]), int(grid[1][0]))
        for number in range(len(flat.tensors))
        if flat.is_int8(number) and (grid := flat.grid(number)) and len(grid[0]) == 1
    }
    missing = {
        name
        for name, grid in one.stripped.grids.items()
        if (float(np.float32(grid.scale)), grid.zero) not in found
    }
    assert len(found) > 7
    if case == "integers":  # what TFLite concatenates is on the result's grid
        assert all(name.startswith("/ReduceMean") for name in missing)
        assert len(missing) == 3
    else:  # a hard-swish has six times its gate's; the gate's convolution has its relu6 in it
        assert all("_HS_X" in name or name.endswith("/gate/Conv_output_0") for name in missing)
        assert len(missing) <= 2


@pytest.mark.process
def test_weights_and_biases_are_the_very_integers(made: tuple[str, Made]) -> None:
    _, one = made
    flat = one.flat
    rows: dict[bytes, float] = {}
    for weight in one.stripped.weights.values():
        integers = np.moveaxis(weight.integers, weight.axis, 0).reshape(len(weight.scales), -1)
        for row, scale in zip(np.sort(integers, 1), weight.scales, strict=True):
            rows[row.tobytes()] = float(scale)
    seen = 0
    for operator in flat.operators:
        kind = flat.kind(operator)
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        number = int(operator.inputs[1])
        weights, grid = flat.array(number), flat.grid(number)
        if grid is None or weights is None:
            continue
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        assert grid[2] == axis
        moved = np.sort(np.moveaxis(weights, axis, 0).reshape(len(grid[0]), -1), 1)
        for row, scale in zip(moved, grid[0], strict=True):
            assert rows[row.tobytes()] == scale
            seen += 1
        bias, data = int(operator.inputs[2]), flat.grid(int(operator.inputs[0]))
        if data is not None:
            steps = flat.grid(bias)
            assert steps is not None
            np.testing.assert_allclose(steps[0], data[0] * grid[0], rtol=1e-6)
    assert seen >= sum(len(weight.scales) for weight in one.stripped.weights.values())


@pytest.mark.process
def test_what_is_float_in_one_is_float_in_the_other(made: tuple[str, Made]) -> None:
    case, one = made
    flat, kinds = one.flat, one.kinds()
    first = next(operator for operator in flat.operators if flat.kind(operator) == "CONV_2D")
    last = next(operator for operator in flat.operators if flat.kind(operator) == "FULLY_CONNECTED")
    assert flat.is_float(flat.results(first)[0]) == (case == "stem")
    assert flat.is_float(flat.results(last)[0]) == (case in ("logits", "stem"))
    assert flat.is_int8(int(last.inputs[1]))
    assert kinds.count("HARD_SWISH") == (case == "stem")
    assert one.tflite.precision == ("mixed-int8" if case in ("stem", "whole") else "int8")
    if case == "integers":
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(kinds)


@pytest.mark.process
def test_the_notes_say_whose_numbers_they_are(made: tuple[str, Made]) -> None:
    case, one = made
    said = " | ".join(one.tflite.notes)
    assert "the quantized ONNX file's ranges, weights and biases" in said
    assert "TensorFlow's min-max" not in said
    assert ("keep TensorFlow's ranges" in said) == (case == "integers")
    assert ("of many classes the largest tie" in said) == (case == "integers")
    assert ("1 operator with INT8 weights and float outputs" in said) == (
        case in ("logits", "stem")
    )
    assert ("in float: " in said) == (case in ("stem", "whole"))
    assert ("in float: 1 SOFTMAX" in said) == (case == "whole")


def test_rows_are_known_whatever_the_order_of_the_other_axes() -> None:
    weights = nets.normal(8, 4, 3, 3)
    assert rows_of(weights, 0) == rows_of(weights.transpose(0, 2, 3, 1), 0)
    assert rows_of(weights, 0) == rows_of(weights.transpose(3, 1, 2, 0), 3)
    assert rows_of(weights, 0)[3:5] == rows_of(weights[3:5], 0)
    assert rows_of(np.zeros((1, 2)), 0) == rows_of(-np.zeros((1, 2)), 0)
    assert len(set(rows_of(weights, 0))) == 8


def test_rows_of_int8_and_of_float_weights(tmp_path: Path) -> None:
    source = nets.exported(tmp_path / "float", nets.build(), pictures())
    qdq = quantized(source, tmp_path / "qdq" / "model.onnx", ("features.0",), True)
    model = onnx.load(qdq.path)
    found = strip_qdq(model)
    left = float_rows(found)
    assert len(left) == 8
    assert not left & set(scale_rows(found))
    assert len(scale_rows(found)) == 8 + 16 + 10
    weights = {one.name: numpy_helper.to_array(one) for one in found.model.graph.initializer}
    stem = next(node for node in found.model.graph.node if node.op_type == "Conv")
    assert set(rows_of(weights[stem.input[1]], 0)) == left
    assert float_rows(StrippedGraph(onnx.ModelProto(), {}, {})) == set()


COUNTS = {
    "grids": 9,
    "moved": 0,
    "weights": 4,
    "rounded": 0,
    "hybrids": 0,
    "own": 0,
    "tensors": 9,
    "outputs": 0,
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"own": 3}, "3 of 9 tensors keep TensorFlow's ranges"),
        ({"moved": 2}, "2 of 9 tensors are on the grid that TFLite's operators ask for"),
        ({"rounded": 1}, "weights of 1 of 5 operators rounded anew"),
        (
            {"outputs": 1},
            "outputs that the quantized ONNX file leaves float are 8 bits: of many "
            "classes the largest tie, and the first is taken",
        ),
        ({"hybrids": 2}, "2 operators with INT8 weights and float outputs"),
    ],
)
def test_notes_count_what_is_not_the_qdq_files(changed: dict[str, int], said: str) -> None:
    found = notes({**COUNTS, **changed})
    assert found[0].endswith("the quantized ONNX file's ranges, weights and biases")
    assert found[1:] == ((said,) if said else ())


@pytest.mark.process
def test_ranges_are_of_each_tensor_alone(tmp_path: Path) -> None:
    """TensorFlow's calibrator gave x / 6 the range of the products that were written over it."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 64), name="x")])  # type: ignore[untyped-decorator]
    def swish(x: Any) -> Any:
        return {"y": (x / 6) * tf.nn.relu6(x + 3)}

    module = tf.Module()
    module.serve = swish
    tf.saved_model.save(module, str(tmp_path / "made"), signatures={"serving_default": swish})
    samples = [{"x": 3 * nets.normal(1, 64, seed=seed)} for seed in range(8)]
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "made"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter(samples)
    converter._experimental_calibrate_only = True
    flat = Flatbuffer(measure_ranges(converter.convert(), samples))
    x = np.concatenate([sample["x"] for sample in samples])
    wanted = {
        "x": x,
        "sixth": x / 6,
        "y": x / 6 * np.clip(x + 3, 0, 6),
        "relu6": np.clip(x + 3, 0, 6),
    }
    found = [
        (tensor.quantization.min[0], tensor.quantization.max[0])
        for number, tensor in enumerate(flat.tensors)
        if flat.has_range(number)
    ]
    for name, array in wanted.items():
        assert any(np.allclose(one, (array.min(), array.max()), atol=1e-5) for one in found), name
    assert ActivationGrid(0.1, 3).low == pytest.approx(-13.1)
