"""Control flow as data flow: If nodes for converters and quantizers that do not have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import StepError
from workbench.onnxgraph.rewrites import rename_tensors
from workbench.onnxgraph.shapes import known_shapes
from workbench.onnxgraph.walk import graphs
from workbench.tflite.lowering import Inputs, Rewritten

if TYPE_CHECKING:
    import onnx


def both_branches(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """Each If as its two branches, both computed, and a Where that takes one of the results.

    TFLite's own IF is not quantized, and onnx2tf converts it only where its branches hold their
    constants. Raises StepError where the branches give different shapes, which no Where can take.
    """
    import onnx

    count = 0
    while any(node.op_type == "If" for node in model.graph.node):
        nodes: list[onnx.NodeProto] = []
        chosen: list[tuple[str, str, str]] = []
        for node in model.graph.node:
            if node.op_type != "If":
                nodes.append(node)
                continue
            count += 1
            results = []
            for attribute in sorted(node.attribute, key=lambda branch: branch.name, reverse=True):
                branch = _rename(attribute.g, f"{node.output[0]}_{attribute.name}_")
                model.graph.initializer.extend(branch.initializer)
                nodes += branch.node
                results.append([value.name for value in branch.output])
            for output, then, otherwise in zip(node.output, *results, strict=True):
                chosen.append((node.name, then, otherwise))
                nodes.append(
                    onnx.helper.make_node("Where", [node.input[0], then, otherwise], [output])
                )
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        _check_shapes(model, chosen)
    note = f"both branches of {count} If computed, one result taken" if count else ""
    return model, note


def _rename(graph: onnx.GraphProto, prefix: str) -> onnx.GraphProto:
    """A branch with names of its own; those from outside stay."""
    import onnx

    copy = onnx.GraphProto()
    copy.CopyFrom(graph)
    own = [tensor.name for tensor in copy.initializer]
    own += [name for node in copy.node for name in node.output if name]
    rename_tensors(copy, {name: prefix + name for name in own})
    for inner in graphs(copy):
        for node in inner.node:
            node.name = prefix + node.name
    for value in (*copy.initializer, *copy.output):
        value.name = prefix + value.name
    return copy


def _check_shapes(model: onnx.ModelProto, chosen: list[tuple[str, str, str]]) -> None:
    shapes = known_shapes(model)
    for node, then, otherwise in chosen:
        if then not in shapes or shapes[then] != shapes.get(otherwise):
            raise StepError(
                f"operator If ({node}) has branches whose results differ in shape",
                f"{shapes.get(then, 'unknown')} and {shapes.get(otherwise, 'unknown')}",
                "TFLite files here have fixed shapes; the branches for ONNX Runtime take it",
            )
