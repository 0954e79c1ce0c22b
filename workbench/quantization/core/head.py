"""What BakePreprocess put behind a classifier, off and on: quantization is planned on its logits.

Behind a Softmax errors of large logits hardly show, behind an ArgMax none has a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.onnxgraph.signature import BAKED

if TYPE_CHECKING:
    import onnx


def off(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """The model whose first output is what its head takes, and the head: none, and it is the same.

    The new output's shape is left open, but for its batch.
    """
    import onnx

    outputs = model.graph.output
    head = [
        node for node in model.graph.node
        if node.name.startswith(BAKED) and outputs and node.output[0] == outputs[0].name
    ]  # fmt: skip
    if not head:
        return model, []
    made = onnx.ModelProto()
    made.CopyFrom(model)
    kept = [node for node in made.graph.node if node != head[0]]
    del made.graph.node[:]
    made.graph.node.extend(kept)
    batch = next(iter(outputs[0].type.tensor_type.shape.dim), None)
    size = None if batch is None else batch.dim_value or batch.dim_param or None
    made.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(head[0].input[0], onnx.TensorProto.FLOAT, [size, None])
    )
    return made, head


def on(
    model: onnx.ModelProto, head: Sequence[onnx.NodeProto], original: onnx.ModelProto
) -> onnx.ModelProto:
    """The model with the head that `off` took off the original; it is changed in place."""
    if head:
        model.graph.node.extend(head)
        model.graph.output[0].CopyFrom(original.graph.output[0])
    return model
