"""Multiply-accumulates of ONNX graphs, the operators of ONNX Runtime's own domains included."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from workbench.inspect import macs
from workbench.inspect.facts import printable
from workbench.inspect.macs import Tally, UnknownError, known_shape
from workbench.onnxgraph.walk import bodies, constants, sizes

if TYPE_CHECKING:
    import onnx

Shape = tuple[int | None, ...] | None


class Node:
    """A node with the shapes of what it takes and gives."""

    def __init__(self, proto: onnx.NodeProto, shapes: dict[str, Shape]) -> None:
        self.proto = proto
        self.input_shapes = [shapes.get(name) if name else None for name in proto.input]
        self.output_shapes = [shapes.get(name) if name else None for name in proto.output]

    def has(self, index: int) -> bool:
        """Whether the node takes an input of that index: a trailing or empty one is left out."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def shape(self, index: int) -> Shape:
        """The shape of an input, None where it is not known. Raises UnknownError without one."""
        if not self.has(index):
            raise UnknownError("an input is missing")
        return self.input_shapes[index]

    @property
    def output(self) -> Shape:
        """The shape of the first output, None where it is not known."""
        return self.output_shapes[0] if self.output_shapes else None

    def integer(self, name: str, default: int = 0) -> int:
        """The attribute of that name, a whole number."""
        return next(
            (attribute.i for attribute in self.proto.attribute if attribute.name == name), default
        )


def _conv(weights: int) -> Callable[[Node], int]:
    return lambda node: macs.convolution(node.output, node.shape(weights))


def _conv_transpose(weights: int) -> Callable[[Node], int]:
    return lambda node: macs.transposed_convolution(node.shape(0), node.shape(weights))


def _matmul(left: int, right: int) -> Callable[[Node], int]:
    """MatMul and Gemm, with `transA`/`transB` where the operator has them."""

    def count(node: Node) -> int:
        a, b = known_shape(node.shape(left)), known_shape(node.shape(right))
        if node.integer("transBatchA") or node.integer("transBatchB"):
            raise UnknownError("a matrix product with its batch transposed")
        if node.integer("transA") and len(a) > 1:
            a = (*a[:-2], a[-1], a[-2])
        if node.integer("transB") and len(b) > 1:
            b = (*b[:-2], b[-1], b[-2])
        return macs.matmul(a, b)

    return count


def _recurrent(node: Node) -> int:
    return macs.recurrent(node.shape(0), node.shape(1), node.shape(2))


def _einsum(node: Node) -> int:
    equation = next((a.s for a in node.proto.attribute if a.name == "equation"), b"")
    return macs.einsum(equation.decode("utf-8", "replace"), node.input_shapes)


def packed_weights(node: onnx.NodeProto) -> tuple[str, int] | None:
    """dtype and number of MatMulNBits' weights, which are packed several a byte."""
    if node.op_type != "MatMulNBits" or len(node.input) < 2:
        return None
    integers = {attribute.name: attribute.i for attribute in node.attribute}
    return f"int{integers.get('bits', 4)}", integers.get("K", 0) * integers.get("N", 0)


def _n_bits(node: Node) -> int:
    """MatMulNBits: [..., K] by packed [K, N]."""
    if node.integer("K") < 1:
        raise UnknownError("MatMulNBits without its K")
    return prod(known_shape(node.shape(0))) * node.integer("N")


def _joint_attention(past: int) -> Callable[[Node], int]:
    """com.microsoft's Attention: [B, S, in] by [in, QKV widths], then scores and their sum."""

    def count(node: Node) -> int:
        if node.has(past):
            raise UnknownError("attention over what came before")
        batch, length, _ = known_shape(node.shape(0))
        weights = known_shape(node.shape(1))
        sizes = next((a.ints for a in node.proto.attribute if a.name == "qkv_hidden_sizes"), ())
        query, _, value = tuple(sizes) or (weights[1] // 3,) * 3
        projected = batch * length * prod(weights)
        return projected + macs.attention(batch, length, length, query, value)

    return count


def _multi_head(node: Node) -> int:
    """com.microsoft's MultiHeadAttention: query, key and value apart, [B, length, width]."""
    if node.has(6) or node.has(7):
        raise UnknownError("attention over what came before")
    query, key, value = (known_shape(node.shape(index)) for index in range(3))
    if not len(query) == len(key) == len(value) == 3:
        raise UnknownError("attention over packed or cached keys")
    return macs.attention(query[0], query[1], key[1], query[2], value[2])


def _attention(node: Node) -> int:
    """ONNX's Attention (opset 23): [B, heads, length, size], or [B, length, heads * size]."""
    if node.has(4) or node.has(5):
        raise UnknownError("attention over what came before")
    query, key, value = (known_shape(node.shape(index)) for index in range(3))
    if len(query) == 4:
        batch, heads, length, size = query
        return macs.attention(batch, length, key[2], heads * size, heads * value[3])
    batch, length, width = query
    heads, shared = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
    if shared < 1:
        raise UnknownError("attention without heads")
    return macs.attention(batch, length, key[1], width, value[2] // shared * heads)


_DEFAULT: dict[str, Callable[[Node], int]] = {
    "Conv": _conv(1), "ConvInteger": _conv(1), "QLinearConv": _conv(3), "DeformConv": _conv(1),
    "ConvTranspose": _conv_transpose(1), "Gemm": _matmul(0, 1), "MatMul": _matmul(0, 1),
    "MatMulInteger": _matmul(0, 1), "QLinearMatMul": _matmul(0, 3), "Einsum": _einsum,
    "LSTM": _recurrent, "GRU": _recurrent, "RNN": _recurrent, "Attention": _attention,
}  # fmt: skip
_MICROSOFT: dict[str, Callable[[Node], int]] = {
    "FusedConv": _conv(1), "NhwcFusedConv": _conv(1), "QLinearConv": _conv(3),
    "QLinearConvTranspose": _conv_transpose(3), "FusedMatMul": _matmul(0, 1),
    "TransposeMatMul": _matmul(0, 1), "FusedGemm": _matmul(0, 1), "QGemm": _matmul(0, 3),
    "MatMulIntegerToFloat": _matmul(0, 1), "DynamicQuantizeMatMul": _matmul(0, 1),
    "MatMulNBits": _n_bits, "DynamicQuantizeLSTM": _recurrent, "Attention": _joint_attention(4),
    "QAttention": _joint_attention(8), "MultiHeadAttention": _multi_head,
}  # fmt: skip
_BY_DOMAIN = {
    "": _DEFAULT,
    "ai.onnx": _DEFAULT,
    "com.microsoft": _MICROSOFT,
    "com.ms.internal.nhwc": _DEFAULT,
}
# What multiplies and is not listed above must not pass as nothing.
_MULTIPLIES = re.compile(r"Conv(?!ert)|MatMul|Gemm|Attention|LSTM|GRU|RNN|MoE|Einsum")
_SILENT = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc",
           "com.microsoft.nchwc"}  # fmt: skip


def count(
    graph: onnx.GraphProto, tally: Tally, outer: dict[str, Shape] | None = None
) -> dict[str, Shape]:
    """Add a graph's multiply-accumulates to `tally`; the shapes of its tensors by name."""
    shapes = {**(outer or {}), **_shapes(graph)}
    for proto in graph.node:
        inner = [_body(body, shapes) for body in bodies(proto)]
        if inner:
            _add_control(proto.op_type, inner, tally)
            continue
        domain = proto.domain
        counter = _BY_DOMAIN.get(domain, {}).get(proto.op_type)
        name = printable(f"{domain}:{proto.op_type}" if domain else proto.op_type)
        if counter is None:
            if domain not in _SILENT:
                tally.unknown(f"{name} is no operator that wb knows")
            elif _MULTIPLIES.search(proto.op_type):
                tally.unknown(f"{name} is not counted")
            continue
        try:
            tally.add(counter(Node(proto, shapes)))
        except UnknownError as error:
            tally.unknown(f"{name}: {error}")
        except (ValueError, IndexError, ZeroDivisionError):
            tally.unknown(f"{name}: its shapes do not fit it")
    return shapes


def _body(graph: onnx.GraphProto, outer: dict[str, Shape]) -> Tally:
    tally = Tally()
    count(graph, tally, outer)
    return tally


def _add_control(kind: str, inner: list[Tally], tally: Tally) -> None:
    """If: where its branches agree. Loop and Scan: where their bodies multiply nothing."""
    for body in inner:
        for reason, times in body.reasons.items():
            tally.reasons[reason] += times
    totals = {body.sum for body in inner}
    if kind == "If" and len(totals) == 1:
        tally.add(totals.pop())
    elif totals != {0}:
        what = "its branches differ" if kind == "If" else "how often it runs is not in the file"
        tally.unknown(f"{printable(kind)}: {what}")


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shapes by tensor name; None where the file and the inference leave the rank open."""
    shapes: dict[str, Shape] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            shapes[value.name] = sizes(tensor.shape)
    return shapes | {name: tuple(tensor.dims) for name, tensor in constants(graph).items()}
