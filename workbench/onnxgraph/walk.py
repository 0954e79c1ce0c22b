"""Walking an ONNX graph: the graphs inside it, what it stores, what must be fed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node holds: branches and bodies of control flow."""
    found = [one.g for one in node.attribute if one.HasField("g")]
    return found + [body for one in node.attribute for body in one.graphs]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its nodes, at every depth."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """What a graph stores, by name: initializers and the tensors of Constant nodes."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    found |= {sparse.values.name: sparse.values for sparse in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    found[node.output[0]] = attribute.t
    return found


def inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """What must be fed: weights may be listed among a graph's inputs too."""
    stored = constants(graph)
    return [value for value in graph.input if value.name not in stored]


def sizes(shape: onnx.TensorShapeProto) -> tuple[int | None, ...]:
    """A declared shape; None is an open axis."""
    return tuple(
        axis.dim_value if axis.HasField("dim_value") and axis.dim_value >= 0 else None
        for axis in shape.dim
    )


def dtype(kind: int) -> str:
    """numpy's name for an ONNX data type."""
    import onnx

    try:
        name = str(onnx.TensorProto.DataType.Name(kind)).lower()
    except ValueError:
        return "unknown"
    return {"float": "float32", "double": "float64", "undefined": "unknown"}.get(name, name)


def readable(model: onnx.ModelProto) -> bool:
    """Whether every name is text: protobuf's reader gives bytes for one that is not UTF-8."""

    def names() -> Iterator[object]:
        for one in model.opset_import:
            yield one.domain
        functions = [node for function in model.functions for node in function.node]
        for graph in graphs(model.graph):
            for value in (*graph.input, *graph.output, *graph.value_info):
                yield value.name
                yield from (axis.dim_param for axis in value.type.tensor_type.shape.dim)
            for tensor in graph.initializer:
                yield tensor.name
                yield from (text for one in tensor.external_data for text in (one.key, one.value))
            for node in (*graph.node, *functions):
                yield from (node.op_type, node.domain, *node.input, *node.output)
                yield from (attribute.name for attribute in node.attribute)

    return all(isinstance(name, str) for name in names())
