"""Rewrites of an ONNX graph for onnx2tf and TFLite's quantizer: the same function, said otherwise.

Each takes the model, whose inputs have fixed shapes, and real inputs; it gives the model and a note
for the user, '' where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.ort_tools import tool
from workbench.onnxgraph.rewrites import Weights, copy_model, replace_nodes, settle_constants
from workbench.onnxgraph.shapes import known_shapes
from workbench.onnxgraph.walk import attributes, consumers, output_names, producers
from workbench.tflite.unrolled_rnn import Builder

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Rewritten = tuple["onnx.ModelProto", str]

# The least SQNR between a rewritten graph and the file: rounding, in float32.
LEAST = 90.0

# The axes of ReduceMean are an input from here on.
AXES_INPUT_OPSET = 18


def fixed_shapes(model: onnx.ModelProto, inputs: Inputs) -> Rewritten:
    """Every axis of the inputs a number: a batch of 1, the others as the samples have them."""
    opened = [
        f"{value.name} fixed at {'x'.join(map(str, [1, *inputs[value.name].shape[1:]]))}"
        for value in model.graph.input
        if value.name in inputs
        and not all(axis.dim_value for axis in value.type.tensor_type.shape.dim[1:])
    ]
    import onnx

    utils = tool("onnx_model_utils")
    for name, array in inputs.items():
        utils.make_input_shape_fixed(model.graph, name, [1, *array.shape[1:]])
    utils.fix_output_shapes(model)
    # It leaves outputs that a file declares without any shape, with which onnxsim fails.
    inferred_model = onnx.shape_inference.infer_shapes(model)
    for value, inferred in zip(model.graph.output, inferred_model.graph.output, strict=True):
        if not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(inferred)
    return model, ", ".join(opened)


def simplified(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """What fixed shapes make constant folded: masks' Expand and Where, shape arithmetic."""
    import onnxsim

    return onnxsim.simplify(model)[0], ""


def settled(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """Every constant an initializer, so that the rewrites after this one look in one place."""
    settle_constants(model.graph)
    return model, ""


def products(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """Division by a constant as multiplication: onnx2tf fails at some of the former."""
    weights = Weights(model.graph)
    for node in model.graph.node:
        divisor = weights.get(node.input[1]) if node.op_type == "Div" else None
        if divisor is not None and divisor.dtype == np.float32 and (divisor != 0).all():
            node.op_type = "Mul"
            node.input[1] = weights.add(f"{node.input[1]}_reciprocal", 1 / divisor)
    return model, ""


def embeddings(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """Gather from a table, by ids that are computed or given, as GatherND: for 16-bit files alone.

    onnx2tf writes Gather with a sum of integers, for negative ids, over which TensorFlow's 16-bit
    quantizer stumbles. For GatherND it is a remainder, but the table is not stored in 8 bits then.
    """
    weights = Weights(model.graph)
    shapes = known_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Gather" and not attributes(node).get("axis"):
            table, ids = node.input
            constant = weights.get(table) is not None and weights.get(ids) is None
            if constant and shapes.get(ids):
                shape = weights.add(f"{node.output[0]}_ids", np.array([*shapes[ids], 1], np.int64))
                places = f"{node.output[0]}_places"
                nodes.append(_node("Reshape", [ids, shape], places, places))
                node.CopyFrom(_node("GatherND", [table, places], node.output[0], node.name))
        nodes.append(node)
    replace_nodes(model.graph, nodes)
    return model, ""


def layer_norms(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """LayerNormalization as (x - mean) / sqrt(variance + epsilon), scaled and shifted.

    onnx2tf's is over one axis alone, and its shift, where it is zeros, crashes 16-bit files.
    """
    from workbench.onnxgraph import signature

    opset = signature.opset(model)
    ranks = {name: len(shape) for name, shape in known_shapes(model).items()}
    weights = Weights(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        source = node.input[0] if node.input else ""
        if node.op_type != "LayerNormalization" or source not in ranks or len(node.output) > 1:
            nodes.append(node)
            continue
        options = attributes(node)
        axes = np.arange(options.get("axis", -1) % ranks[source], ranks[source])
        build = Builder(f"{node.output[0]}_norm")

        def mean(value: str, build: Builder = build, axes: Array = axes) -> str:
            if opset < AXES_INPUT_OPSET:
                return build("ReduceMean", value, axes=axes.tolist())
            return build("ReduceMean", value, build.constant(axes))

        centred = build("Sub", source, mean(source))
        epsilon = build.constant(np.array([options.get("epsilon", 1e-5)], np.float32))
        variance = build("Add", mean(build("Mul", centred, centred)), epsilon)
        value = build("Div", centred, build("Sqrt", variance))
        for op, name, idle in zip(("Mul", "Add"), node.input[1:], (1, 0), strict=False):
            constant = weights.get(name) if name else None
            if name and (constant is None or (constant != idle).any()):
                value = build(op, value, name)
        build.nodes.append(_node("Identity", [value], node.output[0], node.name))
        nodes += build.nodes
        model.graph.initializer.extend(build.constants)
    replace_nodes(model.graph, nodes)
    return model, ""


def write_prelu(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """PRelu as r + slope * (x - r) with r = relu(x): onnx2tf confuses its slopes' axes at times."""
    ranks = {name: len(shape) for name, shape in known_shapes(model).items()}
    weights = Weights(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        slope = weights.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or node.input[0] not in ranks:
            nodes.append(node)
            continue
        build = Builder(f"{node.output[0]}_prelu")
        full = slope.reshape((1,) * (ranks[node.input[0]] - slope.ndim) + slope.shape)
        above = build("Relu", node.input[0])
        below = build("Mul", build("Sub", node.input[0], above), build.constant(full))
        nodes += [*build.nodes, _node("Add", [above, below], node.output[0], node.name)]
        model.graph.initializer.extend(build.constants)
    replace_nodes(model.graph, nodes)
    return model, ""


def counts_apart(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """TopK's count behind an Identity: onnx2tf fails at it as a constant. Nothing may fold it."""
    weights = Weights(model.graph)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "TopK" and weights.get(node.input[1]) is not None:
            apart = f"{node.output[0]}_count"
            nodes.append(_node("Identity", [node.input[1]], apart, apart))
            node.input[1] = apart
        nodes.append(node)
    replace_nodes(model.graph, nodes)
    return model, ""


def tokens(model: onnx.ModelProto, _inputs: Inputs) -> Rewritten:
    """An image as tokens by Transpose and Reshape, not by Reshape and Transpose.

    [N, C, H, W] as [N, H·W, C]: onnx2tf, whose images are channels last, need not move anything
    then, and cannot confuse C with H·W where they are equal.
    """
    shapes = known_shapes(model)
    weights = Weights(model.graph)
    makers = producers(model.graph.node)
    takers = consumers(model.graph.node)
    results = output_names(model.graph)
    for node in model.graph.node:
        reshape = makers.get(node.input[0]) if node.op_type == "Transpose" else None
        if reshape is None or reshape.op_type != "Reshape":
            continue
        middle = reshape.output[0]
        image, flat = shapes.get(reshape.input[0], []), shapes.get(middle, [])
        alone = len(takers[middle]) == 1 and middle not in results
        if (
            alone
            and len(image) > 3
            and len(flat) == 3
            and flat[:2] == image[:2]
            and attributes(node).get("perm") == [0, 2, 1]
        ):
            source, result = reshape.input[0], node.output[0]
            order = [0, *range(2, len(image)), 1]
            shape = weights.add(f"{result}_shape", np.array([flat[0], flat[2], flat[1]], np.int64))
            reshape.CopyFrom(_node("Transpose", [source], middle, reshape.name, perm=order))
            node.CopyFrom(_node("Reshape", [middle, shape], result, node.name))
    del model.graph.value_info[:]  # of the tensor between the two, another shape now
    return model, ""


def expose_floats(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with every operator's float results as its outputs, and the operators in order."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    copy = copy_model(model)
    del copy.graph.output[:]
    places = []
    for node in model.graph.node:
        for name in node.output:
            value = values.get(name)
            if value is not None and value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                copy.graph.output.append(value)
                places.append(f"{node.op_type} ({node.name})")
    return copy, places


def _node(op: str, inputs: list[str], output: str, name: str, **more: Any) -> onnx.NodeProto:
    import onnx

    return onnx.helper.make_node(op, inputs, [output], name, **more)
