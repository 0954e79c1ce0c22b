"""A QDQ graph taken apart: the float graph that it quantizes, and the numbers that quantize it.

The pairs of QuantizeLinear and DequantizeLinear are taken out; weights and biases become floats
that lie on their grids. What the pairs say is given by tensor. So any converter can take the
network's structure, and be told the same numbers.

A quantizer drops a Relu behind which a zero point clips as the Relu did. It comes back here: the
float graph needs it, and it is what a converter fuses into the convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StepError
from workbench.onnxgraph.rewrites import (
    Weights,
    copy_model,
    name_nodes,
    rename_uses,
    replace_nodes,
    settle_constants,
)
from workbench.onnxgraph.walk import computed_names, inputs, producers, taken_names
from workbench.quantization.core.plan import QuantizedWeight

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

FIX = "give it a float file, or one that this workbench or onnxruntime quantized with 8 bits"
RELU6 = 6.0
# Of these the results may be negative whatever the inputs are.
SIGNED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Sub",
          "InstanceNormalization", "LayerNormalization", "Gelu")  # fmt: skip
# Of these only where an input may be.
SIGNED_BY_INPUT = ("Add", "Mul", "Div", "Sum", "Identity")


@dataclass(frozen=True)
class ActivationGrid:
    """An 8-bit grid, signed: value = scale * (integer - zero), integers from -128 to 127."""

    scale: float
    zero: int

    @property
    def low(self) -> float:
        """The least value on it."""
        return self.scale * (-128 - self.zero)

    @property
    def high(self) -> float:
        """The greatest value on it."""
        return self.scale * (127 - self.zero)


@dataclass(frozen=True)
class StrippedGraph:
    """A graph without QuantizeLinear and DequantizeLinear, and the numbers that quantize it.

    Attributes:
        model: its tensors are named as before.
        grids: by activation tensor, of those that are quantized.
        weights: by node name, of the nodes that take INT8 weights.
        restored: how many Relu came back.
    """

    model: onnx.ModelProto
    grids: Mapping[str, ActivationGrid]
    weights: Mapping[str, QuantizedWeight]
    restored: int = 0

    @property
    def tensors(self) -> list[str]:
        """Every activation tensor, in order of computation: inputs and the nodes' results."""
        graph = self.model.graph
        return [*(value.name for value in inputs(graph)), *computed_names(graph)]


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a graph holds activations in QDQ form."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def strip_qdq(model: onnx.ModelProto) -> StrippedGraph:
    """Take a QDQ graph apart; the given model stays as it is.

    Raises StepError for what is not a pair of one scale and 8 bits around float operators.
    """
    floats = copy_model(model)
    graph = floats.graph
    settle_constants(graph)
    name_nodes(graph)
    reading = _Reading(graph, Weights(graph))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            reading.read_quantize(node)
        elif node.op_type == "DequantizeLinear":
            reading.read_dequantize(node)
        else:
            nodes.append(node)
    weights: dict[str, QuantizedWeight] = {}
    for node in nodes:
        for index, name in enumerate(node.input):
            if name in reading.integers:
                raise _unreadable(f"{node.op_type} ({node.name}) computes on integers")
            if name in reading.weights and index in (0, 1):
                weights[node.name] = reading.weights[name]
    restored = _restore_relus(nodes, reading)
    rename_uses(nodes, reading.source)
    _keep_output_names(graph, nodes, reading)
    replace_nodes(graph, nodes)
    present = {name for node in nodes for name in node.output} | set(taken_names(graph))
    kept = [value for value in graph.value_info if value.name in present]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    grids = {reading.renamed.get(name, name): grid for name, grid in reading.grids.items()}
    return StrippedGraph(floats, grids, weights, restored)


def _unreadable(why: str) -> StepError:
    return StepError("the quantized file cannot be taken apart", why, FIX)


@dataclass
class _Reading:
    """What is known while a graph is taken apart.

    Attributes:
        integers: by QuantizeLinear's output, the tensor quantized.
        source: by DequantizeLinear's output, the tensor that stands for it.
        weights: by DequantizeLinear's output.
        renamed: by tensor, its name behind a Relu that came back.
    """

    graph: onnx.GraphProto
    constants: Weights
    grids: dict[str, ActivationGrid] = field(default_factory=dict)
    integers: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def read_quantize(self, node: onnx.NodeProto) -> None:
        """Note an activation's grid; of a constant, make the integers."""
        name = self.source.get(node.input[0], node.input[0])
        scale, zero = self._parameters(node)
        constant = self.constants.get(name)
        if constant is not None:
            axis = _axis(node) % max(constant.ndim, 1)
            levels = np.rint(constant / _along(scale, constant, axis)) + _along(
                zero, constant, axis
            )
            bounds = np.iinfo(zero.dtype)
            integers = np.clip(levels, bounds.min, bounds.max).astype(zero.dtype)
            self.source[node.output[0]] = self.constants.add(f"{name}_integers", integers)
            return
        if scale.size != 1 or zero.dtype.itemsize != 1:
            kind = f"{zero.dtype}, {scale.size} scales"
            raise _unreadable(f"activation {name} has {kind}; one scale and 8 bits are taken")
        offset = 128 if zero.dtype == np.uint8 else 0
        grid = ActivationGrid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) - offset)
        # A tensor quantized twice is requantized between operators: the first is its own grid.
        self.grids.setdefault(name, grid)
        self.integers[node.output[0]] = name

    def read_dequantize(self, node: onnx.NodeProto) -> None:
        """Note for which tensor the output stands; of integer constants, make the floats."""
        if node.input[0] in self.integers:
            self.source[node.output[0]] = self.integers[node.input[0]]
            return
        integers = self.constants.get(self.source.get(node.input[0], node.input[0]))
        if integers is None:
            raise _unreadable(
                f"{node.name} dequantizes {node.input[0]}, which no QuantizeLinear gave"
            )
        scale, zero = self._parameters(node, integers.dtype)
        axis = _axis(node) % max(integers.ndim, 1)
        steps = integers.astype(np.float64) - _along(zero, integers, axis).astype(np.float64)
        # In float32, as runtimes do it: the products are what they compute with.
        floats = steps.astype(np.float32) * _along(scale, integers, axis)
        output = node.output[0]
        self.source[output] = self.constants.add(f"{output}_floats", floats)
        if integers.dtype.itemsize == 1 and integers.ndim:
            shift = 128 if integers.dtype == np.uint8 and (zero == 128).all() else 0
            if shift or not zero.any():
                signed = (integers.astype(np.int16) - shift).astype(np.int8)
                scales = np.broadcast_to(scale.reshape(-1), (integers.shape[axis],)).copy()
                self.weights[output] = QuantizedWeight(signed, scales.astype(np.float32), axis)

    def _parameters(self, node: onnx.NodeProto, dtype: Any = np.uint8) -> tuple[Array, Array]:
        """A node's scale and zero point."""
        scale = self.constants.get(node.input[1])
        named = len(node.input) > 2 and node.input[2]
        zero = self.constants.get(node.input[2]) if named else np.zeros((), dtype)
        if scale is None or zero is None:
            raise _unreadable(f"{node.name} takes a scale or zero point that is computed")
        return scale.astype(np.float32), zero


def _axis(node: onnx.NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 1)


def _along(values: Array, array: Array, axis: int) -> Array:
    """Values, one for all or one for each index of an axis, to broadcast against the array."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * array.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _restore_relus(nodes: list[onnx.NodeProto], reading: _Reading) -> int:
    """Put back what zero points clip: a Relu, or a Clip to 6 where the grid ends there.

    Who takes the tensor past its QuantizeLinear goes on taking what is not clipped.
    """
    import onnx

    makers = producers(nodes)
    taken = {name for node in nodes for name in node.input}
    results = {value.name for value in reading.graph.output}
    restored = 0
    for name, grid in reading.grids.items():
        maker = makers.get(name)
        if grid.zero != -128 or maker is None or not _may_be_negative(maker, makers, reading):
            continue
        clipped = f"{name}_clipped" if name in taken | results else name
        if clipped == name:
            raw = f"{name}_raw"
            maker.output[list(maker.output).index(name)] = raw
        else:
            raw = name
            reading.renamed[name] = clipped
            for output, source in reading.source.items():
                if source == name:
                    reading.source[output] = clipped
        if abs(grid.high - RELU6) <= grid.scale:
            ends = [
                reading.constants.add(f"{name}_{end}", np.array(end, np.float32)) for end in (0, 6)
            ]
            node = onnx.helper.make_node("Clip", [raw, *ends], [clipped], f"{name}_relu6")
        else:
            node = onnx.helper.make_node("Relu", [raw], [clipped], f"{name}_relu")
        nodes.insert(nodes.index(maker) + 1, node)
        restored += 1
    return restored


def _may_be_negative(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], reading: _Reading
) -> bool:
    if node.op_type in SIGNED:
        return True
    if node.op_type not in SIGNED_BY_INPUT:
        return False
    sources = [makers.get(reading.source.get(name, name)) for name in node.input]
    if any(source is not None and source.op_type == "Erf" for source in sources):
        return False  # 1 + erf(x), in a Gelu that is written out
    return any(not _positive(name, makers, reading) for name in node.input if name)


def _positive(name: str, makers: Mapping[str, onnx.NodeProto], reading: _Reading) -> bool:
    """Whether nothing in an operator's input is negative."""
    source = reading.source.get(name, name)
    constant = reading.constants.get(source)
    if constant is not None:
        return bool((constant >= 0).all())
    grid = reading.grids.get(source)
    if grid is not None and source != name:
        return grid.zero == -128
    return source in makers and makers[source].op_type in ("Relu", "Sigmoid", "Softmax", "Abs")


def _keep_output_names(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], reading: _Reading
) -> None:
    """The graph's outputs keep their names, where a pair gave them too."""
    import onnx

    for value in graph.output:
        source = reading.source.get(value.name)
        if source is not None:
            nodes.append(onnx.helper.make_node("Identity", [source], [value.name], value.name))
            if source in reading.grids:
                reading.grids.setdefault(value.name, reading.grids[source])
