"""Rewrites of ONNX graphs that several steps share; each keeps the outputs to the bit."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.onnxgraph.walk import attributes, bodies, graphs, output_names, taken_names

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"


class Weights:
    """A graph's initializers by name, as arrays, and the adding of new ones."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        # An initializer that is an input too is a default, which the caller may replace.
        self.constant = self.tensors.keys() - {value.name for value in graph.input}

    def get(self, name: str) -> Array | None:
        """The values of a constant initializer; None of all other tensors."""
        import onnx

        if name not in self.constant:
            return None
        array: Array = onnx.numpy_helper.to_array(self.tensors[name])
        return array

    def add(self, name: str, array: Array) -> str:
        """A new initializer; the name that it got, which is not taken yet."""
        import numpy as np
        import onnx

        unique, number = name, 1
        while unique in self.tensors:
            number += 1
            unique = f"{name}_{number}"
        self.graph.initializer.append(
            onnx.numpy_helper.from_array(np.ascontiguousarray(array), unique)
        )
        self.tensors[unique] = self.graph.initializer[-1]
        self.constant.add(unique)
        return unique


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Set the graph's nodes, and drop the initializers that nothing takes any more."""
    del graph.node[:]
    graph.node.extend(nodes)
    taken = {*taken_names(graph), *output_names(graph)}
    kept = [tensor for tensor in graph.initializer if tensor.name in taken]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that may be changed."""
    return type(model).FromString(model.SerializeToString())


def expose(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy with these tensors among its outputs, behind those that it has.

    They are declared without a type, which ONNX Runtime infers.
    """
    import onnx

    exposed = copy_model(model)
    outputs = set(output_names(model.graph))
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names
                                if name not in outputs)  # fmt: skip
    return exposed


def rename_uses(nodes: Iterable[onnx.NodeProto], names: Mapping[str, str]) -> None:
    """Let nodes, and the graphs inside them, take other tensors: by old name, the new one."""
    for node in nodes:
        for index, name in enumerate(node.input):
            if name in names:
                node.input[index] = names[name]
        for body in bodies(node):
            rename_uses(body.node, names)
            for value in body.output:  # a branch may give a tensor from outside as it is
                if value.name in names:
                    value.name = names[value.name]


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names wherever nodes make or take them, in subgraphs too.

    The graph's own inputs and outputs keep theirs.
    """
    rename_uses(graph.node, names)
    for inner in graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.output):
                if name in names:
                    node.output[index] = names[name]


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own."""
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
        while node.name in seen:
            node.name += "_"
        seen.add(node.name)


def in_order(graph: onnx.GraphProto) -> None:
    """Put the nodes in an order in which each comes after those whose outputs it takes."""
    makers = {name: number for number, node in enumerate(graph.node) for name in node.output}
    needs = [
        {makers[name] for name in (*node.input, *_taken_inside(node)) if name in makers}
        for node in graph.node
    ]
    followers: dict[int, list[int]] = {}
    for number, before in enumerate(needs):
        for producer in before:
            followers.setdefault(producer, []).append(number)
    ready = [number for number, before in enumerate(needs) if not before]
    heapq.heapify(ready)  # the earliest first: what was in order stays as it was
    ordered = []
    while ready:
        number = heapq.heappop(ready)
        ordered.append(graph.node[number])
        for follower in followers.get(number, ()):
            needs[follower].discard(number)
            if not needs[follower]:
                heapq.heappush(ready, follower)
    replace_nodes(graph, ordered)


def _taken_inside(node: onnx.NodeProto) -> Iterator[str]:
    """What the subgraphs of a node take, of their own and from outside."""
    for body in bodies(node):
        yield from taken_names(body)
        yield from output_names(body)


def settle_constants(graph: onnx.GraphProto) -> None:
    """Make constants initializers: Constant nodes, and Identity and Transpose of initializers.

    The TorchScript exporter writes weights that two layers share as Identity nodes, behind which a
    quantizer sees no weights.
    """
    weights = Weights(graph)
    outputs = set(output_names(graph))
    alias: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        rename_uses([node], alias)
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            weights.tensors[tensor.name] = tensor
            weights.constant.add(tensor.name)
            continue
        array = weights.get(node.input[0]) if node.input else None
        if array is not None and node.output[0] not in outputs:
            if node.op_type == "Identity":
                alias[node.output[0]] = node.input[0]
                continue
            if node.op_type == "Transpose":
                turned = array.transpose(attributes(node).get("perm"))
                alias[node.output[0]] = weights.add(node.output[0], turned)
                continue
        nodes.append(node)
    replace_nodes(graph, nodes)


def products_of_gemms(graph: onnx.GraphProto) -> None:
    """Write Gemm with constant weights as MatMul and Add, the form that fusions know.

    One with another alpha or beta than 1, or a transposed first factor, stays.
    """
    import onnx

    weights = Weights(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        options = attributes(node)
        matrix = weights.get(node.input[1]) if node.op_type == "Gemm" else None
        plain = all(options.get(key, 1.0) == 1.0 for key in ("alpha", "beta"))
        if matrix is None or not plain or options.get("transA", 0):
            nodes.append(node)
            continue
        name = node.input[1]
        if options.get("transB", 0):
            name = weights.add(f"{name}_transposed", matrix.T)
        biased = len(node.input) > 2 and node.input[2]
        product = f"{node.output[0]}_product" if biased else node.output[0]
        make = onnx.helper.make_node
        nodes.append(make("MatMul", [node.input[0], name], [product], f"{node.name}_MatMul"))
        if biased:
            nodes.append(
                make("Add", [product, node.input[2]], [node.output[0]], f"{node.name}_Add")
            )
    replace_nodes(graph, nodes)


def unshare(graph: onnx.GraphProto, own_inputs: dict[str, tuple[int, ...]]) -> int:
    """Give nodes weights of their own: by node name, the inputs that nobody else may take.

    onnxruntime before 1.32 quantizes an initializer that two nodes share to garbage (it transposes
    it twice), and one that two LSTMs share to a graph that does not load. Returns how many copies.
    """
    weights = Weights(graph)
    uses = Counter(taken_names(graph))
    copies = 0
    for node in graph.node:
        for index in own_inputs.get(node.name, ()):
            name = node.input[index]
            array = weights.get(name)
            if array is None or uses[name] < 2:
                continue
            uses[name] -= 1
            node.input[index] = weights.add(f"{name}_{node.name}", array)
            copies += 1
    return copies


def share(graph: onnx.GraphProto, least: int = 1024) -> None:
    """Make initializers of at least so many bytes that are equal to the bit one again."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alias: dict[str, str] = {}
    for name, tensor in Weights(graph).tensors.items():
        if not tensor.raw_data or len(tensor.raw_data) < least:
            continue
        key = tensor.data_type, tuple(tensor.dims), tensor.raw_data
        if first.setdefault(key, name) != name:
            alias[name] = first[key]
    outputs = set(output_names(graph))
    alias = {name: to for name, to in alias.items() if name not in outputs}
    rename_uses(graph.node, alias)
    replace_nodes(graph, list(graph.node))
