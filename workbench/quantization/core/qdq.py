"""A plan written as an ONNX graph with QuantizeLinear and DequantizeLinear pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.plan import Plan, Range, fitted

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.network import Network, Node
    from workbench.quantization.core.placement import Placement

Array = NDArray[Any]


def write(network: Network, placement: Placement, plan: Plan) -> onnx.ModelProto:
    """The quantized model: activations per tensor, weights per channel, biases int32.

    Consumers of a quantized tensor that an INT8 node made read what was quantized; of one that a
    float node made, INT8 nodes alone do. A Relu whose quantization clips at 0 is left out.
    """
    return _Writer(network, placement, plan).written()


class _Writer:
    def __init__(self, network: Network, placement: Placement, plan: Plan) -> None:
        self.network, self.placement, self.plan = network, placement, plan
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.paired: set[str] = set()  # tensors that have their QuantizeLinear and DequantizeLinear
        self.renamed: dict[str, str] = {}  # an output to what stands for it: a Relu left out

    def written(self) -> onnx.ModelProto:
        import onnx

        from workbench.onnxgraph.rewrites import inputs_of

        made = onnx.ModelProto()
        made.CopyFrom(self.network.model)
        graph = made.graph
        for name in self.network.inputs:
            if name in self.placement.tensors:
                self._pair(name)
        for node in self.network.nodes:
            self._node(node)
        del graph.node[:]
        graph.node.extend(self.nodes)
        kept = [one for one in graph.initializer if one.name in set(inputs_of(graph))]
        kept += list(self.initializers.values())
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]
        return made

    def _node(self, node: Node) -> None:
        import onnx

        integer = node.name in self.placement.nodes
        copy = onnx.NodeProto()
        copy.CopyFrom(node.proto)
        for place, name in enumerate(node.inputs):
            copy.input[place] = self._read(name, integer)
        if integer and node.name in self.plan.weights:
            self._weights(node, copy)
        elif integer:
            for place, name in enumerate(node.inputs):
                if name in self.network.constants and node.op in ("Add", "Sub", "Mul", "PRelu",
                                                                  "Concat"):  # fmt: skip
                    copy.input[place] = self._constant(name)
        if self._dropped(node):
            self.renamed[node.output] = copy.input[0]
        else:
            self.nodes.append(copy)
        if integer:
            for name in node.outputs:
                if name in self.placement.quantized:
                    self._pair(name)

    def _read(self, name: str, integer: bool) -> str:
        maker = self.network.producers.get(name)
        if name in self.placement.quantized and (
            integer or (maker is not None and maker.name in self.placement.nodes)
        ):
            if name not in self.paired:
                self._pair(name)
            return f"{name}_dq8"
        return self.renamed.get(name, name)

    def _dropped(self, node: Node) -> bool:
        """Whether a Relu or Clip only does what quantization of its output does anyway."""
        from workbench.quantization.core.placement import FUSED, clipped

        if node.op not in FUSED or node.inputs[0] not in self.placement.fused:
            return False
        found = self.plan.ranges[node.output]
        _, high = clipped(node, self.network)
        return found.grid(self.plan.scheme)[1] == 0 and not self.plan.scheme.symmetric and (
            high is None or found.high <= high * (1 + 1e-6)
        )  # fmt: skip

    def _pair(self, name: str) -> None:
        from onnx.helper import make_node

        self.paired.add(name)
        root = self.placement.root(name)
        scale, zero = self._parameters(root, self.plan.ranges[root])
        source = self.renamed.get(name, name)
        self.nodes += [
            make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q8"], f"{name}/q"),
            make_node("DequantizeLinear", [f"{name}_q8", scale, zero],
                      [f"{name}_dq8"]),
        ]  # fmt: skip

    def _parameters(self, name: str, found: Range) -> tuple[str, str]:
        scale, zero = found.grid(self.plan.scheme)
        signed = self.plan.scheme.signed
        point = np.array(zero - 128, np.int8) if signed else np.array(zero, np.uint8)
        return self._add(f"{name}_scale", scale), self._zero_point(point)

    def _zero_point(self, value: Array) -> str:
        """A zero point, or one for each channel, of which there is one for the whole file: of many
        small layers they would be a good part of it.
        """
        size = "".join(f"_{one}" for one in value.shape)
        return self._add(f"zero_point_{value.dtype}{size}_{int(value.flat[0])}", value)

    def _constant(self, name: str) -> str:
        """A constant operand of an INT8 operator on a grid of its own."""
        from onnx.helper import make_node

        if f"{name}_dq8" not in {one for node in self.nodes for one in node.output}:
            value = self.network.constants[name].numpy()
            found = Range(float(value.min()), float(value.max()))
            scale, zero = found.grid(self.plan.scheme)
            signed = self.plan.scheme.signed
            integers = np.clip(np.rint(value / scale) + zero, 0, 255)
            made = (integers - 128).astype(np.int8) if signed else integers.astype(np.uint8)
            names = [self._add(f"{name}_q8", made), *self._parameters(name, found)]
            self.nodes.append(make_node("DequantizeLinear", names, [f"{name}_dq8"]))
        return f"{name}_dq8"

    def _weights(self, node: Node, copy: onnx.NodeProto) -> None:
        from onnx.helper import make_node

        found = self.plan.weights[node.name]
        bias: Array | None = None
        scale = np.float32(1)
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self.plan.biases.get(node.name)
            bias = self.network.constants[node.inputs[2]].numpy() if bias is None else bias
            scale, _ = self.plan.ranges[self.placement.root(node.inputs[0])].grid(self.plan.scheme)
            found = fitted(found, bias, float(scale))
        name = node.inputs[1]
        names = [
            self._add(f"{name}_q8", found.integers),
            self._add(f"{name}_scale", found.scales),
            self._zero_point(np.zeros(len(found.scales), np.int8)),
        ]
        self.nodes.append(
            make_node("DequantizeLinear", names, [f"{name}_dq8"],
                      axis=found.axis)
        )  # fmt: skip
        copy.input[1] = f"{name}_dq8"
        if bias is None:
            return
        scales = (found.scales * scale).astype(np.float32)
        most = 2.0**31 - 1
        integers = np.clip(np.rint(bias.astype(np.float64) / scales), -most, most).astype(np.int32)
        name = node.inputs[2]
        names = [
            self._add(f"{name}_q8", integers),
            self._add(f"{name}_scale", scales),
            self._zero_point(np.zeros(len(scales), np.int32)),
        ]
        self.nodes.append(make_node("DequantizeLinear", names, [f"{name}_dq8"], axis=0))
        copy.input[2] = f"{name}_dq8"

    def _add(self, name: str, array: Any) -> str:
        import onnx

        self.initializers[name] = onnx.numpy_helper.from_array(np.asarray(array), name)
        return name
