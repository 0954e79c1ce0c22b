"""Batch normalization, and scales and shifts per channel, folded into the layer before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.view import (
    CONVOLUTIONS,
    Array,
    RewriteContext,
    View,
    is_baked,
    is_real,
    set_attribute,
)
from workbench.onnxgraph.walk import attributes
from workbench.quantization.prepare.node_rewrites import each_node
from workbench.quantization.prepare.weights import output_channels, set_bias

if TYPE_CHECKING:
    import onnx

LAYERS = (*CONVOLUTIONS, "Gemm")


@each_node
def matmul_to_gemm(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """MatMul of a matrix [N, K] with constant weights [K, M], and the bias after it, as Gemm.

    Of more than two axes MatMul stays: Gemm takes none.
    """
    matrix = view.constant(node, 1) if node.op_type == "MatMul" else None
    if not is_real(matrix) or matrix.ndim != 2 or view.rank(node.input[0]) != 2:
        return False
    bias = np.zeros(matrix.shape[1], np.float32)
    following = view.only_taker(node.output[0])
    if following is not None and following.op_type == "Add":
        summand = next((name for name in following.input if name != node.output[0]), "")
        constant = _per_channel(view.weights.get(summand), 2, len(bias))
        if constant is not None:
            bias = constant.astype(np.float32)
            view.swallow(node, following)
    node.op_type = "Gemm"
    set_bias(view, node, bias)
    return True


@each_node
def fold_gemm_factors(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """Gemm's alpha and beta multiplied into its weights and bias."""
    options = attributes(node) if node.op_type == "Gemm" else {}
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    if alpha == beta == 1.0:
        return False
    biased = len(node.input) > 2 and node.input[2]
    matrix, bias = view.constant(node, 1), view.constant(node, 2) if biased else None
    if not is_real(matrix) or (biased and beta != 1.0 and not is_real(bias)):
        return False
    node.input[1] = view.weights.add(f"{node.input[1]}_times_alpha", _float32(matrix * alpha))
    if biased and bias is not None:
        node.input[2] = view.weights.add(f"{node.input[2]}_times_beta", _float32(bias * beta))
    set_attribute(node, "alpha", None)
    set_attribute(node, "beta", None)
    return True


@each_node
def fold_batch_norms(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """BatchNormalization folded into the Conv, ConvTranspose or Gemm before it.

    With a = scale / sqrt(variance + epsilon), weights W become a * W, and the bias b becomes
    a * (b - mean) + shift: Jacob et al., Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference, 2018, 3.2.
    """
    factors = _normalization(view, node)
    layer = view.maker(node.input[0], *LAYERS) if factors is not None else None
    if factors is None or layer is None or view.only_taker(layer.output[0]) is None:
        return False
    return _absorb(view, layer, node, *factors)


@each_node
def fold_scales_and_shifts(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """Mul, Div, Add, Sub by constants per channel, after a Conv or Gemm, folded into it."""
    if node.op_type not in ("Mul", "Div", "Add", "Sub") or is_baked(node):
        return False
    layer = view.maker(node.input[0], *LAYERS) or view.maker(node.input[1], *LAYERS)
    if layer is None or view.only_taker(layer.output[0]) is None:
        return False
    first = node.input[0] == layer.output[0]
    shape = _output_shape(view, layer)
    value = view.weights.get(node.input[1 if first else 0])
    constant = _per_channel(value, *shape) if shape else None
    if constant is None or (node.op_type == "Div" and (not first or not constant.all())):
        return False
    unit, zero = np.ones(len(constant)), np.zeros(len(constant))
    factor, shift = {
        "Mul": (constant, zero),
        "Div": (1 / np.where(constant == 0, 1, constant), zero),
        "Add": (unit, constant),
        "Sub": (unit, -constant) if first else (-unit, constant),
    }[node.op_type]
    return _absorb(view, layer, node, factor, shift)


@each_node
def split_lone_batch_norms(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """BatchNormalization after no convolution as Mul and Add: runtimes have no INT8 form of it."""
    factors = _normalization(view, node)
    rank = view.rank(node.input[0]) if factors is not None else 0
    if factors is None or rank < 2 or is_baked(node):
        return False
    shape = (-1, *(1,) * (rank - 2))
    factor, shift = (
        view.weights.add(f"{node.name}_{word}", _float32(values.reshape(shape)))
        for word, values in zip(("factor", "shift"), factors, strict=True)
    )
    product = view.put("Mul", [node.input[0], factor], f"{node.output[0]}_scaled")
    view.drop(node)
    view.put("Add", [product, shift], node.output[0])
    return True


def _normalization(view: View, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """The factor and shift per channel that a BatchNormalization is at inference."""
    if node.op_type != "BatchNormalization" or node.domain:
        return None
    options = attributes(node)
    constants = [view.constant(node, index) for index in range(1, 5)]
    real = [array.astype(np.float64) for array in constants if is_real(array)]
    if options.get("training_mode") or len(real) < 4:
        return None
    scale, shift, mean, variance = real
    factor = scale / np.sqrt(variance + options.get("epsilon", 1e-5))
    return factor, shift - mean * factor


def _absorb(
    view: View, layer: onnx.NodeProto, node: onnx.NodeProto, factor: Array, shift: Array
) -> bool:
    """Let a layer do what the node after it does; False where its weights do not allow it."""
    if not scale_layer(view, layer, factor, shift):
        return False
    view.swallow(layer, node)
    return True


def scale_layer(view: View, layer: onnx.NodeProto, factor: Array, shift: Array) -> bool:
    """Make a layer give factor * y + shift per output channel; False if its weights do not allow.

    The layer's old weights stay as they are, for others.

    Args:
        factor, shift: float64 [channels].
    """
    weights, shape = view.constant(layer, 1), _output_shape(view, layer)
    if not is_real(weights) or shape is None or shape[1] != len(factor):
        return False
    bias: Array | None = np.zeros(len(factor))
    if len(layer.input) > 2 and layer.input[2]:
        constant = view.constant(layer, 2)
        bias = _per_channel(constant, constant.ndim, len(factor)) if is_real(constant) else None
    if bias is None:
        return False
    product = _float32(weights * _along_outputs(layer, weights, factor))
    added = _float32(bias * factor + shift)
    if not (np.isfinite(product).all() and np.isfinite(added).all()):
        return False
    layer.input[1] = view.weights.add(f"{layer.name}_weight", product)
    set_bias(view, layer, added)
    return True


def _along_outputs(layer: onnx.NodeProto, weights: Array, factor: Array) -> Array:
    """Factors per output channel, shaped so that they multiply a layer's weights."""
    options = attributes(layer)
    if layer.op_type == "Gemm":
        return factor[:, None] if options.get("transB", 0) else factor
    spatial = (1,) * (weights.ndim - 2)
    if layer.op_type == "Conv":
        return factor.reshape(-1, 1, *spatial)
    groups = options.get("group", 1)  # ConvTranspose: [inside, outside / groups, ...]
    rows = np.repeat(factor.reshape(groups, -1), weights.shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *spatial)


def _output_shape(view: View, layer: onnx.NodeProto) -> tuple[int, int] | None:
    """The rank of a layer's output and its number of channels, where its weights are constant."""
    weights, options = view.constant(layer, 1), attributes(layer)
    scaled = any(options.get(key, 1.0) != 1.0 for key in ("alpha", "beta"))
    if weights is None or (layer.op_type == "Gemm" and scaled):
        return None
    rank = 2 if layer.op_type == "Gemm" else weights.ndim
    return rank, output_channels(layer, weights)


def _per_channel(constant: Array | None, rank: int, channels: int) -> Array | None:
    """A constant as [channels] float64, if it is one number, or one for each index of axis 1.

    rank: of the tensor that it is combined with. A vector is along the last axis, which is axis 1
    where the rank is 2.
    """
    if constant is None or not is_real(constant) or constant.ndim > rank:
        return None
    channel_axis = min(1, rank - 1)
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if any(size != 1 for axis, size in enumerate(full.shape) if axis != channel_axis):
        return None
    if full.size not in (1, channels):
        return None
    return np.broadcast_to(full.reshape(-1), (channels,)).astype(np.float64)


def _float32(array: Array) -> Array:
    return array.astype(np.float32)
