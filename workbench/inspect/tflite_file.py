"""Reading `.tflite` files by their flatbuffer schema: no runtime opens them here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from workbench.artifact import Format
from workbench.errors import ModelError
from workbench.inspect import macs
from workbench.inspect.facts import Facts, Tensor, precision, printable
from workbench.inspect.macs import Tally, UnknownError, known_shape

Shape = tuple[int | None, ...]


class Flat:
    """A `.tflite` flatbuffer, every length in it checked against the file's."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.size = len(data)
        self.schema = schema
        self.model = schema.Model.GetRootAs(data, 0)
        self.types = {
            number: name.lower()
            for name, number in vars(schema.TensorType).items()
            if not name.startswith("_")
        }
        self.names = {
            number: name
            for name, number in vars(schema.BuiltinOperator).items()
            if not name.startswith("_")
        }
        self.codes = [self._code(code) for code in self.each(self.model, "OperatorCodes")]
        self.graphs = self.each(self.model, "Subgraphs")
        buffers = self.each(self.model, "Buffers")
        self.stored = [self._stored_bytes(buffer) for buffer in buffers]

    def each(self, table: Any, field: str) -> list[Any]:
        """A vector of tables."""
        length = getattr(table, f"{field}Length")()
        if not 0 <= length * 4 <= self.size:
            raise ValueError("a vector is longer than the file")
        return [getattr(table, field)(index) for index in range(length)]

    def integers(self, table: Any, field: str) -> list[int]:
        """A vector of numbers."""
        if not getattr(table, f"{field}Length")():
            return []
        return [int(value) for value in getattr(table, f"{field}AsNumpy")()]

    def _code(self, code: Any) -> str:
        """An operator's name: custom ones by their own, Flex ones among them."""
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = self.names.get(number, f"BUILTIN_{number}")
        custom = code.CustomCode()
        return f"CUSTOM:{printable(custom.decode())}" if name == "CUSTOM" and custom else name

    def _stored_bytes(self, buffer: Any) -> int:
        """The bytes that a buffer holds, which must lie within the file; large ones lie behind."""
        if buffer.Offset() > 1:
            if buffer.Offset() + buffer.Size() > self.size:
                raise ValueError("a weight lies beyond the file's end")
            return int(buffer.Size())
        return len(buffer.DataAsNumpy()) if buffer.DataLength() else 0

    def tensor(self, tensor: Any) -> Tensor:
        """A tensor of the schema as the file declares it."""
        quantization = tensor.Quantization()
        pair = None
        if quantization is not None and quantization.ScaleLength() == 1:
            zero = quantization.ZeroPoint(0) if quantization.ZeroPointLength() else 0
            pair = (float(quantization.Scale(0)), int(zero))
        return Tensor(
            name=(tensor.Name() or b"").decode(),
            dtype=self.types.get(tensor.Type(), "unknown"),
            shape=self.shape(tensor),
            quantization=pair,
        )

    def shape(self, tensor: Any) -> Shape:
        """The declared shape: the signature, where one says which axes are open."""
        declared = self.integers(tensor, "ShapeSignature") or self.integers(tensor, "Shape")
        return tuple(size if size >= 0 else None for size in declared)


def read(path: Path) -> Facts:
    """The facts of a `.tflite` file; what XNNPACK takes is asked apart. Raises ModelError."""
    data = path.read_bytes()
    flat = Flat(data)
    if not flat.graphs:
        raise ModelError(f"{path} cannot be read as TFLite", "it has no graph")
    main = flat.graphs[0]
    tensors = flat.each(main, "Tensors")
    inputs = tuple(flat.tensor(tensors[index]) for index in flat.integers(main, "Inputs"))
    outputs = tuple(flat.tensor(tensors[index]) for index in flat.integers(main, "Outputs"))
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    activations: set[str] = set()
    seen: set[int] = set()  # buffers: tensors of several graphs may share one
    tally = Tally()
    for number, graph in enumerate(flat.graphs):
        counted = _Graph(flat, graph)
        operators.update(counted.names)
        weights += counted.weights(seen)
        activations |= counted.activations()
        own = tally if number == 0 else Tally()
        counted.count(own)
        if number and (own.reasons or own.sum):
            tally.unknown("how often the body of a control-flow operator runs is not in the file")
    word, note = precision(
        weights, activations.pop() if len(activations) == 1 else "mixed" * bool(activations), inputs
    )
    notes = [f"{len(flat.graphs)} graphs"] if len(flat.graphs) > 1 else []
    return Facts(
        path=path,
        format=Format.TFLITE,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=inputs,
        outputs=outputs,
        opsets={},
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        parameters=sum(weights.values()),
        macs=tally.total,
        precision=word,
        takes={},
        notes=(*notes, *((note,) if note else ()), *tally.notes()),
    )


class _Graph:
    """One graph of the file: its tensors, and its operators with the tensors that they take."""

    def __init__(self, flat: Flat, graph: Any) -> None:
        self.flat = flat
        self.tensors = flat.each(graph, "Tensors")
        self.operators = flat.each(graph, "Operators")
        self.names = [flat.codes[code.OpcodeIndex()] for code in self.operators]

    def weights(self, seen: set[int]) -> Counter[str]:
        """Elements of the constant tensors by dtype, each buffer once.

        Integers without quantization are shapes, axes and indices.
        """
        elements: Counter[str] = Counter()
        for tensor in self.tensors:
            dtype = self.flat.types.get(tensor.Type(), "unknown")
            quantization = tensor.Quantization()
            scaled = quantization is not None and quantization.ScaleLength() > 0
            if tensor.Buffer() in seen or not self.flat.stored[tensor.Buffer()]:
                continue
            if scaled or "float" in dtype:
                seen.add(tensor.Buffer())
                elements[dtype] += prod(self.flat.integers(tensor, "Shape"))
        return elements

    def activations(self) -> set[str]:
        """What the products' inputs are quantized to: a dtype, or "dynamic" beside int8 weights."""
        dtypes = set()
        for name, operator in zip(self.names, self.operators, strict=True):
            if name not in _PRODUCTS:
                continue
            data, weights = _PLACES.get(name, (0, 1))
            inputs = self.flat.integers(operator, "Inputs")
            kinds = [self.flat.types.get(self.tensors[inputs[position]].Type(), "")
                     for position in (data, weights)]  # fmt: skip
            if kinds[0].startswith(("int", "uint")):
                dtypes.add(kinds[0])
            elif kinds[1].startswith(("int", "uint")):
                dtypes.add("dynamic")
        return dtypes

    def count(self, tally: Tally) -> None:
        """Add the graph's multiply-accumulates."""
        for name, operator in zip(self.names, self.operators, strict=True):
            counter = _PRODUCTS.get(name)
            if counter is None:
                if name.startswith(("CUSTOM", "BUILTIN_", "STABLEHLO_")) or name in _UNCOUNTED:
                    tally.unknown(f"{name} is not counted")
                continue
            try:
                tally.add(counter(_Operator(self, operator)))
            except UnknownError as error:
                tally.unknown(f"{name}: {error}")
            except (ValueError, IndexError):
                tally.unknown(f"{name}: its shapes do not fit it")


class _Operator:
    """An operator with the shapes of what it takes and gives, for one sample."""

    def __init__(self, graph: _Graph, operator: Any) -> None:
        self.graph = graph
        self.operator = operator
        self.inputs = graph.flat.integers(operator, "Inputs")
        self.outputs = graph.flat.integers(operator, "Outputs")

    def _shape(self, indices: list[int], position: int) -> Shape | None:
        if position >= len(indices) or indices[position] < 0:  # -1 stands for none
            return None
        shape = self.graph.flat.shape(self.graph.tensors[indices[position]])
        return (1, *shape[1:]) if shape and shape[0] is None else shape

    def input_shape(self, position: int) -> Shape | None:
        return self._shape(self.inputs, position)

    @property
    def output_shape(self) -> Shape | None:
        return self._shape(self.outputs, 0)

    def option(self, kind: str, field: str) -> Any:
        """A field of the operator's options."""
        table = self.operator.BuiltinOptions()
        if table is None:
            return 0
        options = getattr(self.graph.flat.schema, kind)()
        options.Init(table.Bytes, table.Pos)
        return getattr(options, field)()


def _depthwise(operator: _Operator) -> int:
    """Weights [1, height, width, channels]."""
    return prod(known_shape(operator.output_shape)) * prod(
        known_shape(operator.input_shape(1))[1:3]
    )


def _transposed(operator: _Operator) -> int:
    """TRANSPOSE_CONV: weights [out, height, width, in], then the data [N, H, W, in]."""
    return prod(known_shape(operator.input_shape(2))) * prod(
        known_shape(operator.input_shape(1))[:3]
    )


def _conv_3d(operator: _Operator) -> int:
    """Weights [depth, height, width, in, out]."""
    return prod(known_shape(operator.output_shape)) * prod(known_shape(operator.input_shape(1))[:4])


def _transposed_3d(operator: _Operator) -> int:
    """Weights [depth, height, width, out, in], then the data."""
    return prod(known_shape(operator.input_shape(2))) * prod(
        known_shape(operator.input_shape(1))[:4]
    )


def _fully_connected(operator: _Operator) -> int:
    """Weights [out, in]: every one of them for each row."""
    out, width = known_shape(operator.input_shape(1))
    return prod(known_shape(operator.input_shape(0))) // width * width * out


def _batch_matmul(operator: _Operator) -> int:
    left, right = known_shape(operator.input_shape(0)), known_shape(operator.input_shape(1))
    if operator.option("BatchMatMulOptions", "AdjX"):
        left = (*left[:-2], left[-1], left[-2])
    if operator.option("BatchMatMulOptions", "AdjY"):
        right = (*right[:-2], right[-1], right[-2])
    return macs.matmul(left, right)


def _sequence(*positions: int) -> Callable[[_Operator], int]:
    """A recurrent operator, with the places of its weights; those of absent gates are left out."""

    def count(operator: _Operator) -> int:
        weights = [
            shape for position in positions if (shape := operator.input_shape(position)) is not None
        ]
        return macs.recurrent(operator.input_shape(0), *weights)

    return count


_PRODUCTS: dict[str, Callable[[_Operator], int]] = {
    "CONV_2D": lambda operator: macs.convolution(operator.output_shape, operator.input_shape(1)),
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D": _conv_3d,
    "CONV_3D_TRANSPOSE": _transposed_3d,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    # The gates' input and recurrent weights are inputs 1 to 8, a projection's 16.
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence(*range(1, 9), 16),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _sequence(1, 2),
}
# Where an operator's data and weights are, unless first and second.
_PLACES = {
    "TRANSPOSE_CONV": (2, 1), "CONV_3D_TRANSPOSE": (2, 1), "UNIDIRECTIONAL_SEQUENCE_LSTM": (0, 2),
}  # fmt: skip
_UNCOUNTED = {
    "LSTM", "RNN", "SVDF", "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN",
    "CONCAT_EMBEDDINGS", "LSH_PROJECTION",
}  # fmt: skip
