"""A plan written as an ONNX graph with QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.placement import FUSED, clip_bounds
from workbench.quantization.core.plan import ActivationRange, QuantizationPlan, widen_for_bias

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.placement import OperatorPlacement

Array = NDArray[Any]


def write_qdq(
    network: Network, placement: OperatorPlacement, plan: QuantizationPlan
) -> onnx.ModelProto:
    """The quantized model: activations per tensor, weights per channel, biases int32.

    Consumers of a quantized tensor that an INT8 node made read what was quantized; of one that a
    float node made, INT8 nodes alone do. A Relu whose quantization clips at 0 is left out.
    """
    return _Writer(network, placement, plan).write()


class _Writer:
    def __init__(
        self, network: Network, placement: OperatorPlacement, plan: QuantizationPlan
    ) -> None:
        self.network, self.placement, self.plan = network, placement, plan
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.written: set[str] = set()  # tensors that have their DequantizeLinear
        self.renamed: dict[str, str] = {}  # an output to what stands for it: a Relu left out

    def write(self) -> onnx.ModelProto:
        import onnx

        from workbench.onnxgraph.walk import taken_names

        model = onnx.ModelProto()
        model.CopyFrom(self.network.model)
        graph = model.graph
        for name in self.network.inputs:
            if name in self.placement.tensors:
                self._pair(name)
        for node in self.network.nodes:
            self._node(node)
        del graph.node[:]
        graph.node.extend(self.nodes)
        taken = set(taken_names(graph))
        kept = [tensor for tensor in graph.initializer if tensor.name in taken]
        kept += list(self.initializers.values())
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        return model

    def _node(self, node: NetworkNode) -> None:
        import onnx

        integer = node.name in self.placement.nodes
        copy = onnx.NodeProto()
        copy.CopyFrom(node.proto)
        for position, name in enumerate(node.inputs):
            copy.input[position] = self._read(name, integer)
        if integer and node.name in self.plan.weights:
            self._weights(node, copy)
        elif integer and node.op in ("Add", "Sub", "Mul", "PRelu", "Concat"):
            for position, name in enumerate(node.inputs):
                if name in self.network.constants:
                    copy.input[position] = self._constant(name)
        if self._is_redundant(node):
            self.renamed[node.output] = copy.input[0]
        else:
            self.nodes.append(copy)
        if integer:
            for name in node.outputs:
                if name in self.placement.quantized:
                    self._pair(name)

    def _read(self, name: str, integer: bool) -> str:
        """What a node takes for a tensor."""
        producer = self.network.producers.get(name)
        if name in self.placement.quantized and (
            integer or (producer is not None and producer.name in self.placement.nodes)
        ):
            if name not in self.written:
                self._pair(name)
            return f"{name}_dq8"
        return self.renamed.get(name, name)

    def _is_redundant(self, node: NetworkNode) -> bool:
        """Whether a Relu or Clip only does what quantization of its output does anyway."""
        if node.op not in FUSED or node.inputs[0] not in self.placement.fused:
            return False
        output, scheme = self.plan.ranges[node.output], self.plan.scheme
        _, high = clip_bounds(node, self.network)
        return output.grid(scheme)[1] == 0 and not scheme.symmetric and (
            high is None or output.high <= high * (1 + 1e-6)
        )  # fmt: skip

    def _pair(self, name: str) -> None:
        """Quantize an activation and dequantize it."""
        from onnx.helper import make_node

        root = self.placement.root(name)
        scale, zero_point = self._parameters(root, self.plan.ranges[root])
        source = [self.renamed.get(name, name), scale, zero_point]
        self.nodes.append(make_node("QuantizeLinear", source, [f"{name}_q8"], f"{name}/q"))
        self._dequantize(name, scale, zero_point)

    def _dequantize(self, name: str, scale: str, zero_point: str, **attributes: int) -> str:
        """Dequantize what stands in `NAME_q8`; the name of the result."""
        from onnx.helper import make_node

        self.written.add(name)
        inputs = [f"{name}_q8", scale, zero_point]
        self.nodes.append(make_node("DequantizeLinear", inputs, [f"{name}_dq8"], **attributes))
        return f"{name}_dq8"

    def _parameters(self, name: str, tensor_range: ActivationRange) -> tuple[str, str]:
        scale, zero = tensor_range.grid(self.plan.scheme)
        signed = self.plan.scheme.signed
        point = np.array(zero - 128, np.int8) if signed else np.array(zero, np.uint8)
        return self._add(f"{name}_scale", scale), self._zero_point(point)

    def _zero_point(self, value: Array) -> str:
        """A zero point, or one for each channel, of which there is one for the whole file: of many
        small layers they would be a good part of it.
        """
        size = "".join(f"_{count}" for count in value.shape)
        return self._add(f"zero_point_{value.dtype}{size}_{int(value.flat[0])}", value)

    def _constant(self, name: str) -> str:
        """A constant operand of an INT8 operator on a grid of its own."""
        if name in self.written:
            return f"{name}_dq8"
        value = self.network.constants[name].numpy()
        tensor_range = ActivationRange(float(value.min()), float(value.max()))
        scale, zero = tensor_range.grid(self.plan.scheme)
        integers = np.clip(np.rint(value / scale) + zero, 0, 255)
        signed = self.plan.scheme.signed
        self._add(
            f"{name}_q8",
            (integers - 128).astype(np.int8) if signed else integers.astype(np.uint8),
        )
        return self._dequantize(name, *self._parameters(name, tensor_range))

    def _weights(self, node: NetworkNode, copy: onnx.NodeProto) -> None:
        """Let a node take its weights, and its bias, from integers."""
        weight = self.plan.weights[node.name]
        if len(node.inputs) < 3 or not node.inputs[2]:
            copy.input[1] = self._by_channel(
                node.inputs[1], weight.integers, weight.scales, weight.axis
            )
            return
        bias = self.plan.biases.get(node.name)
        bias = self.network.constants[node.inputs[2]].numpy() if bias is None else bias
        scale, _ = self.plan.ranges[self.placement.root(node.inputs[0])].grid(self.plan.scheme)
        weight = widen_for_bias(weight, bias, float(scale))
        copy.input[1] = self._by_channel(
            node.inputs[1], weight.integers, weight.scales, weight.axis
        )
        scales = (weight.scales * scale).astype(np.float32)
        most = 2.0**31 - 1
        integers = np.clip(np.rint(bias.astype(np.float64) / scales), -most, most).astype(np.int32)
        copy.input[2] = self._by_channel(node.inputs[2], integers, scales, 0)

    def _by_channel(self, name: str, integers: Array, scales: Array, axis: int) -> str:
        """Constants with a scale for each index of an axis; the name of the dequantized ones."""
        self._add(f"{name}_q8", integers)
        scale = self._add(f"{name}_scale", scales)
        zero_point = self._zero_point(np.zeros(len(scales), integers.dtype))
        return self._dequantize(name, scale, zero_point, axis=axis)

    def _add(self, name: str, array: Any) -> str:
        import onnx

        self.initializers[name] = onnx.numpy_helper.from_array(np.asarray(array), name)
        return name
