"""An ONNX graph written as onnxruntime.transformers knows it: what exporters and onnxsim hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import Array, Weights, rename_uses, replace_nodes
from workbench.onnxgraph.shapes import infer_shapes
from workbench.onnxgraph.walk import bodies, consumers, output_names, producers

if TYPE_CHECKING:
    import onnx


def linear_layers(model: onnx.ModelProto) -> None:
    """Take away the Reshapes around MatMul with constant weights, which takes any rank itself.

    onnxsim writes a linear layer on [N, T, C] as a product of matrices between two Reshapes; there
    fusions do not see it. `products_of_gemms` comes first.
    """
    import onnx

    graph = model.graph
    if any(bodies(node) for node in graph.node):
        return  # what the ways of an If take from outside would have to be followed too
    shapes = infer_shapes(model)
    weights = Weights(graph)
    makers, takers = producers(graph.node), consumers(graph.node)
    outputs = output_names(graph)
    alias: dict[str, str] = {}
    before: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        flat = makers.get(node.input[0]) if node.op_type == "MatMul" else None
        matrix = weights.get(node.input[1]) if flat is not None else None
        if flat is None or flat.op_type != "Reshape" or matrix is None or matrix.ndim != 2:
            continue
        inside, outside = matrix.shape
        end = _with_bias(node, takers, weights)
        if end.output[0] in outputs or node.output[0] in outputs:
            continue
        targets = [_target(taker, weights) for taker in takers.get(end.output[0], [])]
        if not targets or any(target is None for target in targets):
            continue
        source = shapes.get(flat.input[0], ())
        if len(source) > 2 and source[-1] == inside:
            node.input[0] = flat.input[0]
            shape: tuple[int | None, ...] = (*source[:-1], outside)
        else:
            wide = [t for t in targets if t and len(t) == 3 and t[-1] == outside]
            if not wide:
                continue
            name = weights.add(f"{node.name}_shape", _int64(*wide[0][:-1], inside))
            moved = onnx.helper.make_node(
                "Reshape", [flat.input[0], name], [f"{node.name}_wide"], f"{node.name}_Reshape"
            )
            before.setdefault(node.name, []).append(moved)
            node.input[0] = moved.output[0]
            shape = tuple(None if size == -1 else size for size in wide[0])
        for taker, target in zip(takers[end.output[0]], targets, strict=True):
            if target and _same(target, shape) and taker.output[0] not in outputs:
                alias[taker.output[0]] = taker.input[0]
    nodes = []
    for node in graph.node:
        nodes += [*before.get(node.name, []), node]
    _drop(graph, nodes, alias)


def _with_bias(
    node: onnx.NodeProto, takers: dict[str, list[onnx.NodeProto]], weights: Weights
) -> onnx.NodeProto:
    """The Add of a constant vector that alone takes a product, else the product itself."""
    following = takers.get(node.output[0], [])
    if len(following) == 1 and following[0].op_type == "Add":
        other = [name for name in following[0].input if name != node.output[0]]
        bias = weights.get(other[0]) if other else None
        if bias is not None and bias.ndim <= 1:
            return following[0]
    return node


def _target(node: onnx.NodeProto, weights: Weights) -> tuple[int, ...] | None:
    """The constant shape that a Reshape gives, where it does not depend on its input's rank."""
    shape = weights.get(node.input[1]) if node.op_type == "Reshape" else None
    return None if shape is None or (shape == 0).any() else tuple(int(size) for size in shape)


def _same(target: tuple[int, ...], shape: tuple[int | None, ...]) -> bool:
    """Whether a Reshape to `target` leaves a tensor of that shape as it is; -1, None: unknown."""
    if len(target) != len(shape):
        return False
    open_ones = [(a, b) for a, b in zip(target, shape, strict=True) if a == -1 or b is None]
    fixed = all(a == b for a, b in zip(target, shape, strict=True) if a != -1 and b is not None)
    return fixed and (not open_ones or open_ones == [(-1, open_ones[0][1])])


def _drop(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], alias: dict[str, str]) -> None:
    """Set the nodes, those left out whose output has an alias; then those that nobody takes."""
    kept = [node for node in nodes if not (len(node.output) == 1 and node.output[0] in alias)]
    sources = {name: _source(name, alias) for name in alias}
    rename_uses(kept, sources)
    taken = {*output_names(graph), *(name for node in kept for name in node.input)}
    replace_nodes(graph, [node for node in kept if any(name in taken for name in node.output)])
    del graph.value_info[:]  # some have another rank now


def _source(name: str, alias: dict[str, str]) -> str:
    """The tensor that a chain of aliases ends in."""
    while name in alias:
        name = alias[name]
    return name


def single_unsqueezes(graph: onnx.GraphProto) -> None:
    """Write Unsqueeze of several axes as one a axis, the form that attention's mask is known by."""
    import onnx

    weights = Weights(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        axes = weights.get(node.input[1]) if node.op_type == "Unsqueeze" else None
        if axes is None or axes.size < 2 or (axes < 0).any():
            nodes.append(node)
            continue
        source = node.input[0]
        ordered = sorted(int(axis) for axis in axes)
        for number, axis in enumerate(ordered):
            last = number == len(ordered) - 1
            result = node.output[0] if last else f"{node.output[0]}_{number}"
            name = weights.add(f"{node.name}_axis", _int64(axis))
            nodes.append(
                onnx.helper.make_node(
                    "Unsqueeze", [source, name], [result], f"{node.name}_{number}"
                )
            )
            source = result
    replace_nodes(graph, nodes)


def _int64(*values: int) -> Array:
    return np.asarray(values, np.int64)


def split_norms(graph: onnx.GraphProto) -> int:
    """Write the Add in front of LayerNormalization as Sum; how many.

    ONNX Runtime would fuse the two into SkipLayerNormalization when it loads the file, whose CPU
    kernel works element by element: 0.22 ms for [128, 384], where Add and LayerNormalization take
    0.03. It does not know Sum.
    """
    takers = consumers(graph.node)
    norms = [
        node
        for node in graph.node
        if node.op_type == "Add"
        and any(taker.op_type == "LayerNormalization" for taker in takers.get(node.output[0], []))
    ]
    for node in norms:
        node.op_type = "Sum"
    return len(norms)
