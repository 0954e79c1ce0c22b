"""Facts of an ONNX graph in memory, whichever file it was read from."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from workbench.inspect import mobile, onnx_macs
from workbench.inspect.facts import Tensor, precision, printable
from workbench.inspect.macs import Tally
from workbench.onnxgraph.ort_tools import tool
from workbench.onnxgraph.walk import constants, dtype, graphs, inputs, sizes

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...] | None

# Weights above this many bytes are dropped before shapes are inferred: only small ones (shapes,
# axes, sizes) are ever read as values, and copying the others costs more than all the rest.
SMALL = 4096
_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data",
           "string_data")  # fmt: skip


def strip(model: onnx.ModelProto) -> None:
    """Drop the values of large weights, in place; their dtypes and shapes stay."""
    for graph in graphs(model.graph):
        for tensor in constants(graph).values():
            if tensor.ByteSize() > SMALL:
                for kind in _VALUES:
                    tensor.ClearField(kind)


def tensor_of(value: onnx.ValueInfoProto) -> Tensor:
    """An input or output as the file declares it."""
    kind = value.type.WhichOneof("value") or "unknown"
    if kind != "tensor_type":
        name = kind.removesuffix("_type")
        return Tensor(name=value.name, dtype=name, shape=(), ranked=False)
    declared = value.type.tensor_type
    return Tensor(
        name=value.name,
        dtype=dtype(declared.elem_type),
        shape=sizes(declared.shape),
        ranked=declared.HasField("shape"),
    )


def qualified_name(node: onnx.NodeProto) -> str:
    """An operator's name, with its domain where that is not the default."""
    kind = printable(node.op_type)
    domain = "" if node.domain == "ai.onnx" else printable(node.domain)
    return f"{domain}:{kind}" if domain else kind


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    """The operator set versions that the file imports, by domain."""
    return {
        printable(imported.domain) or "ai.onnx": imported.version for imported in model.opset_import
    }


@dataclass
class GraphFacts:
    """What `study` reads of a graph: the fields of `Facts` of these names.

    Attributes:
        operators: how often each occurs, the most frequent first.
        parameters: elements of the weights.
        macs: multiply-accumulates for one sample, None where they cannot be known.
        precision: in a word, as `int8`.
        takes: what each execution provider takes of the graph, in words.
        notes: what else a user should know, a line each.
    """

    operators: dict[str, int]
    parameters: int
    macs: int | None
    precision: str
    takes: dict[str, str]
    notes: list[str] = field(default_factory=list)


def study(model: onnx.ModelProto) -> GraphFacts:
    """Operators, parameters, MACs, precision and what takes the model. `model` is stripped."""
    kinds = Counter(qualified_name(node) for graph in graphs(model.graph) for node in graph.node)
    weights = _weights(model.graph)
    single, left_open = single_sample(model)
    tally = Tally()
    shapes = onnx_macs.count(single.graph, tally)
    if any("shape" in reason or "axis" in reason for reason in tally.reasons):
        again = Tally()
        more = onnx_macs.count(_thorough(single).graph, again)
        if len(again.reasons) < len(tally.reasons):
            tally, shapes = again, more
    io = [tensor_of(value) for value in inputs(model.graph)]
    word, note = precision(weights, _activations(model), io)
    facts = GraphFacts(
        operators=dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(weights.values()),
        macs=tally.total,
        precision=word,
        takes={},
        notes=[note] if note else [],
    )
    facts.notes += tally.notes(f"open: {', '.join(left_open)}" if left_open else "")
    _add_providers(model, shapes, facts)
    return facts


def _add_providers(model: onnx.ModelProto, shapes: dict[str, Shape], facts: GraphFacts) -> None:
    """What each execution provider takes, where its checker can say so."""
    if not model.graph.node:
        return
    try:
        for provider, verdict in mobile.verdicts(model).items():
            facts.takes[provider] = _phrase(verdict)
        version = opsets(model).get("ai.onnx", 0)
        facts.takes["XNNPACK"] = _phrase(mobile.xnnpack(model, shapes, version))
    except Exception as error:  # noqa: BLE001 - a checker that fails must not cost the other facts
        facts.notes.append(f"NNAPI, CoreML and XNNPACK not all checked: {type(error).__name__}")


def _phrase(verdict: mobile.Verdict) -> str:
    shown = [printable(name) for name in verdict.refused]
    if not shown:
        return str(verdict)
    more = f" and {len(shown) - 6} more" if len(shown) > 6 else ""
    return f"{verdict}; not {', '.join(shown[:6])}{more}"


# Inputs that hold scales and zero points: no parameters, and no evidence of a precision.
_SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2), "DequantizeLinear": (1, 2), "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7), "QGemm": (1, 2, 4, 5, 7, 8), "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3), "MatMulIntegerToFloat": (2, 3, 4, 5), "MatMulNBits": (2, 3),
    "DynamicQuantizeMatMul": (2, 3), "DynamicQuantizeLSTM": (8, 9, 10, 11),
    "QAttention": (3, 4, 6, 7), "QLinearAdd": (1, 2, 4, 5, 6, 7), "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearConvTranspose": (1, 2, 4, 5, 6, 7), "QLinearWhere": (2, 3, 5, 6, 7, 8),
}  # fmt: skip


def _scale_inputs(node: onnx.NodeProto) -> tuple[int, ...]:
    if node.op_type == "QLinearConcat":  # the output's pair, then triples
        return (0, 1, *(index for index in range(2, len(node.input)) if (index - 2) % 3))
    default = (1, 2, 3, 4) if node.op_type.startswith("QLinear") else ()
    return _SCALES.get(node.op_type, default)


def _weights(graph: onnx.GraphProto) -> Counter[str]:
    """Elements of the stored weights by dtype; index tensors, scales and zero points are none."""
    scales, others, counts = set[str](), set[str](), Counter[str]()
    for inner in graphs(graph):
        for node in inner.node:
            scale_inputs = _scale_inputs(node)
            packed = onnx_macs.packed_weights(node)
            if packed is not None:  # several a byte, in a shape that does not tell how many
                kind, elements = packed
                counts[kind] += elements
                scales.add(node.input[1])
            for index, name in enumerate(node.input):
                if packed is None or index != 1:
                    (scales if index in scale_inputs else others).add(name)
    left_out = scales - others
    for inner in graphs(graph):
        for name, tensor in constants(inner).items():
            kind = dtype(tensor.data_type)
            if name not in left_out and kind not in ("int64", "bool", "string", "unknown"):
                counts[kind] += prod(tensor.dims)
    return +counts


_DYNAMIC = ("DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM")


def _activations(model: onnx.ModelProto) -> str:
    """The dtype that activations are quantized to, "dynamic", "mixed" of both, or ''."""
    dynamic = static = ""
    for graph in graphs(model.graph):
        stored = constants(graph)
        for node in graph.node:
            if node.op_type in _DYNAMIC:
                dynamic = "dynamic"
            elif node.op_type == "QuantizeLinear" and node.input and node.input[0] not in stored:
                zero = stored.get(node.input[2]) if len(node.input) > 2 else None
                declared = [a.i for a in node.attribute if a.name == "output_dtype" and a.i]
                kind = zero.data_type if zero is not None else (declared or [2])[0]
                static = dtype(kind)
            elif node.op_type.startswith("QLinear") or node.op_type == "QGemm":
                static = static or "int8"
    return "mixed" if dynamic and static else dynamic or static


_BATCH = re.compile(r"n|b|bs|bsz|.*batch.*", re.IGNORECASE)
_NOT_BATCH = re.compile(
    r".*(seq|len|time|token|step|frame|height|width|channel).*|[tlhwcs]", re.IGNORECASE
)


def single_sample(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with its batch axis as 1 and every shape inferred, and the axes left open.

    The batch axis is an open first axis, unless its name says otherwise, and any other open axis
    whose name says batch. Nothing else is guessed.
    """
    import onnx

    single = onnx.ModelProto()
    single.CopyFrom(model)
    batch_names, open_axes = set[str](), []
    for value in inputs(single.graph):
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.HasField("dim_value") and axis.dim_value >= 0:
                continue
            name = axis.dim_param
            named = _BATCH.fullmatch(name) is not None
            if named or (position == 0 and _NOT_BATCH.fullmatch(name) is None):
                batch_names |= {name} - {""}
                axis.dim_value = 1
    for value in inputs(single.graph):
        for position, axis in enumerate(value.type.tensor_type.shape.dim):
            if axis.dim_param in batch_names:
                axis.dim_value = 1
            elif not axis.HasField("dim_value") or axis.dim_value < 0:
                label = f" ({printable(axis.dim_param)})" if axis.dim_param else ""
                open_axes.append(f"axis {position}{label} of {printable(value.name)}")
    for graph in graphs(single.graph):
        for value in (*graph.value_info, *graph.output):
            for axis in value.type.tensor_type.shape.dim:
                if axis.dim_param in batch_names:
                    axis.dim_value = 1
    try:
        return onnx.shape_inference.infer_shapes(single, data_prop=True), open_axes
    except Exception:  # noqa: BLE001 - a graph that contradicts itself: the shapes it declares stay
        return single, open_axes


def _thorough(single: onnx.ModelProto) -> onnx.ModelProto:
    """The same with shapes by onnxruntime's symbolic inference; as it was where that fails.

    It knows onnxruntime's own operators, and follows sizes through arithmetic on shapes. It costs
    an import of sympy, as much time as all the rest, so it is asked only where it is needed.
    """
    import logging

    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(single)
    for graph in graphs(copy.graph):
        # It would compute with the weights that `strip` emptied: as inputs they have but a shape.
        initializers = []
        for tensor in graph.initializer:
            if any(getattr(tensor, kind) for kind in _VALUES) or not prod(tensor.dims):
                initializers.append(tensor)
            else:
                declared = onnx.helper.make_tensor_value_info
                graph.input.append(declared(tensor.name, tensor.data_type, tensor.dims))
        del graph.initializer[:]
        graph.initializer.extend(initializers)
    try:
        module = tool("symbolic_shape_infer")
        logging.getLogger(module.__name__).disabled = True
        # Not by its `infer_shapes`: that writes a file into the current folder where it fails.
        inference = module.SymbolicShapeInference(2**31 - 1, False, False, 0)
        inference._preprocess(copy)
        while inference.run_:
            inference._infer_impl()
        inference._update_output_from_vi()
        inferred: onnx.ModelProto = inference.out_mp_
    except Exception:  # noqa: BLE001 - it asserts, and raises bare exceptions
        return single
    return inferred
