"""What BakePreprocess put behind a classifier, off and on: quantization is planned on its logits.

Behind a Softmax errors of large logits hardly show, behind an ArgMax none has a gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.onnxgraph.signature import BAKED

if TYPE_CHECKING:
    import onnx


def detach_head(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.NodeProto | None]:
    """The model whose first output is what its head takes, and the head: None, and it is the same.

    The new output's shape is left open, but for its batch.
    """
    import onnx

    output = next(iter(model.graph.output), None)
    position, head = next(
        (
            (position, node)
            for position, node in enumerate(model.graph.node)
            if output is not None and node.name.startswith(BAKED) and node.output[0] == output.name
        ),
        (0, None),
    )
    if head is None or output is None:
        return model, None
    headless = onnx.ModelProto()
    headless.CopyFrom(model)
    del headless.graph.node[position]
    batch = next(iter(output.type.tensor_type.shape.dim), None)
    size = None if batch is None else batch.dim_value or batch.dim_param or None
    headless.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info(head.input[0], onnx.TensorProto.FLOAT, [size, None])
    )
    return headless, head


def attach_head(
    model: onnx.ModelProto, head: onnx.NodeProto | None, original: onnx.ModelProto
) -> onnx.ModelProto:
    """The model with the head that `detach_head` took off the original; it is changed in place."""
    if head is not None:
        model.graph.node.append(head)
        model.graph.output[0].CopyFrom(original.graph.output[0])
    return model
