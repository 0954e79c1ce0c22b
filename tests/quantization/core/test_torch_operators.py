from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.nets import normal
from workbench.quantization.core.network import Network
from workbench.quantization.core.torch_operators import OPERATORS

X = (2, 4, 6, 6)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def of(op: str, *arrays: Any, count: int = 1, opset: int = 20, **attributes: Any) -> Any:
    """A case: an operator, its inputs (None for one left out), attributes."""
    return op, arrays, count, opset, attributes


def kind(case: Any) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[4].items())])


x, y, w = normal(*X), normal(*X, seed=1), normal(8, 4, 3, 3, seed=2)
positive = np.abs(x) + 0.1
rows = normal(3, 5, seed=3)
flags, others = x > 0, y > 0
b8, c4 = normal(8, seed=4), normal(4, seed=5)
none: list[Any] = [None]

CASES = [
    of("Conv", x, w, b8, pads=[1] * 4), of("Conv", x, w, strides=[2, 1], dilations=[1, 2]),
    of("Conv", x, w, pads=[0, 1, 2, 0]), of("Conv", x, w, auto_pad="SAME_UPPER", strides=[2, 2]),
    of("Conv", x, w, auto_pad="SAME_LOWER", strides=[2, 2]), of("Conv", x, w, auto_pad="VALID"),
    of("Conv", x, normal(8, 2, 3, 3), b8, group=2), of("Conv", x, normal(4, 1, 3, 3), group=4),
    of("Conv", normal(2, 3, 9), normal(5, 3, 4), pads=[1, 2], strides=[2]),
    of("Conv", normal(1, 2, 5, 5, 5), normal(3, 2, 2, 2, 2)),
    of("ConvTranspose", x, normal(4, 3, 3, 3), normal(3), strides=[2, 2], pads=[1] * 4),
    of("ConvTranspose", x, normal(4, 3, 2, 2), strides=[2, 2], output_padding=[1, 0]),
    of("ConvTranspose", x, normal(4, 3, 3, 3), pads=[0, 1, 1, 0]),
    of("ConvTranspose", x, normal(4, 2, 3, 3), group=2, auto_pad="SAME_UPPER", strides=[2, 2]),
    of("Gemm", rows, normal(5, 7), normal(7)), of("Gemm", rows, normal(7, 5), transB=1),
    of("Gemm", normal(5, 3), normal(5, 7), normal(1, 7), transA=1, alpha=0.5, beta=2.0),
    of("MatMul", rows, normal(5, 2)), of("MatMul", normal(2, 3, 4, 5), normal(5, 6)),
    of("MatMul", normal(2, 3, 4, 5), normal(2, 1, 5, 6)),
    of("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
    of("MaxPool", x - 9, kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    of("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    of("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2]),
    of("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4),
    of("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    of("AveragePool", x, kernel_shape=[3, 2], pads=[0, 1, 1, 0], strides=[2, 1]),
    of("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    of("GlobalAveragePool", x), of("GlobalMaxPool", x),
    of("ReduceMean", x, ints(2, 3)), of("ReduceMean", x, ints(-1), keepdims=0),
    of("ReduceMean", x, axes=[1, 2], opset=13), of("ReduceMean", x), of("ReduceSum", x, ints(1)),
    of("ReduceSum", x, None, noop_with_empty_axes=1), of("ReduceMax", x, ints(2), keepdims=0),
    of("ReduceMin", x, axes=[3], opset=13), of("ReduceL2", x, axes=[1], opset=13),
    *(of(op, x) for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Erf", "Softplus", "Softsign",
                           "Mish", "Exp", "Neg", "Abs", "Reciprocal", "Identity", "Dropout",
                           "Floor", "Ceil") if op in OPERATORS),
    of("Sqrt", positive), of("Log", positive), of("Pow", positive, np.float32(1.5)),
    of("LeakyRelu", x), of("LeakyRelu", x, alpha=0.3), of("Elu", x, alpha=0.7), of("Elu", x),
    of("PRelu", x, normal(4, 1, 1)), of("PRelu", x, normal(1)), of("HardSigmoid", x),
    of("HardSigmoid", 3 * x, alpha=0.3, beta=0.4), of("Gelu", x),
    of("Gelu", x, approximate="tanh"), of("Softmax", x), of("Softmax", x, axis=1),
    of("LogSoftmax", x, axis=1), of("Clip", x, np.float32(0), np.float32(6)),
    of("Clip", x, None, np.float32(0.5)), of("Clip", x), of("Clip", x, np.float32(-0.5)),
    *(of(op, x, y) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max") if op in OPERATORS),
    *(of(op, x, c4.reshape(4, 1, 1)) for op in ("Add", "Sub", "Mul", "Div")),
    of("Div", ints(7, -7, 8), ints(2, 2, -3)), of("Equal", x, x), of("Greater", x, y),
    of("Less", x, y), of("Not", flags), of("And", flags, others), of("Or", flags, others),
    of("Where", flags, x, y), of("Reshape", x, ints(0, 2, -1)), of("Reshape", x, ints(-1)),
    of("Flatten", x), of("Flatten", x, axis=0), of("Flatten", x, axis=2), of("Flatten", x, axis=-1),
    of("Squeeze", normal(1, 3, 1), ints(0)), of("Squeeze", normal(1, 3, 1)),
    of("Unsqueeze", rows, ints(0, 3)), of("Unsqueeze", rows, ints(-1)),
    of("Transpose", x), of("Transpose", x, perm=[0, 2, 3, 1]), of("Concat", x, y, axis=1),
    of("Concat", x, y, axis=-1), of("Expand", rows, ints(2, 3, 5)),
    of("Expand", normal(3, 1), ints(1, 4)), of("Split", x, ints(1, 3), count=2, axis=1),
    of("Split", x, count=2, axis=1, opset=13), of("Split", x, ints(4, 2), count=2, axis=-1),
    of("Slice", x, ints(1), ints(3), ints(1)),
    of("Slice", x, ints(0, 1), ints(2**40, -1), ints(2, 3)),
    of("Slice", x, ints(-2), ints(9), ints(3), ints(1)), of("Slice", x, ints(0), ints(1)),
    of("Slice", x, ints(0), ints(6), ints(2), ints(2)),
    of("Slice", x, ints(5), ints(-99), ints(2), ints(-1)), of("Gather", x, ints(0, -1), axis=1),
    of("Gather", rows, np.array(2, np.int64)), of("Gather", rows, np.array([[0, 1]], np.int32)),
    of("Pad", x, ints(0, 0, 1, 2, 0, 0, 0, 1)),
    of("Pad", x, ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(3)),
    of("Pad", x, ints(0, 1, 0, 0, 0, 0, 0, 0)),
    of("Pad", x, ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
    of("Pad", x, ints(1, 1), None, ints(3)), of("Shape", x), of("Shape", x, start=1, end=-1),
    *(of("Cast", x, to=kind) for kind in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32,
                                          TensorProto.BOOL, TensorProto.DOUBLE, TensorProto.UINT8)),
    of("Resize", x, None, None, ints(2, 4, 12, 12), mode="nearest",
       coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    of("Resize", x, None, np.float32([1, 1, 2, 2]), mode="nearest"),
    of("Resize", x, None, np.float32([1, 1, 2, 2]), mode="nearest", nearest_mode="ceil"),
    of("Resize", x, None, np.float32([1, 1, 1.5, 2]), mode="nearest"),
    of("Resize", x, None, np.float32([1, 1, 2, 2]), mode="linear"),
    of("Resize", x, None, np.float32([1, 1, 0.5, 0.5]), mode="linear"),
    of("Resize", x, None, None, ints(2, 4, 9, 11), mode="linear",
       coordinate_transformation_mode="align_corners"),
    of("Resize", x, None, np.float32([1, 1, 2, 2]), mode="cubic"),
    of("LayerNormalization", normal(2, 3, 8), normal(8), normal(8, seed=1)),
    of("LayerNormalization", x, normal(4, 6, 6), axis=1, epsilon=1e-3),
    of("BatchNormalization", x, c4, normal(4), normal(4, seed=6), np.abs(c4) + 0.1, epsilon=1e-3),
]  # fmt: skip


def model_of(op: str, given: Any, count: int, opset: int, attributes: Any) -> onnx.ModelProto:
    names = [f"i{place}" if one is not None else "" for place, one in enumerate(given)]
    outputs = [f"o{place}" for place in range(count)]
    node = helper.make_node(op, names, outputs, op, **attributes)
    arrays = {name: np.asarray(one) for name, one in zip(names, given, strict=True) if name}
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info("i0", helper.np_dtype_to_tensor_dtype(arrays["i0"].dtype),
                                       arrays["i0"].shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(one, name) for name, one in arrays.items() if name != "i0"],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("case", CASES, ids=kind)
def test_operators_are_onnx_runtimes(case: Any) -> None:
    op, given, *_ = case
    model = model_of(*case)
    wanted = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, {"i0": np.asarray(given[0])})
    network = Network(model)
    found = network.run({"i0": torch.from_numpy(np.array(given[0]))})
    for name, one in zip(network.outputs, wanted, strict=True):
        got = found[name].numpy()
        assert got.dtype == one.dtype
        assert got.shape == one.shape
        np.testing.assert_allclose(got, one, rtol=2e-5, atol=2e-5, err_msg=op)


def test_every_operator_of_the_table_has_a_case() -> None:
    assert not OPERATORS.keys() - {case[0] for case in CASES}
