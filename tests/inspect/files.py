"""Small model files of every format, made without a converter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import onnx.parser
from ai_edge_litert import schema_py_generated as schema


def save_onnx(folder: Path, text: str, name: str = "model.onnx", **weights: Any) -> Path:
    """An ONNX file from onnx's textual form of its graph; `weights` are its initializers."""
    model = onnx.parser.parse_model(text)
    for key, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), key))
    path = folder / name
    onnx.save(model, path)
    return path


def graph(body: str, opset: int = 17, more: str = "") -> str:
    """The text of a model with one graph."""
    return f'<ir_version: 8, opset_import: ["" : {opset}{more}]>\n{body}'


def floats(*shape: int) -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def save_ort(source: Path, optimized: bool = True) -> Path:
    """The ONNX file in ONNX Runtime's format, as its session writes it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(source.with_suffix(".ort"))
    options.add_session_config_entry("session.save_model_format", "ORT")
    levels = onnxruntime.GraphOptimizationLevel
    level = levels.ORT_ENABLE_EXTENDED if optimized else levels.ORT_DISABLE_ALL
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return source.with_suffix(".ort")


class Flatbuffer:
    """A `.tflite` file of one graph, tensor by tensor and operator by operator."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str = "float32",
        data: np.ndarray | None = None,
        scales: tuple[float, ...] = (),
        signature: tuple[int, ...] | None = None,
        buffer: int | None = None,
    ) -> int:
        """Its index. `data` makes it constant; `buffer` shares another tensor's data."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape = name, list(shape)
        tensor.type = getattr(schema.TensorType, dtype.upper())
        if signature:
            tensor.shapeSignature = list(signature)
        if scales:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = list(scales)
            tensor.quantization.zeroPoint = [-3] * len(scales)
        if data is not None:
            stored = schema.BufferT()
            stored.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(stored)
            tensor.buffer = len(self.model.buffers) - 1
        else:
            tensor.buffer = buffer or 0
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self, kind: str, inputs: list[int], outputs: list[int], options: Any = None
    ) -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, outputs
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.graph.operators.append(operator)

    def save(self, path: Path, inputs: list[int], outputs: list[int]) -> Path:
        self.graph.inputs, self.graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def dense(path: Path, dtype: str = "float32", activations: str = "float32") -> Path:
    """A fully connected layer: [1, 6] by weights [4, 6], and a bias."""
    flat = Flatbuffer()
    quantized = dtype != "float32"
    scales = (0.5,) if activations != "float32" else ()
    data = flat.tensor("x", (1, 6), activations, scales=scales)
    weights = flat.tensor("w", (4, 6), dtype, np.ones((4, 6), dtype), (0.1,) if quantized else ())
    kind = "float32" if activations == "float32" else "int32"
    bias = flat.tensor("b", (4,), kind, np.ones(4, kind), (0.05,) if kind == "int32" else ())
    output = flat.tensor("y", (1, 4), activations, scales=scales)
    flat.operator(
        "FULLY_CONNECTED", [data, weights, bias], [output], schema.FullyConnectedOptionsT()
    )
    return flat.save(path, [data], [output])
