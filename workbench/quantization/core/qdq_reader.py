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
    graphs_of,
    inputs_of,
    name_nodes,
    replace_nodes,
    settle_constants,
)
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
class Grid:
    """An 8-bit grid, signed: value = scale * (integer - zero), integers from -128 to 127."""

    scale: float
    zero: int

    @property
    def low(self) -> float:
        return self.scale * (-128 - self.zero)

    @property
    def high(self) -> float:
        return self.scale * (127 - self.zero)


@dataclass(frozen=True)
class Stripped:
    """model: without QuantizeLinear and DequantizeLinear, its tensors named as before.

    grids: by activation tensor, of those that are quantized. weights: by node name, of the nodes
    that take INT8 weights. restored: how many Relu came back.
    """

    model: onnx.ModelProto
    grids: Mapping[str, Grid]
    weights: Mapping[str, QuantizedWeight]
    restored: int = 0

    @property
    def tensors(self) -> list[str]:
        """Every activation tensor, in order of computation: inputs and the nodes' results."""
        constants = {one.name for one in self.model.graph.initializer}
        given = [one.name for one in self.model.graph.input if one.name not in constants]
        return [*given, *(name for node in self.model.graph.node for name in node.output if name)]


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether a graph holds activations in QDQ form."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def strip(model: onnx.ModelProto) -> Stripped:
    """Take a QDQ graph apart; the given model stays as it is.

    Raises StepError for what is not a pair of one scale and 8 bits around float operators.
    """
    made = type(model).FromString(model.SerializeToString())
    settle_constants(made.graph)
    name_nodes(made.graph)
    work = _Work(made.graph, Weights(made.graph))
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        if node.op_type == "QuantizeLinear":
            work.quantize(node)
        elif node.op_type == "DequantizeLinear":
            work.dequantize(node)
        else:
            nodes.append(node)
    for node in nodes:
        for place, name in enumerate(node.input):
            if name in work.integers:
                raise StepError(
                    "the quantized file cannot be taken apart",
                    f"{node.op_type} ({node.name}) computes on integers", FIX,
                )  # fmt: skip
            if name in work.weights and place in (0, 1):
                work.by_node[node.name] = work.weights[name]
    restored = _with_relus(nodes, work)
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = work.source.get(name, name)
    _results(made.graph, nodes, work)
    for inner in graphs_of(made.graph):
        for node in inner.node if inner is not made.graph else ():
            for place, name in enumerate(node.input):
                node.input[place] = work.source.get(name, name)
    replace_nodes(made.graph, nodes)
    known = {name for node in nodes for name in node.output} | set(inputs_of(made.graph))
    kept = [value for value in made.graph.value_info if value.name in known]
    del made.graph.value_info[:]
    made.graph.value_info.extend(kept)
    grids = {work.renamed.get(name, name): grid for name, grid in work.grids.items()}
    return Stripped(made, grids, work.by_node, restored)


@dataclass
class _Work:
    """What is known while a graph is taken apart.

    integers: by QuantizeLinear's output, the tensor quantized. source: by DequantizeLinear's
    output, the tensor that stands for it. weights: by DequantizeLinear's output.
    """

    graph: onnx.GraphProto
    constants: Weights
    grids: dict[str, Grid] = field(default_factory=dict)
    integers: dict[str, str] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    weights: dict[str, QuantizedWeight] = field(default_factory=dict)
    by_node: dict[str, QuantizedWeight] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def quantize(self, node: onnx.NodeProto) -> None:
        """Note an activation's grid; of a constant, make the integers."""
        taken = self.source.get(node.input[0], node.input[0])
        scale, zero = self._numbers(node)
        constant = self.constants.get(taken)
        if constant is not None:
            axis = _axis(node) % max(constant.ndim, 1)
            wide = np.rint(constant / _along(scale, constant, axis)) + _along(zero, constant, axis)
            bounds = np.iinfo(zero.dtype)
            integers = np.clip(wide, bounds.min, bounds.max).astype(zero.dtype)
            self.source[node.output[0]] = self.constants.add(f"{taken}_integers", integers)
            return
        if scale.size != 1 or zero.dtype.itemsize != 1:
            kind = f"{zero.dtype}, {scale.size} scales"
            raise StepError(
                "the quantized file cannot be taken apart",
                f"activation {taken} has {kind}; one scale and 8 bits are taken", FIX,
            )  # fmt: skip
        offset = 128 if zero.dtype == np.uint8 else 0
        grid = Grid(float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]) - offset)
        # A tensor quantized twice is requantized between operators: the first is its own grid.
        self.grids.setdefault(taken, grid)
        self.integers[node.output[0]] = taken

    def dequantize(self, node: onnx.NodeProto) -> None:
        """Note for which tensor the output stands; of integer constants, make the floats."""
        if node.input[0] in self.integers:
            self.source[node.output[0]] = self.integers[node.input[0]]
            return
        name = self.source.get(node.input[0], node.input[0])
        integers = self.constants.get(name)
        if integers is None:
            raise StepError(
                "the quantized file cannot be taken apart",
                f"{node.name} dequantizes {node.input[0]}, which no QuantizeLinear gave", FIX,
            )  # fmt: skip
        scale, zero = self._numbers(node, integers.dtype)
        axis = _axis(node) % max(integers.ndim, 1)
        wide = integers.astype(np.float64) - _along(zero, integers, axis).astype(np.float64)
        # In float32, as runtimes do it: the products are what they compute with.
        floats = wide.astype(np.float32) * _along(scale, integers, axis)
        output = node.output[0]
        self.source[output] = self.constants.add(f"{output}_floats", floats)
        if integers.dtype.itemsize == 1 and integers.ndim:
            shift = 128 if integers.dtype == np.uint8 and (zero == 128).all() else 0
            if shift or not zero.any():
                signed = (integers.astype(np.int16) - shift).astype(np.int8)
                scales = np.broadcast_to(scale.reshape(-1), (integers.shape[axis],)).copy()
                self.weights[output] = QuantizedWeight(signed, scales.astype(np.float32), axis)

    def _numbers(self, node: onnx.NodeProto, dtype: Any = np.uint8) -> tuple[Array, Array]:
        scale = self.constants.get(node.input[1])
        named = len(node.input) > 2 and node.input[2]
        zero = self.constants.get(node.input[2]) if named else np.zeros((), dtype)
        if scale is None or zero is None:
            raise StepError(
                "the quantized file cannot be taken apart",
                f"{node.name} takes a scale or zero point that is computed", FIX,
            )  # fmt: skip
        return scale.astype(np.float32), zero


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 1)


def _along(values: Array, array: Array, axis: int) -> Array:
    """One value, or one for each index of an axis, so that it broadcasts against the array."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * array.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _with_relus(nodes: list[onnx.NodeProto], work: _Work) -> int:
    """Put back what zero points clip: a Relu, or a Clip to 6 where the grid ends there.

    Who takes the tensor past its QuantizeLinear goes on taking what is not clipped.
    """
    import onnx

    makers = {name: node for node in nodes for name in node.output}
    taken = {name for node in nodes for name in node.input}
    results = {value.name for value in work.graph.output}
    restored = 0
    for name, grid in work.grids.items():
        maker = makers.get(name)
        if grid.zero != -128 or maker is None or not _may_be_negative(maker, makers, work):
            continue
        clipped = f"{name}_clipped" if name in taken | results else name
        if clipped == name:
            raw = f"{name}_raw"
            maker.output[list(maker.output).index(name)] = raw
        else:
            raw = name
            work.renamed[name] = clipped
            for output, source in work.source.items():
                if source == name:
                    work.source[output] = clipped
        if abs(grid.high - RELU6) <= grid.scale:
            ends = [
                work.constants.add(f"{name}_{end}", np.array(end, np.float32)) for end in (0, 6)
            ]
            node = onnx.helper.make_node("Clip", [raw, *ends], [clipped], f"{name}_relu6")
        else:
            node = onnx.helper.make_node("Relu", [raw], [clipped], f"{name}_relu")
        nodes.insert(nodes.index(maker) + 1, node)
        restored += 1
    return restored


def _may_be_negative(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], work: _Work
) -> bool:
    if node.op_type in SIGNED:
        return True
    if node.op_type not in SIGNED_BY_INPUT:
        return False
    sources = [makers.get(work.source.get(name, name)) for name in node.input]
    if any(one is not None and one.op_type == "Erf" for one in sources):
        return False  # 1 + erf(x), in a Gelu that is written out
    return any(not _positive(name, makers, work) for name in node.input if name)


def _positive(name: str, makers: Mapping[str, onnx.NodeProto], work: _Work) -> bool:
    """Whether nothing in an operator's input is negative."""
    source = work.source.get(name, name)
    constant = work.constants.get(source)
    if constant is not None:
        return bool((constant >= 0).all())
    grid = work.grids.get(source)
    if grid is not None and source != name:
        return grid.zero == -128
    return source in makers and makers[source].op_type in ("Relu", "Sigmoid", "Softmax", "Abs")


def _results(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], work: _Work) -> None:
    """The graph's outputs keep their names, where a pair gave them too."""
    import onnx

    for value in graph.output:
        source = work.source.get(value.name)
        if source is not None:
            nodes.append(onnx.helper.make_node("Identity", [source], [value.name], value.name))
            if source in work.grids:
                work.grids.setdefault(value.name, work.grids[source])
