"""What the mobile execution providers of ONNX Runtime take of an ONNX graph.

NNAPI and CoreML by onnxruntime's own usability checker. XNNPACK, which the checker leaves out, by
the documented list of operators, through the same checker's estimate of partitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.onnxgraph.ort_tools import tool
from workbench.onnxgraph.walk import constants, consumers, inputs, producers

if TYPE_CHECKING:
    import onnx

Shapes = Mapping[str, tuple[int | None, ...] | None]

_FORMS = {
    "NNAPI": "nnapi_supported_ops.md",
    "CoreML NeuralNetwork": "coreml_supported_neuralnetwork_ops.md",
    "CoreML MLProgram": "coreml_supported_mlprogram_ops.md",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one execution provider takes of a graph.

    Attributes:
        taken: nodes that it takes.
        nodes: of the graph.
        partitions: pieces that the nodes it takes fall into.
        word: "yes", "maybe" or "no", where the checker judges.
        fixed: whether that holds only after the open axes are fixed.
        refused: operators that it does not have.
    """

    taken: int
    nodes: int
    partitions: int
    word: str = ""
    fixed: bool = False
    refused: tuple[str, ...] = ()

    @property
    def counts(self) -> str:
        """How many nodes it takes, and in how many pieces, in words."""
        several = "" if self.partitions == 1 else "s"
        return f"{self.taken}/{self.nodes} nodes, {self.partitions} partition{several}"

    def __str__(self) -> str:
        fixed = " with fixed shapes" if self.fixed else ""
        return f"{self.word}{fixed} ({self.counts})" if self.word else self.counts


_CHECKER = "mobile_helpers.usability_checker"


def verdicts(model: onnx.ModelProto) -> dict[str, Verdict]:
    """What NNAPI and CoreML (in its two forms) take, by onnxruntime's checker.

    As `python -m onnxruntime.tools.check_onnx_model_mobile_usability --skip_optimize` judges: of
    the graph as it is, or as it were with its open axes fixed where that is better. `model` may
    lack its large weights. Raises what the checker raises.
    """
    import onnx

    checker = tool(_CHECKER)
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    _lift(graph)
    opened = [value for value in inputs(graph) if not _fixed(value)]
    inner = bool(graph.value_info) or len(graph.node) <= 1
    by_provider = {}
    for provider, listing in _FORMS.items():
        path = Path(checker.__file__).parent / listing
        limits = {"max_rank": 5} if provider.startswith("CoreML") else {}

        def judge(as_is: bool, path: Path = path, limits: dict[str, int] = limits) -> Verdict:
            supported = checker._SupportedOpsChecker(path)
            info = checker.check_partitioning(graph, supported, as_is, **limits)
            return _verdict(info, fixed=not as_is and bool(opened))

        # Without any inner shape the checker cannot judge the graph as it is.
        verdict = judge(as_is=True) if inner else judge(as_is=False)
        if verdict.word != "yes" and opened:
            verdict = judge(as_is=False)
        by_provider[provider] = verdict
    return by_provider


def _lift(graph: onnx.GraphProto) -> None:
    """Constant nodes as initializers, in place: so ONNX Runtime has them once a file is loaded."""
    stored = constants(graph)
    names = {tensor.name for tensor in graph.initializer}
    for name, tensor in stored.items():
        if name not in names:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = name
    remaining = [node for node in graph.node if not stored.keys() & set(node.output)]
    if len(remaining) < len(graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in remaining]
        del graph.node[:]
        graph.node.extend(copies)


def _verdict(info: Any, *, fixed: bool) -> Verdict:
    return Verdict(
        taken=info.num_supported_nodes,
        nodes=info.num_nodes,
        partitions=info.num_partitions,
        word=info.suitability().name.lower(),
        fixed=fixed,
        refused=tuple(sorted(name.removeprefix("ai.onnx:") for name in info.unsupported_ops)),
    )


def _fixed(value: onnx.ValueInfoProto) -> bool:
    """Whether a tensor's every axis has a size."""
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(axis.dim_value > 0 for axis in tensor.shape.dim)


def xnnpack(model: onnx.ModelProto, shapes: Shapes, opset: int) -> Verdict:
    """What ONNX Runtime's XNNPACK execution provider takes, by its documented operators.

    https://onnxruntime.ai/docs/execution-providers/Xnnpack-ExecutionProvider.html#supported-ops
    lists them with what each requires, which is checked here against `shapes` by tensor name (the
    main graph's, of one sample). A Relu or Clip that follows a convolution or pool is fused into
    it (onnxruntime/core/providers/xnnpack/detail/node_support_checker.cc), and QuantizeLinear and
    DequantizeLinear go with the operator between them.
    """
    graph = type(model.graph)()
    graph.CopyFrom(model.graph)
    _lift(graph)
    listed = _Listed(graph, shapes, opset)
    info = tool(_CHECKER).check_partitioning(graph, listed, False)
    unsupported = Counter(
        f"{node.domain}:{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        for node in graph.node
        # Those stay behind with the operators between them, which are named.
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
        and not listed.is_op_supported(node)
    )
    return Verdict(
        taken=info.num_supported_nodes,
        nodes=info.num_nodes,
        partitions=info.num_partitions,
        refused=tuple(name for name, _ in unsupported.most_common()),
    )


class _Listed:
    """The documented list as the checker asks it: node by node."""

    def __init__(self, graph: onnx.GraphProto, shapes: Shapes, opset: int) -> None:
        self.shapes = shapes
        self.opset = opset
        self.producers = producers(graph.node)
        self.consumers = consumers(graph.node)
        self.constants = {tensor.name for tensor in graph.initializer}

    def get_caveats(self) -> list[str]:
        return []

    def is_op_supported(self, node: onnx.NodeProto) -> bool:
        kind = node.op_type
        if kind == "DequantizeLinear":
            users = [consumer for name in node.output for consumer in self.consumers.get(name, [])]
            return bool(users) and all(self._has(user) for user in users)
        if kind == "QuantizeLinear":
            return self._produced_by_supported(node)
        if kind in ("Relu", "Clip") and node.domain in ("", "ai.onnx"):
            before = self.producers.get(node.input[0]) if node.input else None
            fusable = before is not None and before.op_type in ("Conv", "MaxPool", "AveragePool")
            bounds = all(self._constant(name) for name in node.input[1:] if name)
            return fusable and bounds and self._produced_by_supported(node)
        return self._has(node)

    def _produced_by_supported(self, node: onnx.NodeProto) -> bool:
        producer = self.producers.get(node.input[0]) if node.input else None
        if producer is None:
            return False
        if producer.op_type in ("Relu", "Clip"):
            producer = self.producers.get(producer.input[0]) if producer.input else None
        return producer is not None and self._has(producer)

    def _has(self, node: onnx.NodeProto) -> bool:
        """Whether the documented list has the operator, and the node what that requires."""
        domain = "" if node.domain == "ai.onnx" else node.domain
        check = _XNNPACK.get(f"{domain}:{node.op_type}")
        return check is not None and check(self, node)

    def _constant(self, name: str) -> bool:
        """Whether a tensor is stored in the file, perhaps quantized."""
        before = self.producers.get(name)
        if before is not None and before.op_type == "DequantizeLinear":
            name = before.input[0]
        return name in self.constants

    def rank(self, node: onnx.NodeProto, index: int) -> int | None:
        if index >= len(node.input):
            return None
        shape = self.shapes.get(node.input[index])
        return None if shape is None else len(shape)

    def convolution(self, node: onnx.NodeProto) -> bool:
        """2D, weights and bias constant."""
        constant = all(self._constant(name) for name in node.input[1:3] if name)
        return constant and self.rank(node, 1) == 4

    def quantized_convolution(self, node: onnx.NodeProto) -> bool:
        """2D; weights, bias, scales and zero points constant."""
        constant = all(self._constant(name) for name in node.input[1:] if name)
        return constant and self.rank(node, 3) == 4

    def pool(self, node: onnx.NodeProto) -> bool:
        return self.rank(node, 0) == 4

    def quantized_pool(self, node: onnx.NodeProto) -> bool:
        return self.rank(node, 0) == 4 and self.scales(node)

    def scales(self, node: onnx.NodeProto) -> bool:
        return all(self._constant(name) for name in node.input[1:] if name)

    def softmax(self, node: onnx.NodeProto) -> bool:
        """Any below opset 13; from there on, over the last axis."""
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        rank = self.rank(node, 0)
        return self.opset < 13 or axis == -1 or (rank is not None and axis == rank - 1)

    def resize(self, node: onnx.NodeProto) -> bool:
        mode = next(
            (attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest"
        )
        return mode == b"linear" and self.rank(node, 0) in (2, 4)

    def product(self, node: onnx.NodeProto) -> bool:
        return self.rank(node, 0) == self.rank(node, 1) == 2


_XNNPACK: dict[str, Callable[[_Listed, Any], bool]] = {
    ":AveragePool": _Listed.pool,
    ":Conv": _Listed.convolution,
    ":ConvTranspose": _Listed.convolution,
    ":MaxPool": _Listed.pool,
    ":Softmax": _Listed.softmax,
    ":QLinearConv": _Listed.quantized_convolution,
    ":Resize": _Listed.resize,
    ":Gemm": _Listed.product,
    ":MatMul": _Listed.product,
    "com.microsoft:QLinearAveragePool": _Listed.quantized_pool,
    "com.microsoft:QLinearSoftmax": _Listed.scales,
    "com.microsoft:QLinearConvTranspose": _Listed.quantized_convolution,
}
