"""Weights and biases of a `.tflite` file on the very integers of a QDQ file.

Channels are known again by what is in them: a convolution's axes are turned, its groups may be
split into operators of their own, but the weights of one output channel stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.tflite.flatbuffer import WEIGHTED, Flatbuffer

if TYPE_CHECKING:
    from workbench.quantization.core.qdq_reader import StrippedGraph

Array = NDArray[Any]
Rows = Mapping[bytes, float]

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# The scale of a channel of zeros is free, and made so large that its bias fits with room to spare.
ROOM = 2.0**24


def weighted_operators(flat: Flatbuffer) -> list[tuple[Any, Array, int]]:
    """Operators with constant float weights, and the axis of their output channels."""
    operators = []
    for operator in flat.operators:
        kind = flat.kind(operator)
        if kind not in WEIGHTED or len(operator.inputs) <= WEIGHTED[kind][0]:
            continue
        number = int(operator.inputs[WEIGHTED[kind][0]])
        weights = flat.array(number) if number >= 0 else None
        if weights is not None and weights.ndim > 1 and weights.dtype == "float32":
            operators.append((operator, weights, _axis(flat, operator, weights)))
    return operators


def _axis(flat: Flatbuffer, operator: Any, weights: Array) -> int:
    kind = flat.kind(operator)
    if kind in ("DEPTHWISE_CONV_2D", "CONV_3D"):
        return weights.ndim - 1
    if kind == "BATCH_MATMUL":
        return weights.ndim - (2 if operator.builtinOptions.adjY else 1)
    return 0


def rows_of(weights: Array, axis: int) -> list[bytes]:
    """Each output channel's weights as a key that no order of the other axes changes."""
    moved = np.moveaxis(np.asarray(weights, np.float32), axis, 0)
    # Negative zeros are zeros.
    return [row.tobytes() for row in np.sort(moved.reshape(len(moved), -1) + 0.0, axis=1)]


def scale_rows(stripped: StrippedGraph) -> dict[bytes, float]:
    """The scale of each output channel of INT8 weights, by its weights."""
    return {
        row: float(scale)
        for weight in stripped.weights.values()
        for row, scale in zip(rows_of(weight.floats, weight.axis), weight.scales, strict=True)
    }


def float_rows(stripped: StrippedGraph) -> set[bytes]:
    """The output channels of weights that are float, less those that INT8 weights have too."""
    import onnx

    tensors = {tensor.name: tensor for tensor in stripped.model.graph.initializer}
    rows: set[bytes] = set()
    for node in stripped.model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        tensor = tensors.get(node.input[1])
        if tensor is None or node.name in stripped.weights or len(tensor.dims) < 2:
            continue
        array = onnx.numpy_helper.to_array(tensor)
        turned = any(one.name == "transB" and one.i for one in node.attribute)
        axis = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0 if turned else 1}.get(node.op_type)
        rows |= set(rows_of(array, array.ndim - 1 if axis is None else axis))
    return rows - set(scale_rows(stripped))


def set_weights(
    flat: Flatbuffer, operator: Any, weights: Array, axis: int, bias: Array | None, rows: Rows
) -> bool | None:
    """Give an operator the integers of its float weights; whether every channel was known.

    None where the operator computes in float. Of channels that are not known, what the quantizer
    made stays.
    """
    index, bias_place = WEIGHTED[flat.kind(operator)]
    number = int(operator.inputs[index])
    grid, integers = flat.grid(number), flat.array(number)
    if grid is None or integers is None or integers.dtype != np.int8:
        return None
    own_scales = [rows.get(row) for row in rows_of(weights, axis)]
    scales = np.broadcast_to(grid[0], (len(own_scales),)).astype(np.float64)
    for channel, scale in enumerate(own_scales):
        scales[channel] = scales[channel] if scale is None else scale
    if flat.kind(operator) == "BATCH_MATMUL" and np.ptp(scales) > 0:
        return False  # which takes one scale alone
    step = _input_scale(flat, operator)
    dead = ~np.moveaxis(weights, axis, 0).reshape(len(own_scales), -1).any(axis=1)
    if bias is not None and step:
        scales = np.where(dead, np.maximum(scales, np.abs(bias) / (step * ROOM)), scales)
    scales = scales.astype(np.float32).astype(np.float64)
    shape = [1] * weights.ndim
    shape[axis] = -1
    rounded = np.clip(np.rint(weights / scales.reshape(shape)), -127, 127).astype(np.int8)
    flat.store(number, rounded.reshape(integers.shape))
    flat.set_grid(number, scales if len(grid[0]) > 1 or np.ptp(scales) > 0 else scales[:1], axis)
    if bias is not None and step and 0 <= bias_place < len(operator.inputs):
        _set_bias(flat, int(operator.inputs[bias_place]), bias, step * scales)
    return all(scale is not None for scale in own_scales)


def make_hybrid(flat: Flatbuffer, operator: Any, weights: Array, rows: Rows) -> bool:
    """Give a float FULLY_CONNECTED its INT8 weights; whether it was one, and every channel known.

    LiteRT then quantizes what it takes to 8 bits on the fly. On a thousand classes that was as fast
    as INT8 outputs (0.43 ms a network), a quarter of the size, and 49 dB from computing in float;
    INT8 outputs tie, which cost 7 points of accuracy.
    """
    if flat.kind(operator) != "FULLY_CONNECTED":
        return False
    scales = [rows.get(row) for row in rows_of(weights, 0)]
    number = int(operator.inputs[1])
    if any(scale is None for scale in scales) or not flat.is_float(number):
        return False
    steps = np.array(scales, np.float32)
    flat.store(number, np.rint(weights / steps.astype(np.float64)[:, None]).astype(np.int8))
    flat.tensors[number].type = flat.schema.TensorType.INT8
    flat.set_grid(number, steps)
    operator.builtinOptions.asymmetricQuantizeInputs = True
    return True


def _input_scale(flat: Flatbuffer, operator: Any) -> float:
    data = 2 if flat.kind(operator) == "TRANSPOSE_CONV" else 0
    grid = flat.grid(int(operator.inputs[data]))
    return 0.0 if grid is None else float(grid[0][0])


def _set_bias(flat: Flatbuffer, number: int, bias: Array, scales: Array) -> None:
    stored = flat.array(number) if number >= 0 else None
    if stored is None or stored.dtype != np.int32:
        return
    bounds = np.iinfo(np.int32)
    flat.store(number, np.clip(np.rint(bias / scales), bounds.min, bounds.max).astype(np.int32))
    flat.set_grid(number, scales)
