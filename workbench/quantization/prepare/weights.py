"""Weights and biases that a node owns: the engine equalizes, rounds and corrects them by node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import unshare
from workbench.onnxgraph.view import CONVOLUTIONS, RewriteContext, View, is_real
from workbench.onnxgraph.walk import attributes
from workbench.quantization.prepare.node_rewrites import each_node

if TYPE_CHECKING:
    import onnx

# By operator, the inputs that are weights or a bias.
OWNED = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (1, 2), "MatMul": (1,)}


def copy_shared_weights(model: onnx.ModelProto, _context: RewriteContext) -> int:
    """Weights and biases that several nodes take, or a subgraph too, copied for each."""
    owned = {
        node.name: tuple(index for index in OWNED[node.op_type] if index < len(node.input))
        for node in model.graph.node
        if node.op_type in OWNED and not node.domain
    }
    return unshare(model.graph, owned)


@each_node
def add_zero_biases(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """A bias of zeros for each Conv, ConvTranspose and Gemm without one: it is to be corrected."""
    if node.op_type not in (*CONVOLUTIONS, "Gemm") or node.domain:
        return False
    weights = view.constant(node, 1)
    if (len(node.input) > 2 and node.input[2]) or not is_real(weights):
        return False
    set_bias(view, node, np.zeros(output_channels(node, weights), np.float32))
    return True


def set_bias(view: View, node: onnx.NodeProto, bias: np.ndarray) -> None:
    """Give a layer a bias [channels] of its own."""
    while len(node.input) < 3:
        node.input.append("")
    node.input[2] = view.weights.add(f"{node.name}_bias", bias)


def output_channels(node: onnx.NodeProto, weights: np.ndarray) -> int:
    """How many channels a Conv, ConvTranspose or Gemm with these weights gives."""
    if node.op_type == "Gemm":
        return int(weights.shape[0 if attributes(node).get("transB", 0) else 1])
    if node.op_type == "Conv":
        return int(weights.shape[0])
    return int(weights.shape[1] * attributes(node).get("group", 1))
