"""The shapes of a graph's tensors, as far as onnx can infer them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from workbench.onnxgraph import walk

if TYPE_CHECKING:
    import onnx

LARGE = 1 << 12  # elements of a tensor whose values no shape hangs on


def infer_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Shapes by tensor, of those whose rank is known; an axis that may vary is None."""
    graph = _infer(model)
    shapes: dict[str, tuple[int | None, ...]] = {
        tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer
    }
    for value in (*graph.value_info, *graph.output, *graph.input):
        tensor_type = value.type.tensor_type
        if tensor_type.HasField("shape"):
            shapes[value.name] = walk.sizes(tensor_type.shape)
    return shapes


def known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Shapes by tensor, of those whose every axis is known and above 0."""
    return {
        name: [size for size in shape if size]
        for name, shape in infer_shapes(model).items()
        if all(shape)
    }


def infer_values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What onnx's shape inference says of the tensors between a graph's inputs and outputs."""
    return list(_infer(model).value_info)


def _infer(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with inferred shapes, and without large weights.

    These are left out of what onnx is given, for it copies all that it gets.
    """
    import onnx

    reduced = type(model)(ir_version=model.ir_version, opset_import=model.opset_import)
    reduced.functions.extend(model.functions)
    reduced.graph.name = model.graph.name
    reduced.graph.node.extend(model.graph.node)
    reduced.graph.input.extend(model.graph.input)
    reduced.graph.output.extend(model.graph.output)
    declared = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < LARGE:
            reduced.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            reduced.graph.input.append(value)
    return onnx.shape_inference.infer_shapes(reduced, data_prop=True).graph
