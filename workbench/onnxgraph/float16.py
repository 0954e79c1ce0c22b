"""What of an ONNX graph does not fit float16's range, and the graph's conversions between types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.arrays import split_samples
from workbench.artifact import Artifact, stored_inputs
from workbench.errors import DeviceError, first_line
from workbench.onnxgraph import rewrites, walk
from workbench.onnxgraph.rewrites import Array, Weights
from workbench.onnxgraph.session import working_session

if TYPE_CHECKING:
    import onnx

LARGEST = float(np.finfo(np.float16).max)  # 65504
# Values of other samples than these may be larger: a factor of two for them.
SAFE = LARGEST / 2
# Larger ones are fillers, such as the -3.4e38 that masks attention: those may be clipped.
FILLER = 1e30


def large_weights(graph: onnx.GraphProto) -> tuple[set[str], list[float]]:
    """Weights with elements beyond float16's range, by name; and the single numbers among them.

    Single numbers are fillers or bounds, which do the same when they are clipped to the range.
    """
    import onnx

    names, numbers = set(), []
    for inner in walk.graphs(graph):
        for tensor in inner.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(tensor)
                largest = _largest(array, np.inf)
                if largest > LARGEST and array.size > 1:
                    names.add(tensor.name)
                elif largest > LARGEST:
                    numbers.append(float(array.reshape(-1)[0]))
    return names, numbers


def large_values(
    model: onnx.ModelProto, subject: Artifact, folder: Path, examples: Mapping[str, Array]
) -> set[str]:
    """The values of the main graph that come near the end of float16's range, by name.

    Found by running the float model, a file of `subject`'s signature, on each example with every
    value kept: a runtime that computes in float32 and converts, as on x86, does not show what
    overflows on a processor that does not.
    """
    import onnx

    inside = walk.computed_names(model.graph)
    path = folder / "values.onnx"
    onnx.save(rewrites.expose(model, inside), path)
    try:
        session = working_session(path)
    except Exception as error:
        raise DeviceError(
            f"ONNX Runtime cannot load {path.name}", f"{type(error).__name__}: {first_line(error)}"
        ) from error
    large = {name for name, array in examples.items() if _largest(array) > SAFE}
    for sample in split_samples(examples):
        values = session.run(inside, stored_inputs(subject.inputs, sample))
        for name, value in zip(inside, values, strict=True):
            if isinstance(value, np.ndarray) and _largest(value) > SAFE:
                large.add(name)
    path.unlink()
    return large


def _largest(array: Array, bound: float = FILLER) -> float:
    """The largest magnitude below a bound in an array of floats; 0 of other types."""
    if array.dtype.kind != "f":
        return 0.0
    sizes = np.abs(array)
    return float(sizes[sizes < bound].max(initial=0.0))


def around(graph: onnx.GraphProto, values: set[str]) -> list[onnx.NodeProto]:
    """The nodes that make or take one of the values or weights."""
    return [
        node
        for inner in walk.graphs(graph)
        for node in inner.node
        if values.intersection((*node.input, *node.output))
    ]


def join_conversions(graph: onnx.GraphProto) -> None:
    """Take out float32 to float16 and back between nodes that both stay in float32.

    The converter writes the pair around each of them, and a large value would not come through.
    """
    from onnx import TensorProto

    def target(node: onnx.NodeProto) -> int:
        return int(walk.attributes(node)["to"]) if node.op_type == "Cast" else 0

    makers = walk.producers(graph.node)
    outputs = walk.output_names(graph)
    alias: dict[str, str] = {}
    for node in graph.node:
        before = makers.get(node.input[0]) if target(node) == TensorProto.FLOAT else None
        if before is None or target(before) != TensorProto.FLOAT16 or not _is_float(graph, before):
            continue
        if node.output[0] in outputs:
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]
        else:
            alias[node.output[0]] = before.input[0]
    rewrites.rename_uses(graph.node, alias)
    taken = {*walk.taken_names(graph), *outputs}
    kept = [n for n in graph.node if n.op_type != "Cast" or n.output[0] in taken]
    rewrites.replace_nodes(graph, kept)
    rewrites.in_order(graph)  # the converter puts its own at the end


def _is_float(graph: onnx.GraphProto, cast: onnx.NodeProto) -> bool:
    """Whether what a Cast takes is float32: only then does the way back lead to the same type."""
    from onnx import TensorProto

    name = cast.input[0]
    values = (*graph.value_info, *graph.input)
    types = [value.type.tensor_type.elem_type for value in values if value.name == name]
    types += [t.data_type for n, t in Weights(graph).tensors.items() if n == name]
    return TensorProto.FLOAT in types
