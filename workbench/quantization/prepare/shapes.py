"""Shape arithmetic as constants: what Shape, Gather, Concat ... compute for Reshape and others.

Two runs, at batches of different sizes, tell what hangs on the batch. Only tensors that are made
from constants and from shapes alone are looked at, and no shape that hangs on values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workbench.arrays import batch_size
from workbench.onnxgraph.view import Array, RewriteContext, View, set_attribute
from workbench.onnxgraph.walk import attributes
from workbench.quantization.prepare.graph_runs import run_graph

if TYPE_CHECKING:
    import onnx

# Of a node's input and output, for each batch.
Shapes = list[tuple[tuple[int, ...], tuple[int, ...]]]

# Operators whose results' shapes hang on values, and those whose shapes do so through an input.
BY_VALUES = (
    "NonZero", "Unique", "NonMaxSuppression", "Compress", "If", "Loop", "Scan", "SequenceAt",
    "ConcatFromSequence", "StringSplit", "Optional", "OptionalGetElement",
)  # fmt: skip
BY_INPUTS = (
    "Reshape", "Expand", "Slice", "Tile", "ConstantOfShape", "Range", "TopK", "OneHot", "Resize",
    "Upsample", "Pad", "Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin",
    "ReduceProd", "Split", "CenterCropPad", "AffineGrid",
)  # fmt: skip
SIZED = ("Reshape", "Resize")  # their last input is the shape, or the sizes, that they give
MOST = 1 << 20  # elements of a constant that is worth storing


def fold_shape_arithmetic(model: onnx.ModelProto, context: RewriteContext) -> int:
    """Tensors that are made from shapes alone as constants, or 0 and -1 in a Reshape's target.

    Another list of sizes that has the batch among them is written as one Concat. What hangs on the
    batch in another way stays, and where another axis than the batch is open, every Shape does.
    """
    view = View(model)
    derived = _derived_tensors(view, shapes=not _has_open_axes(model))
    targets = [
        node for node in view.nodes
        if not node.domain and node.op_type in SIZED and node.input[-1] in derived
    ]  # fmt: skip
    names = sorted(derived | {n.input[0] for n in targets} | {n.output[0] for n in targets})
    if not derived:
        return 0
    runs = [
        dict(zip(names, arrays, strict=True)) for arrays in run_graph(model, context.batches, names)
    ]
    values = {name: [run[name] for run in runs] for name in names}
    settled = {name for name in derived if _is_constant(values[name])}
    settled |= {
        name for name in derived - settled if _is_list_of_sizes(view, name, values[name], context)
    }
    changed: list[str] = []
    for node in targets:
        shapes = [(run[node.input[0]].shape, run[node.output[0]].shape) for run in runs]
        settle = _settle_reshape if node.op_type == "Reshape" else _settle_resize
        if node.output[0] not in settled and settle(view, node, shapes):
            changed.append(node.name)
    for name in sorted(settled):
        takers = [taker for taker in view.takers.get(name, [])
                  if any(output not in settled for output in taker.output)]  # fmt: skip
        if not takers:
            continue
        constant = _write_value(view, name, values[name], context)
        for taker in takers:
            for index, taken in enumerate(taker.input):
                if taken == name:
                    view.reroute(taker, index, constant)
                    changed.append(taker.name)
    view.write_if(len(changed))
    left = {node.name for node in model.graph.node}  # some took part in what nobody takes now
    return sum(name in left for name in changed)


def _has_open_axes(model: onnx.ModelProto) -> bool:
    """Whether an input takes other sizes along another axis than the batch's."""
    return any(
        not axis.HasField("dim_value") or axis.dim_value < 1
        for value in model.graph.input
        for axis in value.type.tensor_type.shape.dim[1:]
    )


def _derived_tensors(view: View, *, shapes: bool) -> set[str]:
    """Tensors that are made of constants and, with `shapes`, of shapes that hang on no values."""
    derived: set[str] = set()
    by_values: set[str] = set()
    for node in view.nodes:
        inputs = [name for name in node.input if name]
        computed = [name for name in inputs if name not in view.weights.constant]
        outputs = [name for name in node.output if name]
        if node.op_type in BY_VALUES or node.domain or any(name in by_values for name in inputs):
            by_values |= set(outputs)
        elif node.op_type.startswith(("Random", "Bernoulli", "Multinomial")):
            continue
        elif node.op_type in ("Shape", "Size"):
            derived |= set(outputs) if shapes else set()
        elif inputs and all(name in derived for name in computed):
            derived |= set(outputs)
        elif node.op_type in BY_INPUTS and any(
            name not in derived and name not in view.weights.constant
            for name in (inputs if node.op_type in ("ConstantOfShape", "Range") else inputs[1:])
        ):
            by_values |= set(outputs)
    return derived


def _is_constant(values: list[Array]) -> bool:
    first = values[0]
    return first.size <= MOST and all(
        value.dtype == first.dtype and np.array_equal(value, first) for value in values
    )


def _is_list_of_sizes(view: View, name: str, values: list[Array], context: RewriteContext) -> bool:
    """Whether a tensor is a list of sizes that are the batch's or the same for all batches."""
    if any(value.shape != values[0].shape or value.dtype != np.int64 for value in values):
        return False
    if values[0].ndim != 1 or view.maker(name, "Concat", "Shape", "Gather") is not None:
        return False  # as short as it can be, or nearly
    counts = [batch_size(batch) for batch in context.batches]
    return all(
        len(set(sizes)) == 1 or list(sizes) == counts
        for sizes in zip(*(value.tolist() for value in values), strict=True)
    )


def _write_value(view: View, name: str, values: list[Array], context: RewriteContext) -> str:
    """A constant, or a list of sizes made of the input's shape."""
    if _is_constant(values):
        return view.weights.add(f"{name}_constant", values[0])
    parts = []
    for axis, sizes in enumerate(zip(*(value.tolist() for value in values), strict=True)):
        part = f"{name}_{axis}"
        if len(set(sizes)) == 1:
            parts.append(view.weights.add(part, np.array(sizes[:1], np.int64)))
        else:
            zero = view.weights.add(f"{part}_axis", np.zeros(1, np.int64))
            shape = view.put("Shape", [next(iter(context.batches[0]))], f"{part}_shape")
            parts.append(view.put("Gather", [shape, zero], part))
    return view.put("Concat", parts, f"{name}_sizes", axis=0)


def _settle_reshape(view: View, node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Give a Reshape a constant target for inputs and outputs of these shapes, where one does."""
    target = _reshape_target(shapes)
    if target is None:
        return False
    name = view.weights.add(f"{node.output[0]}_shape", np.array(target, np.int64))
    view.reroute(node, 1, name)
    set_attribute(node, "allowzero", None)
    return True


def _settle_resize(view: View, node: onnx.NodeProto, shapes: Shapes) -> bool:
    """Give a Resize constant scales in place of sizes, which have the batch among them."""
    if len(node.input) < 4 or "axes" in attributes(node) or not shapes[0][0]:
        return False
    ratios = {
        tuple(np.float32(b / a) for a, b in zip(before, after, strict=True))
        for before, after in shapes
    }
    scales = np.array(ratios.pop(), np.float32)
    # The runtime cuts what a scale gives off: it must not fall short of the size by rounding.
    exact = all(
        np.array_equal(np.floor(np.array(before, np.float32) * scales), after)
        for before, after in shapes
    )
    if ratios or not exact or all(before == after for before, after in shapes):
        return False
    view.reroute(node, 2, view.weights.add(f"{node.output[0]}_scales", scales))
    view.reroute(node, 3, "")
    del node.input[3:]
    return True


def _reshape_target(shapes: Shapes) -> list[int] | None:
    """A Reshape's target for inputs and outputs of these shapes: 0 keeps an axis, -1 is open."""
    inputs, outputs = [before for before, _ in shapes], [after for _, after in shapes]
    if len({len(shape) for shape in outputs}) > 1 or any(0 in shape for shape in outputs):
        return None
    target = []
    for axis, sizes in enumerate(zip(*outputs, strict=True)):
        if len(set(sizes)) == 1:
            target.append(sizes[0])
        elif axis < len(inputs[0]) and sizes == tuple(shape[axis] for shape in inputs):
            target.append(0)
        else:
            target.append(-1)
    return target if target.count(-1) <= 1 else None
