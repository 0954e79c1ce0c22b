"""A `.tflite` file as objects that can be changed, and written back."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

# Where the weights and the bias of an operator are among its inputs.
WEIGHTED: dict[str, tuple[int, int]] = {
    "CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3), "CONV_3D": (1, 2), "BATCH_MATMUL": (1, -1),
}  # fmt: skip
MOVES = ("QUANTIZE", "DEQUANTIZE")


class Flatbuffer:
    """A file's first graph. Tensors are spoken of by their number in it."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT.InitFromPackedBuf(content, 0)
        self.graph = self.model.subgraphs[0]
        self.tensors: list[Any] = self.graph.tensors
        self.operators: list[Any] = self.graph.operators or []

    def packed(self) -> bytes:
        """The file's bytes, with what was changed."""
        import flatbuffers  # type: ignore[import-untyped]

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    @cached_property
    def _names(self) -> dict[int, str]:
        return {n: name for name, n in vars(self.schema.BuiltinOperator).items() if name[0] != "_"}

    def kind(self, operator: Any) -> str:
        """`CONV_2D` and so on."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return self._names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "")

    def inputs(self) -> dict[str, int]:
        """The signature's inputs: name to tensor."""
        return {
            entry.name.decode(): int(entry.tensorIndex)
            for entry in self.model.signatureDefs[0].inputs
        }

    def activations(self, operator: Any) -> list[int]:
        """The activations that an operator takes."""
        inputs = [] if operator.inputs is None else [int(number) for number in operator.inputs]
        return [number for number in inputs if number >= 0 and not self.constant(number)]

    def results(self, operator: Any) -> list[int]:
        """The tensors that an operator makes."""
        return [] if operator.outputs is None else [int(number) for number in operator.outputs]

    def constant(self, number: int) -> bool:
        """Whether a tensor's values stand in the file."""
        data = self.model.buffers[self.tensors[number].buffer].data
        return data is not None and len(data) > 0

    def is_float(self, number: int) -> bool:
        """Whether a tensor is of float32."""
        return bool(self.tensors[number].type == self.schema.TensorType.FLOAT32)

    def is_int8(self, number: int) -> bool:
        """Whether a tensor is of int8."""
        return bool(self.tensors[number].type == self.schema.TensorType.INT8)

    def array(self, number: int) -> Array | None:
        """A constant of float32, int32 or int8; None for anything else."""
        import numpy as np

        tensor = self.tensors[number]
        types = self.schema.TensorType
        kinds = {types.FLOAT32: np.float32, types.INT32: np.int32, types.INT8: np.int8}
        data = self.model.buffers[tensor.buffer].data
        if tensor.type not in kinds or data is None or not len(data):
            return None
        raw = np.frombuffer(np.asarray(data, np.uint8).tobytes(), kinds[tensor.type])
        shape = [] if tensor.shape is None else [int(size) for size in tensor.shape]
        return raw.reshape(shape)

    def bias(self, operator: Any) -> Array | None:
        """The constant float bias of an operator with weights."""
        index = WEIGHTED[self.kind(operator)][1]
        number = int(operator.inputs[index]) if 0 <= index < len(operator.inputs) else -1
        return self.array(number) if number >= 0 else None

    def store(self, number: int, array: Array) -> None:
        """Give a tensor other values, in a buffer of its own: equal ones are shared."""
        import numpy as np

        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.tensors[number].buffer = len(self.model.buffers) - 1

    def grid(self, number: int) -> tuple[Array, Array, int] | None:
        """Scales, zero points and their axis."""
        import numpy as np

        quantization = self.tensors[number].quantization
        if quantization is None or quantization.scale is None or not len(quantization.scale):
            return None
        zeros = [0] if quantization.zeroPoint is None else quantization.zeroPoint
        return (
            np.asarray(quantization.scale, np.float32),
            np.asarray(zeros),
            int(quantization.quantizedDimension),
        )

    def set_grid(self, number: int, scales: Array, axis: int = 0, zero: int = 0) -> None:
        """Give a tensor scales along an axis, one zero point, and no range."""
        quantization = self.tensors[number].quantization or self.schema.QuantizationParametersT()
        quantization.scale = [float(scale) for scale in scales]
        quantization.zeroPoint = [zero] * len(quantization.scale)
        quantization.quantizedDimension = axis
        quantization.min = quantization.max = None
        self.tensors[number].quantization = quantization

    def set_range(self, number: int, low: float, high: float) -> None:
        """The calibrated range of a tensor, which the quantizer makes its grid of."""
        quantization = self.tensors[number].quantization or self.schema.QuantizationParametersT()
        quantization.min, quantization.max = [low], [high]
        self.tensors[number].quantization = quantization

    def clear_range(self, number: int) -> None:
        """Without a range a tensor stays float, and so does the operator that makes it."""
        quantization = self.tensors[number].quantization
        if quantization is not None:
            quantization.min = quantization.max = None

    def has_range(self, number: int) -> bool:
        """Whether a tensor has a calibrated range."""
        quantization = self.tensors[number].quantization
        return (
            quantization is not None and quantization.min is not None and len(quantization.min) > 0
        )

    def drop_unused(self) -> None:
        """Empty the buffers that no tensor has any more, so that they cost nothing."""
        used = {tensor.buffer for graph in self.model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self.model.metadata or []}
        for number, buffer in enumerate(self.model.buffers):
            if number not in used:
                buffer.data = None
