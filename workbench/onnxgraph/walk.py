"""Reading an ONNX graph: the graphs inside it, who makes and takes its tensors, what it stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs that a node holds: branches and bodies of control flow."""
    single = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return single + [body for attribute in node.attribute for body in attribute.graphs]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and the bodies of its nodes, at every depth."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def producers(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    """Which of the nodes makes each tensor, by the tensor's name."""
    return {name: node for node in nodes for name in node.output if name}


def consumers(nodes: Iterable[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    """Which of the nodes take each tensor, by its name: once for each taking."""
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            if name:
                takers.setdefault(name, []).append(node)
    return takers


def taken_names(graph: onnx.GraphProto) -> Iterator[str]:
    """The name of every tensor that a node takes, once for each taking; subgraphs' too."""
    for inner in graphs(graph):
        for node in inner.node:
            yield from node.input
        if inner is not graph:  # a way of an If may give an outer tensor unchanged
            yield from output_names(inner)


def output_names(graph: onnx.GraphProto) -> list[str]:
    """The names of the graph's outputs, in their order."""
    return [value.name for value in graph.output]


def computed_names(graph: onnx.GraphProto) -> list[str]:
    """The names of what the graph's own nodes make, in order of computation in a valid file."""
    return [name for node in graph.node for name in node.output if name]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name, as Python values."""
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def operators(graph: onnx.GraphProto) -> Counter[str]:
    """How many nodes of each operator there are, subgraphs' too; `com.microsoft:Attention`."""
    return Counter(
        f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for inner in graphs(graph)
        for node in inner.node
        if node.op_type != "Constant"
    )


def describe_counts(counts: Counter[str]) -> str:
    """`12 Conv, 3 Relu`, the most frequent first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """What a graph stores, by name: initializers and the tensors of Constant nodes."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    stored |= {sparse.values.name: sparse.values for sparse in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    stored[node.output[0]] = attribute.t
    return stored


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
        for opset in model.opset_import:
            yield opset.domain
        functions = [node for function in model.functions for node in function.node]
        for graph in graphs(model.graph):
            for value in (*graph.input, *graph.output, *graph.value_info):
                yield value.name
                yield from (axis.dim_param for axis in value.type.tensor_type.shape.dim)
            for tensor in graph.initializer:
                yield tensor.name
                for item in tensor.external_data:
                    yield from (item.key, item.value)
            for node in (*graph.node, *functions):
                yield from (node.op_type, node.domain, *node.input, *node.output)
                yield from (attribute.name for attribute in node.attribute)

    return all(isinstance(name, str) for name in names())
