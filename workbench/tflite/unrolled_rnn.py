"""LSTM and GRU nodes as the matrix products of their single steps.

onnx2tf 1.28.8 converts neither rightly, and what TensorFlow has for them does not deploy: its fused
LSTM keeps its state from one inference to the next, its loops do not quantize.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError
from workbench.onnxgraph.walk import attributes

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

KINDS = ("LSTM", "GRU")

# Each step is ten nodes: beyond this the file is mostly graph, and onnx2tf takes minutes.
MOST_STEPS = 512


class Builder:
    """Nodes and constants under names of their own."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def name(self) -> str:
        """A name that no tensor has yet."""
        self._count += 1
        return f"{self.prefix}_{self._count}"

    def constant(self, array: Array) -> str:
        """A new initializer; its name."""
        from onnx import numpy_helper

        name = self.name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def many(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """A new node with that many outputs; their names."""
        from onnx import helper

        outputs = [self.name() for _ in range(count)]
        self.nodes.append(
            helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes)
        )
        return outputs

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.many(op, 1, *inputs, **attributes)[0]

    def split(self, value: str, sizes: list[int], axis: int) -> list[str]:
        """Pieces of a tensor along an axis, of these sizes; their names."""
        if len(sizes) == 1:
            return [value]
        return self.many("Split", len(sizes), value, self.constant(np.array(sizes)), axis=axis)

    def concat(self, values: list[str], axis: int) -> str:
        """Tensors joined along an axis; the result's name."""
        return values[0] if len(values) == 1 else self("Concat", *values, axis=axis)

    def reshape(self, value: str, *shape: int) -> str:
        """A tensor in another shape; the result's name."""
        return self("Reshape", value, self.constant(np.array(shape)))


def unrolled(model: onnx.ModelProto, _inputs: Any = None) -> tuple[onnx.ModelProto, str]:
    """The model with every LSTM and GRU written out step by step, for a batch of 1.

    Raises StepError for variants that are not written out, and for too many steps.
    """
    import onnx

    recurrent = [node for node in model.graph.node if node.op_type in KINDS]
    if not recurrent:
        return model, ""
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    steps = 0
    nodes = []
    for node in graph.node:
        if node.op_type not in KINDS:
            nodes.append(node)
            continue
        builder = Builder(f"{node.output[0] or node.name}_unrolled")
        steps += _unroll(node, builder, shapes, weights, MOST_STEPS - steps)
        nodes += builder.nodes
        graph.initializer.extend(builder.constants)
    del graph.node[:]
    graph.node.extend(nodes)
    kinds = " and ".join(sorted({node.op_type for node in recurrent}))
    return model, f"{kinds} unrolled in {steps} steps"


def _unroll(
    node: onnx.NodeProto,
    build: Builder,
    shapes: dict[str, list[int]],
    weights: dict[str, Array],
    most: int,
) -> int:
    """Nodes in place of one; the number of steps, over both directions."""
    from onnx import helper

    options = attributes(node)
    operands = [*node.input, *[""] * (8 - len(node.input))]
    source, kernel, recurrence, bias, lengths, initial_h, initial_c, peepholes = operands
    unknown = sorted(options.keys() - {"direction", "hidden_size", "linear_before_reset"})
    usual = {"layout": 0, "input_forget": 0}
    unknown = [name for name in unknown if options[name] != usual.get(name)]
    shape = shapes.get(source, [])
    constants = [name for name in (kernel, recurrence, bias) if name]
    reason = (
        f"attribute {unknown[0]}" if unknown
        else "peepholes" if peepholes
        else "a sequence length for each sample" if lengths
        else "weights that are not constants" if not weights.keys() >= set(constants)
        else "a shape that is not known" if len(shape) != 3 or 0 in shape
        else f"a batch of {shape[1]}" if shape[1] != 1
        else ""
    )  # fmt: skip
    if reason:
        raise StepError(
            f"{node.op_type} {node.name} has {reason}, which TFLite files here do not have",
            "", "the branches for ONNX Runtime take it",
        )  # fmt: skip
    length, _, width = shape
    hidden = int(options["hidden_size"])
    direction = options.get("direction", b"forward").decode()
    directions = 2 if direction == "bidirectional" else 1
    if length * directions > most:
        raise StepError(
            f"{node.op_type} {node.name} has too many steps to be written out",
            f"{length} in {directions} direction(s); {MOST_STEPS} in all are the limit",
            "use shorter sequences, or the branches for ONNX Runtime",
        )
    cell = _lstm if node.op_type == "LSTM" else _gru
    gates = 4 if node.op_type == "LSTM" else 3
    rows = build.reshape(source, length, width)
    starts = [
        build.split(build.reshape(name, directions, hidden), [1] * directions, 0)
        if name else [""] * directions
        for name in (initial_h, initial_c)
    ]  # fmt: skip
    every: list[str] = []
    last: list[tuple[str, str]] = []
    for number in range(directions):
        biases = weights[bias][number] if bias else np.zeros(2 * gates * hidden, np.float32)
        step = cell(
            build, weights[kernel][number], weights[recurrence][number], biases,
            bool(options.get("linear_before_reset", 0)),
        )  # fmt: skip
        projected, advance = step
        pieces = build.split(projected(rows), [1] * length, 0)
        backward = number == 1 or direction == "reverse"
        state, memory = starts[0][number], starts[1][number]
        outputs = []
        for piece in reversed(pieces) if backward else pieces:
            state, memory = advance(piece, state, memory)
            outputs.append(state)
        every.append(build.concat(outputs[::-1] if backward else outputs, 0))
        last.append((state, memory))
    results = [
        build.reshape(build.concat(every, 1), length, directions, 1, hidden),
        build.reshape(build.concat([state for state, _ in last], 0), directions, 1, hidden),
        build.reshape(build.concat([memory for _, memory in last], 0), directions, 1, hidden)
        if node.op_type == "LSTM" else "",
    ]  # fmt: skip
    for name, output in zip(node.output, results, strict=False):
        if name:
            build.nodes.append(helper.make_node("Identity", [output], [name]))
    return length * directions


Step = Callable[[str, str, str], tuple[str, str]]
Cell = tuple[Callable[[str], str], Step]


def _lstm(build: Builder, kernel: Array, recurrence: Array, bias: Array, _: bool) -> Cell:
    """The projection of all inputs, and a step: the input's part, state, memory -> state, memory.

    ONNX's gates in their order: input, output, forget (sigmoid), cell (tanh).
    """
    size = recurrence.shape[1]
    inward, matrix = build.constant(kernel), build.constant(recurrence)
    both = build.constant(bias[: 4 * size] + bias[4 * size :])

    def step(piece: str, state: str, memory: str) -> tuple[str, str]:
        sums = build("Gemm", state, matrix, piece, transB=1) if state else piece
        three, fourth = build.split(sums, [3 * size, size], 1)
        into, out, forget = build.split(build("Sigmoid", three), [size] * 3, 1)
        fresh = build("Mul", into, build("Tanh", fourth))
        memory = build("Add", build("Mul", forget, memory), fresh) if memory else fresh
        return build("Mul", out, build("Tanh", memory)), memory

    return lambda rows: build("Gemm", rows, inward, both, transB=1), step


def _gru(build: Builder, kernel: Array, recurrence: Array, bias: Array, linear: bool) -> Cell:
    """As `_lstm`, without a memory. ONNX's gates in their order: update, reset, hidden.

    linear: the reset gate multiplies the product with the state, as PyTorch has it, not the state.
    """
    size = recurrence.shape[1]
    inward = build.constant(kernel)
    two, third = (build.constant(part) for part in np.split(recurrence, [2 * size]))
    inside, outside = bias[5 * size :], bias[2 * size : 3 * size]
    if not linear:
        outside = outside + inside
    both = build.constant(np.concatenate([bias[: 2 * size] + bias[3 * size : 5 * size], outside]))
    inner = build.constant(inside)

    def step(piece: str, state: str, _memory: str) -> tuple[str, str]:
        gates, hidden = build.split(piece, [2 * size, size], 1)
        if state:
            gates = build("Gemm", state, two, gates, transB=1)
        update, reset = build.split(build("Sigmoid", gates), [size, size], 1)
        if linear:
            # Apart from the product: TensorFlow's 16-bit quantizer takes the first step's scale
            # for the bias that all steps' products share.
            hidden = build("Add", hidden, build("Mul", reset, inner))
        if state and linear:
            product = build("Mul", reset, build("Gemm", state, third, transB=1))
            hidden = build("Add", hidden, product)
        elif state:
            hidden = build("Gemm", build("Mul", reset, state), third, hidden, transB=1)
        fresh = build("Tanh", hidden)
        if not state:  # of zeros: a constant of these has a scale of 0 in 16-bit files
            return build("Sub", fresh, build("Mul", update, fresh)), ""
        kept = build("Mul", update, build("Sub", state, fresh))
        return build("Add", kept, fresh), ""

    return lambda rows: build("Gemm", rows, inward, both, transB=1), step
