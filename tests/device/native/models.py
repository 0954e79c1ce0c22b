"""Small models of the kinds that runners run, made without a converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.inspect.files import Flatbuffer, floats, graph, save_onnx, save_ort

WEIGHTS = np.random.default_rng(5).standard_normal((8, 6)).astype(np.float32)


def onnx_float(folder: Path) -> Path:
    return save_onnx(
        folder, graph("g (float[n, 8] x) => (float[n, 6] y) { z = MatMul(x, w) y = Relu(z) }"),
        "float.onnx", w=WEIGHTS,
    )  # fmt: skip


def onnx_int8(folder: Path) -> Path:
    """The same with quantized weights and activations, as QDQ."""
    step = np.float32(np.abs(WEIGHTS).max() / 127)
    return save_onnx(
        folder,
        graph(
            """g (float[n, 8] x) => (float[n, 6] y) {
                a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)
                w = DequantizeLinear(k, t, z) c = MatMul(b, w)
                d = QuantizeLinear(c, u, z) y = DequantizeLinear(d, u, z)
            }"""
        ),
        "int8.onnx",
        k=np.round(WEIGHTS / step).astype(np.int8), s=np.float32(0.03), t=step, u=np.float32(0.1),
        z=np.int8(0),
    )  # fmt: skip


def ort_file(folder: Path) -> Path:
    return save_ort(onnx_float(folder))


def tflite(folder: Path, dtype: str = "float32") -> Path:
    """relu of x by 8 columns of weights, [1, 8] to [1, 6]; int8 within and without, or floats."""
    flat = Flatbuffer()
    whole = dtype == "int8"
    stored = np.round(WEIGHTS.T * 40).clip(-127, 127) if whole else WEIGHTS.T
    x = flat.tensor("serving_default_x:0", (1, 8), dtype, scales=(0.03,) if whole else ())
    weights = flat.tensor("w", (6, 8), dtype, stored.astype(dtype), (0.025,) if whole else ())
    if whole:
        flat.graph.tensors[weights].quantization.zeroPoint = [0]
    kind = "int32" if whole else "float32"
    bias = flat.tensor("b", (6,), kind, np.ones(6, kind), (0.03 * 0.025,) if whole else ())
    y = flat.tensor("PartitionedCall:0", (1, 6), dtype, scales=(0.1,) if whole else ())
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    flat.operator("FULLY_CONNECTED", [x, weights, bias], [y], options)
    return flat.save(folder / f"{dtype}.tflite", [x], [y])


def tflite_of_three(folder: Path, signed: bool = False) -> Path:
    """a - b, and b + b, of int32 and float32; the second input's batch is open.

    signed: with a signature, whose names are others than the tensors'.
    """
    flat = Flatbuffer()
    a, b = flat.tensor("first:0", (1, 3)), flat.tensor("second:0", (1, 3))
    ids = flat.tensor("ids:0", (2,), "int32")
    difference, double = flat.tensor("out:0", (1, 3)), flat.tensor("out:1", (1, 3))
    twice = flat.tensor("out:2", (2,), "int32")
    flat.operator("SUB", [a, b], [difference], schema.SubOptionsT())
    flat.operator("ADD", [b, b], [double], schema.AddOptionsT())
    flat.operator("ADD", [ids, ids], [twice], schema.AddOptionsT())
    if signed:
        found = schema.SignatureDefT()
        found.signatureKey, found.subgraphIndex = "serving_default", 0
        found.inputs = [_named("left", a), _named("right", b), _named("ids", ids)]
        found.outputs = [_named("minus", difference), _named("both", double), _named("n", twice)]
        flat.model.signatureDefs = [found]
    return flat.save(folder / "three.tflite", [a, b, ids], [difference, double, twice])


def _named(name: str, index: int) -> schema.TensorMapT:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made


def tflite_open(folder: Path) -> Path:
    """x + x, where x has as many rows as it is given."""
    flat = Flatbuffer()
    x = flat.tensor("x", (1, 4), signature=(-1, 4))
    y = flat.tensor("y", (1, 4), signature=(-1, 4))
    flat.operator("ADD", [x, x], [y], schema.AddOptionsT())
    return flat.save(folder / "open.tflite", [x], [y])


def onnx_of_many(folder: Path) -> Path:
    """a + b, k + 1, and where a is above 0: places, whose number the data decides."""
    return save_onnx(
        folder,
        graph(
            """g (float[n, 3] a, float[n, 3] b, int64[1] k)
                => (float[n, 3] sum, int64[2, m] places, int64[1] next, bool[n, 3] positive) {
                sum = Add(a, b) positive = Greater(a, zero) places = NonZero(positive)
                next = Add(k, one)
            }"""
        ),
        "many.onnx", zero=np.float32(0), one=np.array([1], np.int64),
    )  # fmt: skip


def onnx_slow(folder: Path) -> Path:
    """Some milliseconds of work for a thread."""
    return save_onnx(
        folder,
        graph("g (float[1, 256] x) => (float[1, 256] y) { a = MatMul(x, w) y = MatMul(a, w) }"),
        "slow.onnx", w=floats(256, 256) / 256,
    )  # fmt: skip
