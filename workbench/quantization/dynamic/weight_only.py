"""INT8 weights that are computed with in float: embedding tables and GRUs, which have no kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import Array, Weights, replace_nodes

if TYPE_CHECKING:
    import onnx


def rows_to_int8(matrix: Array) -> tuple[Array, Array]:
    """A float matrix [N, K] as int8 [N, K] and scales [N]: symmetric, each row to its own range."""
    scales = np.abs(matrix).max(axis=1) / 127
    divisors = np.where(scales == 0, 1, scales)
    return np.round(matrix / divisors[:, None]).astype(np.int8), divisors.astype(np.float32)


def embeddings_to_int8(graph: onnx.GraphProto, least: int, exclude: tuple[str, ...]) -> list[int]:
    """Tables [N, K] of at least so many elements that Gather takes rows of, as INT8.

    A row and its scale are gathered, then multiplied: two small rows instead of a float one, each
    row with the whole range of eight bits. Returns the number of elements of every table.
    """
    from onnx import TensorProto
    from onnx.helper import get_attribute_value, make_node

    weights = Weights(graph)
    done: dict[str, tuple[str, str]] = {}
    nodes: list[onnx.NodeProto] = []
    found = []
    for node in graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)
        fits = table is not None and table.dtype == np.float32 and table.ndim == 2 and axis == 0
        if table is None or not fits or table.size < least or node.name in exclude:
            nodes.append(node)
            continue
        name = node.input[0]
        if name not in done:
            rows, scales = rows_to_int8(table)
            done[name] = (
                weights.add(f"{name}_int8", rows),
                weights.add(f"{name}_scale", scales[:, None]),
            )
            found.append(table.size)
        stored, scale = done[name]
        made, indices = node.output[0], node.input[1]
        nodes += [
            make_node("Gather", [stored, indices], [f"{made}_int8"], f"{node.name}_int8"),
            make_node("Gather", [scale, indices], [f"{made}_scale"], f"{node.name}_scale"),
            make_node("Cast", [f"{made}_int8"], [f"{made}_cast"], f"{node.name}_Cast",
                      to=TensorProto.FLOAT),
            make_node("Mul", [f"{made}_cast", f"{made}_scale"], [made], f"{node.name}_Mul"),
        ]  # fmt: skip
    replace_nodes(graph, nodes)
    return found


def grus_to_int8(graph: onnx.GraphProto, chosen: set[str]) -> int:
    """The two weights of the chosen GRU nodes as INT8, each row its scale, and DequantizeLinear.

    ONNX Runtime has no integer kernel for GRU: it computes in float. Returns how many elements.
    """
    from onnx.helper import make_node

    weights = Weights(graph)
    done: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    elements = 0
    for node in graph.node:
        for place in (1, 2) if node.name in chosen else ():
            name = node.input[place]
            if name not in done:
                array = weights.get(name)
                assert array is not None
                rows, scales = rows_to_int8(array.reshape(-1, array.shape[-1]))
                stored = [weights.add(f"{name}_int8", rows), weights.add(f"{name}_scale", scales)]
                shape = weights.add(f"{name}_shape", np.asarray(array.shape, np.int64))
                flat, done[name] = f"{name}_rows", f"{name}_float"
                nodes += [
                    make_node("DequantizeLinear", stored, [flat], f"{name}_dequantize", axis=0),
                    make_node("Reshape", [flat, shape], [done[name]], f"{name}_reshape"),
                ]
                elements += array.size
            node.input[place] = done[name]
        nodes.append(node)
    replace_nodes(graph, nodes)
    return elements
