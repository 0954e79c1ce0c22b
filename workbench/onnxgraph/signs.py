"""What is known of the signs of a graph's tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

    from workbench.onnxgraph.rewrites import Weights

NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp")


def never_negative(node: onnx.NodeProto | None, weights: Weights) -> bool:
    """Whether what a node makes is known to hold no value below 0."""
    if node is None:
        return False
    if node.op_type == "Clip":
        least = weights.get(node.input[1]) if len(node.input) > 1 else None
        return least is not None and bool((least >= 0).all())
    return node.op_type in NEVER_NEGATIVE
