"""Batch normalization, and scales and shifts per channel, folded into the layer before them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.view import (
    CONVOLUTIONS,
    Array,
    Given,
    View,
    attributes,
    is_baked,
    is_real,
    set_attribute,
    shapes,
)

if TYPE_CHECKING:
    import onnx

LAYERS = (*CONVOLUTIONS, "Gemm")


def products_as_gemms(model: onnx.ModelProto, _given: Given) -> int:
    """MatMul of a matrix [N, K] with constant weights [K, M], and the bias after it, as Gemm.

    Of more than two axes MatMul stays: Gemm takes none.
    """
    known = shapes(model)
    view = View(model)
    count = 0
    for node in view.nodes:
        matrix = view.constant(node, 1) if node.op_type == "MatMul" else None
        if not is_real(matrix) or matrix.ndim != 2 or len(known.get(node.input[0], ())) != 2:
            continue
        bias = np.zeros(matrix.shape[1], np.float32)
        following = view.only_taker(node.output[0])
        if following is not None and following.op_type == "Add":
            other = next((one for one in following.input if one != node.output[0]), "")
            found = _per_channel(view.weights.get(other), 2, len(bias))
            if found is not None:
                bias = found.astype(np.float32)
                view.swallow(node, following)
        node.op_type = "Gemm"
        node.input.append(view.weights.add(f"{node.name}_bias", bias))
        count += 1
    return view.written(count)


def plain_gemms(model: onnx.ModelProto, _given: Given) -> int:
    """Gemm's alpha and beta multiplied into its weights and bias."""
    view = View(model)
    count = 0
    for node in view.nodes:
        found = attributes(node) if node.op_type == "Gemm" else {}
        alpha, beta = found.get("alpha", 1.0), found.get("beta", 1.0)
        if alpha == beta == 1.0:
            continue
        biased = len(node.input) > 2 and node.input[2]
        matrix, bias = view.constant(node, 1), view.constant(node, 2) if biased else None
        if not is_real(matrix) or (biased and beta != 1.0 and not is_real(bias)):
            continue
        node.input[1] = view.weights.add(f"{node.input[1]}_times_alpha", _real(matrix * alpha))
        if biased and bias is not None:
            node.input[2] = view.weights.add(f"{node.input[2]}_times_beta", _real(bias * beta))
        set_attribute(node, "alpha", None)
        set_attribute(node, "beta", None)
        count += 1
    return view.written(count)


def batch_norms(model: onnx.ModelProto, _given: Given) -> int:
    """BatchNormalization folded into the Conv, ConvTranspose or Gemm before it.

    With a = scale / sqrt(variance + epsilon), weights W become a * W, and the bias b becomes
    a * (b - mean) + shift: Jacob et al., Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference, 2018, 3.2.
    """
    view = View(model)
    count = 0
    for node in view.nodes:
        factors = _normalization(view, node)
        layer = view.maker(node.input[0], *LAYERS) if factors is not None else None
        if factors is None or layer is None or view.only_taker(layer.output[0]) is None:
            continue
        if scaled(view, layer, *factors):
            view.swallow(layer, node)
            count += 1
    return view.written(count)


def scales_and_shifts(model: onnx.ModelProto, _given: Given) -> int:
    """Mul, Div, Add, Sub by constants per channel, after a Conv or Gemm, folded into it."""
    view = View(model)
    count = 0
    for node in view.nodes:
        if node.op_type not in ("Mul", "Div", "Add", "Sub") or is_baked(node):
            continue
        layer = view.maker(node.input[0], *LAYERS) or view.maker(node.input[1], *LAYERS)
        if layer is None or view.only_taker(layer.output[0]) is None:
            continue
        first = node.input[0] == layer.output[0]
        shape = _channels(view, layer)
        value = view.weights.get(node.input[1 if first else 0])
        constant = _per_channel(value, *shape) if shape else None
        if constant is None or (node.op_type == "Div" and (not first or not constant.all())):
            continue
        one, zero = np.ones(len(constant)), np.zeros(len(constant))
        factor, shift = {
            "Mul": (constant, zero),
            "Div": (1 / np.where(constant == 0, 1, constant), zero),
            "Add": (one, constant),
            "Sub": (one, -constant) if first else (-one, constant),
        }[node.op_type]
        if scaled(view, layer, factor, shift):
            view.swallow(layer, node)
            count += 1
    return view.written(count)


def lone_batch_norms(model: onnx.ModelProto, _given: Given) -> int:
    """BatchNormalization after no convolution as Mul and Add: runtimes have no INT8 form of it."""
    known = shapes(model)
    view = View(model)
    count = 0
    for node in view.nodes:
        factors = _normalization(view, node)
        rank = len(known.get(node.input[0], ())) if factors is not None else 0
        if factors is None or rank < 2 or is_baked(node):
            continue
        shape = (-1, *(1,) * (rank - 2))
        factor, shift = (
            view.weights.add(f"{node.name}_{word}", _real(one.reshape(shape)))
            for word, one in zip(("factor", "shift"), factors, strict=True)
        )
        product = view.put("Mul", [node.input[0], factor], f"{node.output[0]}_scaled")
        view.drop(node)
        view.put("Add", [product, shift], node.output[0])
        count += 1
    return view.written(count)


def _normalization(view: View, node: onnx.NodeProto) -> tuple[Array, Array] | None:
    """The factor and shift per channel that a BatchNormalization is at inference."""
    if node.op_type != "BatchNormalization" or node.domain:
        return None
    found = attributes(node)
    parts = [view.constant(node, place) for place in range(1, 5)]
    if found.get("training_mode") or any(not is_real(one) for one in parts):
        return None
    scale, shift, mean, variance = (one.astype(np.float64) for one in parts if one is not None)
    factor = scale / np.sqrt(variance + found.get("epsilon", 1e-5))
    return factor, shift - mean * factor


def scaled(view: View, layer: onnx.NodeProto, factor: Array, shift: Array) -> bool:
    """Make a layer give factor * y + shift per output channel; False if its weights do not allow.

    factor, shift: float64 [channels]. The layer's old weights stay as they are, for others.
    """
    weights, shape = view.constant(layer, 1), _channels(view, layer)
    if not is_real(weights) or shape is None or shape[1] != len(factor):
        return False
    bias = np.zeros(len(factor))
    if len(layer.input) > 2 and layer.input[2]:
        given = view.constant(layer, 2)
        found = _per_channel(given, given.ndim, len(factor)) if is_real(given) else None
        if found is None:
            return False
        bias = found
    product = _real(weights * _along(layer, weights, factor))
    added = _real(bias * factor + shift)
    if not (np.isfinite(product).all() and np.isfinite(added).all()):
        return False
    layer.input[1] = view.weights.add(f"{layer.name}_weight", product)
    while len(layer.input) < 3:
        layer.input.append("")
    layer.input[2] = view.weights.add(f"{layer.name}_bias", added)
    return True


def _along(layer: onnx.NodeProto, weights: Array, factor: Array) -> Array:
    """Factors per output channel, shaped so that they multiply a layer's weights."""
    found = attributes(layer)
    if layer.op_type == "Gemm":
        return factor[:, None] if found.get("transB", 0) else factor
    spatial = (1,) * (weights.ndim - 2)
    if layer.op_type == "Conv":
        return factor.reshape(-1, 1, *spatial)
    groups = found.get("group", 1)  # ConvTranspose: [inside, outside / groups, ...]
    rows = np.repeat(factor.reshape(groups, -1), weights.shape[0] // groups, axis=0)
    return rows.reshape(*rows.shape, *spatial)


def _channels(view: View, layer: onnx.NodeProto) -> tuple[int, int] | None:
    """The rank of a layer's output and its number of channels, where its weights are constant."""
    weights = view.constant(layer, 1)
    if weights is None or (layer.op_type == "Gemm" and _is_scaled(layer)):
        return None
    found = attributes(layer)
    if layer.op_type == "Gemm":
        return 2, weights.shape[0 if found.get("transB", 0) else 1]
    if layer.op_type == "Conv":
        return weights.ndim, weights.shape[0]
    return weights.ndim, weights.shape[1] * int(found.get("group", 1))


def _is_scaled(layer: onnx.NodeProto) -> bool:
    found = attributes(layer)
    return any(found.get(key, 1.0) != 1.0 for key in ("alpha", "beta"))


def _per_channel(constant: Array | None, rank: int, channels: int) -> Array | None:
    """A constant as [channels] float64, if it is one number, or one for each index of axis 1.

    rank: of the tensor that it is combined with. A vector is along the last axis, which is axis 1
    where the rank is 2.
    """
    if constant is None or not is_real(constant) or constant.ndim > rank:
        return None
    axis = min(1, rank - 1)
    full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    if any(size != 1 for place, size in enumerate(full.shape) if place != axis):
        return None
    if full.size not in (1, channels):
        return None
    found: Array = np.broadcast_to(full.reshape(-1), (channels,)).astype(np.float64)
    return found


def _real(array: Array) -> Array:
    return array.astype(np.float32)
