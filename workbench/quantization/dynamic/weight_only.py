"""INT8 weights that are computed with in float: embedding tables and GRUs, which have no kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import Array, Weights, replace_nodes
from workbench.onnxgraph.walk import attributes
from workbench.quantization.dynamic.operators import WEIGHT_INPUTS

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
    from onnx.helper import make_node

    weights = Weights(graph)
    tables: dict[str, tuple[str, str]] = {}
    nodes: list[onnx.NodeProto] = []
    sizes = []
    for node in graph.node:
        table = weights.get(node.input[0]) if node.op_type == "Gather" else None
        axis = attributes(node).get("axis", 0)
        fits = table is not None and table.dtype == np.float32 and table.ndim == 2 and axis == 0
        if table is None or not fits or table.size < least or node.name in exclude:
            nodes.append(node)
            continue
        name = node.input[0]
        if name not in tables:
            rows, scales = rows_to_int8(table)
            tables[name] = (
                weights.add(f"{name}_int8", rows),
                weights.add(f"{name}_scale", scales[:, None]),
            )
            sizes.append(table.size)
        integers, scale = tables[name]
        output, indices = node.output[0], node.input[1]
        nodes += [
            make_node("Gather", [integers, indices], [f"{output}_int8"], f"{node.name}_int8"),
            make_node("Gather", [scale, indices], [f"{output}_scale"], f"{node.name}_scale"),
            make_node("Cast", [f"{output}_int8"], [f"{output}_cast"], f"{node.name}_Cast",
                      to=TensorProto.FLOAT),
            make_node("Mul", [f"{output}_cast", f"{output}_scale"], [output], f"{node.name}_Mul"),
        ]  # fmt: skip
    replace_nodes(graph, nodes)
    return sizes


def grus_to_int8(graph: onnx.GraphProto, names: set[str]) -> None:
    """The two weights of GRU nodes as INT8, each row its scale, and DequantizeLinear.

    ONNX Runtime has no integer kernel for GRU: it computes in float.
    """
    from onnx.helper import make_node

    weights = Weights(graph)
    floats: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for position in WEIGHT_INPUTS["GRU"] if node.name in names else ():
            name = node.input[position]
            if name not in floats:
                array = weights.get(name)
                assert array is not None
                rows, scales = rows_to_int8(array.reshape(-1, array.shape[-1]))
                stored = [weights.add(f"{name}_int8", rows), weights.add(f"{name}_scale", scales)]
                shape = weights.add(f"{name}_shape", np.asarray(array.shape, np.int64))
                flat, floats[name] = f"{name}_rows", f"{name}_float"
                nodes += [
                    make_node("DequantizeLinear", stored, [flat], f"{name}_dequantize", axis=0),
                    make_node("Reshape", [flat, shape], [floats[name]], f"{name}_reshape"),
                ]
            node.input[position] = floats[name]
        nodes.append(node)
    replace_nodes(graph, nodes)
