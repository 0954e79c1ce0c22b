"""Small random nets, seeded: what a converter or a student may hand over, the odd cases too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests import nets

Array = NDArray[Any]
Feeds = dict[str, Array]
Batches = Callable[[int], Iterable[Feeds]]

SIZE = 8  # of images
ACTIVATIONS = ("Relu", "LeakyRelu", "Clip", "HardSwish", "Sigmoid", "none", "PRelu")


@dataclass
class Net:
    """A model under construction, with generators for its weights and for its samples."""

    seed: int
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scales: dict[str, Array] = field(default_factory=dict)  # of each input's channels
    outputs: list[str] = field(default_factory=list)
    fixed: bool = False  # the batch is 1
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def input(self, name: str, *shape: int, scales: Array | None = None) -> str:
        self.inputs[name] = shape
        wide = np.ones(shape[0]) if scales is None else scales
        self.scales[name] = wide.reshape(-1, *[1] * (len(shape) - 1))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.weights)}"
        self.weights[name] = np.asarray(value, dtype)
        return name

    def normal(self, *shape: int, size: float = 1.0) -> str:
        return self.constant(self.rng.normal(size=shape) * size)

    def node(self, op: str, *inputs: str, count: int = 1, **attributes: Any) -> Any:
        number = len(self.nodes)
        made = [f"t{number}" + (f"_{i}" if count > 1 else "") for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, made, f"{op.lower()}{number}", **attributes))
        return made if count > 1 else made[0]

    def conv(
        self, x: str, given: int, made: int, kernel: int = 3, group: int = 1, stride: int = 1,
        bias: bool = True, weights: str | None = None,
    ) -> str:  # fmt: skip
        if weights is None:
            shape = (made, given // group, kernel, kernel)
            rows = np.exp(self.rng.normal(size=(made, 1, 1, 1)) * 0.7)  # uneven channels
            fan = (given // group) * kernel * kernel
            weights = self.constant(self.rng.normal(size=shape) * rows / np.sqrt(fan))
        more = [self.normal(made, size=0.5)] if bias else []
        pad = kernel // 2
        return str(self.node(
            "Conv", x, weights, *more, kernel_shape=[kernel] * 2, pads=[pad] * 4,
            strides=[stride] * 2, group=group,
        ))  # fmt: skip

    def batch_norm(self, x: str, count: int) -> str:
        gamma = np.exp(self.rng.normal(size=count) * 0.7) * self.rng.choice([1, 1, 1, -1], count)
        variance = self.rng.uniform(0.3, 2, count)
        return str(self.node(
            "BatchNormalization", x, self.constant(gamma), self.normal(count, size=0.5),
            self.normal(count, size=0.2), self.constant(variance),
        ))  # fmt: skip

    def activation(self, x: str, kind: str, count: int = 1) -> str:
        if kind == "none":
            return x
        if kind == "Clip":
            return str(self.node("Clip", x, self.constant(0.0), self.constant(6.0)))
        if kind == "PRelu":
            slopes = self.constant(self.rng.uniform(0, 0.4, (count, 1, 1)))
            return str(self.node("PRelu", x, slopes))
        if kind == "HardSwish" and self.opset < 14:
            gate = self.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)
            return str(self.node("Mul", x, gate))
        more = {"alpha": 0.1} if kind == "LeakyRelu" else {}
        return str(self.node(kind, x, **more))

    def model(self) -> onnx.ModelProto:
        real = TensorProto.FLOAT
        batch: Any = 1 if self.fixed else "batch"
        graph = helper.make_graph(
            self.nodes, "random",
            [helper.make_tensor_value_info(k, real, (batch, *v)) for k, v in self.inputs.items()],
            [helper.make_tensor_value_info(name, real, None) for name in self.outputs],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        known = onnx.shape_inference.infer_shapes(made)
        del known.graph.value_info[:]
        onnx.checker.check_model(known)
        return known

    def samples(self, count: int, seed: int) -> Feeds:
        """Samples as images are: a value that a whole channel shares, and noise."""
        rng = np.random.default_rng((self.seed, seed))
        found = {}
        for name, shape in self.inputs.items():
            values = rng.normal(size=(count, *shape))
            values += rng.normal(size=(count, shape[0], *[1] * (len(shape) - 1)))
            found[name] = (values * self.scales[name]).astype(np.float32)
        return found


def in_batches(feeds: Feeds, fixed: bool = False) -> Batches:
    """The samples as `engine.quantize` takes them; one by one where the batch is fixed."""

    def batches(size: int) -> Iterable[Feeds]:
        step = 1 if fixed else size
        for start in range(0, len(next(iter(feeds.values()))), step):
            yield {name: value[start : start + step] for name, value in feeds.items()}

    return batches


# Blocks: each takes a tensor and its channels, gives the same, [N, C, H, W].


def _plain(net: Net, x: str, count: int) -> tuple[str, int]:
    made = int(net.rng.choice([4, 8, 12]))
    kernel = int(net.rng.choice([1, 3]))
    y = net.conv(x, count, made, kernel, bias=bool(net.rng.integers(2)))
    if net.rng.integers(2):
        y = net.batch_norm(y, made)
    return net.activation(y, str(net.rng.choice(ACTIVATIONS)), made), made


def _depthwise(net: Net, x: str, count: int) -> tuple[str, int]:
    y = net.activation(net.conv(x, count, count, 3, group=count), str(net.rng.choice(ACTIVATIONS)),
                       count)  # fmt: skip
    return net.activation(net.conv(y, count, 8, 1), "Relu"), 8


def _grouped(net: Net, x: str, count: int) -> tuple[str, int]:
    y = net.conv(x, count, 8, 3, group=2)
    return net.activation(y, str(net.rng.choice(ACTIVATIONS)), 8), 8


def _residual(net: Net, x: str, count: int) -> tuple[str, int]:
    y = net.activation(net.conv(x, count, count, 3), "Relu")
    y = net.conv(y, count, count, 1)
    pair = (x, y) if net.rng.integers(2) else (y, x)
    return net.activation(str(net.node("Add", *pair)), str(net.rng.choice(ACTIVATIONS)), count), (
        count
    )


def _concat(net: Net, x: str, count: int) -> tuple[str, int]:
    left = net.activation(net.conv(x, count, 4, 1), "Relu")
    right = net.conv(x, count, 4, 3)
    given = [left, right, x] if net.rng.integers(2) else [left, right]
    return str(net.node("Concat", *given, axis=1)), 8 + count * (len(given) == 3)


def _shuffle(net: Net, x: str, count: int) -> tuple[str, int]:
    half = count // 2
    y = net.node("Reshape", x, net.constant([0, 2, half, SIZE, SIZE], np.int64))
    y = net.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    return str(net.node("Reshape", y, net.constant([0, count, SIZE, SIZE], np.int64))), count


def _split(net: Net, x: str, count: int) -> tuple[str, int]:
    half = count // 2
    sizes = net.constant([half, count - half], np.int64)
    left, right = net.node("Split", x, sizes, count=2, axis=1)
    right = net.activation(net.conv(right, count - half, half, 3), "Relu")
    return str(net.node("Concat", left, right, axis=1)), 2 * half


def _gate(net: Net, x: str, count: int) -> tuple[str, int]:
    y = net.node("GlobalAveragePool", x)
    y = net.activation(net.conv(y, count, 4, 1), "Relu")
    y = net.conv(y, 4, count, 1)
    kind = str(net.rng.choice(["Sigmoid", "HardSigmoid"]))
    return str(net.node("Mul", x, net.node(kind, y))), count


def _pool(net: Net, x: str, count: int) -> tuple[str, int]:
    kind = str(net.rng.choice(["MaxPool", "AveragePool"]))
    return str(net.node(kind, x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])), count


def _shared(net: Net, x: str, count: int) -> tuple[str, int]:
    weights = net.normal(count, count, 3, 3, size=1 / np.sqrt(9 * count))
    y = net.activation(net.conv(x, count, count, weights=weights), "Relu")
    return net.activation(net.conv(y, count, count, weights=weights), "Relu"), count


def _dead(net: Net, x: str, count: int) -> tuple[str, int]:
    """Channels that are always 0 behind the ReLU, and one that is constant."""
    weights = net.rng.normal(size=(8, count, 3, 3)) / np.sqrt(9 * count)
    bias = net.rng.normal(size=8)
    bias[:2] = -1e4 if net.rng.integers(2) else -10
    weights[:2] *= 1e-3
    weights[2] = 0
    y = net.node("Conv", x, net.constant(weights), net.constant(bias), kernel_shape=[3, 3],
                 pads=[1] * 4)  # fmt: skip
    return net.activation(y, "Relu"), 8


def _shifted(net: Net, x: str, count: int) -> tuple[str, int]:
    shape = [(count, 1, 1), (1, count, 1, 1), (1,)][int(net.rng.integers(3))]
    y = net.node("Add", x, net.normal(*shape))
    kind = str(net.rng.choice(["none", "scale"]))
    if kind == "scale":
        y = net.node("Mul", y, net.constant(np.exp(net.rng.normal(size=(count, 1, 1)))))
    return net.activation(net.conv(y, count, 8, 1), "Relu"), 8


BLOCKS = (_plain, _plain, _depthwise, _grouped, _residual, _concat, _shuffle, _split, _gate, _pool,
          _shared, _dead, _shifted)  # fmt: skip


def _head(net: Net, x: str, count: int) -> str:
    kind = int(net.rng.integers(4))
    if kind == 0:  # a segmentation's: images out
        return net.conv(x, count, 3, 1)
    if kind == 1:
        y = net.node("Flatten", net.node("GlobalAveragePool", x))
    elif kind == 2:
        axes = {"axes": [2, 3]}
        y = net.node("ReduceMean", x, keepdims=0, **axes)
    else:
        pooled = net.node("AveragePool", x, kernel_shape=[4, 4], strides=[4, 4])
        y, count = net.node("Flatten", pooled), count * (SIZE // 4) ** 2
    if net.rng.integers(2):
        y = net.activation(net.node("Gemm", y, net.normal(count, 8, size=count**-0.5),
                                    net.normal(8)), "Relu")  # fmt: skip
        count = 8
    if net.rng.integers(4) == 0:
        return str(net.node("MatMul", y, net.normal(count, 5, size=count**-0.5)))
    return str(net.node("Gemm", y, net.normal(5, count, size=count**-0.5), net.normal(5), transB=1))


def _tokens(net: Net) -> None:
    """A small transformer block with one head: MatMul, LayerNormalization, Softmax, Gelu."""
    width, length = 8, 6
    net.opset = 17
    x = net.input("x", length, width)

    def dense(y: str, given: int, made: int) -> str:
        product = net.node("MatMul", y, net.normal(given, made, size=given**-0.5))
        return str(net.node("Add", product, net.normal(made, size=0.3)))

    def norm(y: str) -> str:
        gamma = net.constant(np.exp(net.rng.normal(size=width)))
        return str(net.node("LayerNormalization", y, gamma, net.normal(width), axis=-1))

    for _ in range(int(net.rng.integers(1, 3))):
        y = norm(x)
        q, k, v = (dense(y, width, width) for _ in range(3))
        scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 2, 1]))
        weights = net.node("Softmax", net.node("Div", scores, net.constant(width**0.5)), axis=-1)
        x = net.node("Add", x, dense(net.node("MatMul", weights, v), width, width))
        y = dense(norm(x), width, 16)
        erf = net.node("Erf", net.node("Div", y, net.constant(2**0.5)))
        half = net.node("Mul", y, net.node("Add", erf, net.constant(1.0)))
        x = net.node("Add", x, dense(net.node("Mul", half, net.constant(0.5)), 16, width))
    net.outputs.append(dense(norm(x), width, 4))


def random_net(seed: int) -> Net:
    """The net of a seed: blocks in any order, sometimes outliers, several inputs or outputs."""
    net = Net(seed, opset=17 if seed % 2 else 13)
    if seed % 10 == 9:
        _tokens(net)
        return net
    net.fixed = seed % 10 == 4
    count = int(net.rng.choice([3, 4]))
    scales = np.ones(count)
    if seed % 6 == 5:
        scales[0] = 1e6
    x = net.input("x", count, SIZE, SIZE, scales=scales)
    if scales[0] > 1:  # the net itself brings the outlier back to size
        weights = net.rng.normal(size=(8, count, 3, 3)) / np.sqrt(9 * count) / scales[:, None, None]
        x, count = net.activation(
            str(net.node("Conv", x, net.constant(weights), net.normal(8), kernel_shape=[3, 3],
                         pads=[1] * 4)), "Relu"), 8  # fmt: skip
    elif net.rng.integers(4):
        x, count = _plain(net, x, count)
    if seed % 7 == 3:
        other = net.input("extra", 4, SIZE, SIZE)
        other, _ = net.conv(other, 4, count, 3), count
        x = str(net.node(str(net.rng.choice(["Add", "Mul"])), x, other))
    for _ in range(int(net.rng.integers(1, 5))):
        x, count = (
            BLOCKS[int(net.rng.integers(len(BLOCKS)))](net, x, count - count % 2 or count)
            if count % 2 == 0
            else _plain(net, x, count)
        )
        if net.rng.integers(8) == 0 and len(net.outputs) < 1:
            net.outputs.append(net.conv(x, count, 2, 1))
    net.outputs.append(_head(net, x, count))
    return net


def run_all(
    model: onnx.ModelProto, feeds: Feeds, fixed: bool = False, optimized: bool = True
) -> list[Array]:
    """A model's outputs in ONNX Runtime, for samples in batches as it takes them.

    As of `nets.run_onnx`: without fusions where INT8 kernels saturate.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    file = model.SerializeToString()
    if not optimized or nets.saturates(file):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    parts = [session.run(None, batch) for batch in in_batches(feeds, fixed)(1000)]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def decibels(wanted: Iterable[Array], found: Iterable[Array], left_out: int = 0) -> float:
    """SQNR over all outputs, each over its own power; 120 at most, above it all is equal.

    left_out: so many samples with the largest errors do not count.
    """
    shares = []
    for one, other in zip(wanted, found, strict=True):
        errors = np.square(one - other.astype(np.float64)).reshape(len(one), -1).mean(1)
        kept = np.sort(errors)[: len(errors) - left_out]
        shares.append(float(kept.mean() / np.square(one).mean()))
    return float(-10 * np.log10(max(np.mean(shares), 1e-12)))
