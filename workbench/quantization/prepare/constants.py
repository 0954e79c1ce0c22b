"""Rewrites of what a graph does not compute: names, constants, operators that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import StepError, first_line
from workbench.onnxgraph import signature as graphs
from workbench.onnxgraph.rewrites import name_nodes, settle_constants
from workbench.onnxgraph.view import RewriteContext, View
from workbench.onnxgraph.walk import attributes, bodies, inputs
from workbench.quantization.prepare.node_rewrites import each_node

if TYPE_CHECKING:
    import onnx

# The least opset whose QuantizeLinear has an axis, for weights per channel.
PER_CHANNEL_OPSET = 13
# The least file version in which an initializer need not be an input too, and an opset-13 file's.
FILE_VERSION = 7


def raise_opset(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The model at opset 13 or higher, and a note where it had to be raised.

    Raises StepError where onnx's converter cannot raise it.
    """
    import onnx

    before = graphs.opset(model)
    if before >= PER_CHANNEL_OPSET:
        return model, ""
    try:
        raised = onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)
        raised.ir_version = max(raised.ir_version, FILE_VERSION)
        onnx.checker.check_model(raised, full_check=True)
    except Exception as error:
        raise StepError(
            f"the model has opset {before}, and cannot be raised to {PER_CHANNEL_OPSET}",
            f"INT8 weights with a scale for each channel need it; {first_line(error)}",
            f"export the model anew at opset {PER_CHANNEL_OPSET} or higher",
        ) from error
    return raised, f"opset raised from {before} to {PER_CHANNEL_OPSET}"


def remove_default_inputs(model: onnx.ModelProto, _context: RewriteContext) -> int:
    """Initializers that are inputs too made constants: nobody gives weights anew at run time."""
    values = inputs(model.graph)
    count = len(model.graph.input) - len(values)
    if count:
        del model.graph.input[:]
        model.graph.input.extend(values)
        model.ir_version = max(model.ir_version, FILE_VERSION)
    return count


def name_all_nodes(model: onnx.ModelProto, _context: RewriteContext) -> int:
    """Every node named, each otherwise."""
    before = [node.name for node in model.graph.node]
    name_nodes(model.graph)
    return sum(old != node.name for old, node in zip(before, model.graph.node, strict=True))


def fold_constants(model: onnx.ModelProto, _context: RewriteContext) -> int:
    """Constant nodes, and Identity and Transpose of constants, as initializers."""
    import onnx

    kinds: dict[str, Any] = {
        "value_float": np.float32, "value_floats": np.float32,
        "value_int": np.int64, "value_ints": np.int64,
    }  # fmt: skip
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name in kinds:
            kind = node.attribute[0].name
            value = onnx.helper.get_attribute_value(node.attribute[0])
            tensor = onnx.numpy_helper.from_array(np.array(value, kinds[kind]), node.output[0])
            node.attribute[0].CopyFrom(onnx.helper.make_attribute("value", tensor))
    before = len(model.graph.node)
    settle_constants(model.graph)
    return before - len(model.graph.node)


@each_node
def remove_identities(view: View, node: onnx.NodeProto, _context: RewriteContext) -> bool:
    """Identity, and Dropout as it is at inference, left out."""
    return _changes_nothing(view, node) and bypass(view, node)


def bypass(view: View, node: onnx.NodeProto) -> bool:
    """Take a node out whose output is its first input; False where both names have to stay."""
    source, output = node.input[0], node.output[0]
    if output not in view.kept:
        _reroute_takers(view, output, source)
        view.drop(node)
        return True
    maker = view.makers.get(source)
    if maker is None or source in view.kept or any(map(bodies, view.nodes)):
        return False
    # The graph's output is made by the node before, and taken by that name by the others.
    view.drop(node)
    _reroute_takers(view, source, output)
    for index, name in enumerate(maker.output):
        if name == source:
            maker.output[index] = output
    view.makers[output] = maker
    return True


def _reroute_takers(view: View, old: str, new: str) -> None:
    """Let all that take a tensor take another."""
    for taker in list(view.takers.get(old, [])):
        for index, name in enumerate(taker.input):
            if name == old:
                view.reroute(taker, index, new)


def _changes_nothing(view: View, node: onnx.NodeProto) -> bool:
    if node.domain:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        training = view.constant(node, 2) if len(node.input) > 2 and node.input[2] else False
        masked = len(node.output) > 1 and (
            node.output[1] in view.kept or view.takers.get(node.output[1])
        )
        return training is not None and not np.any(training) and not masked
    if node.op_type == "Transpose":
        order = attributes(node).get("perm")
        return order is not None and order == sorted(order)
    return False
