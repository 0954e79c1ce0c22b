"""An ONNX graph that torch executes node by node, so that gradients flow and nodes can be changed.

Not a runtime: what a file computes is judged by the runtimes that it is for. This is for looking
inside: statistics of every tensor, gradients of the outputs, a quantized path beside a float one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import slice_batch
from workbench.onnxgraph.session import working_session
from workbench.onnxgraph.walk import attributes, bodies, graphs, taken_names
from workbench.quantization.core.samples import Feeds

if TYPE_CHECKING:
    import onnx
    import torch

Array = NDArray[Any]
Hook = Callable[["NetworkNode", list["torch.Tensor"]], list["torch.Tensor"]]


@dataclass(frozen=True, eq=False)
class NetworkNode:
    """An operator of the graph.

    Attributes:
        name: of its own; one is made up where the file has none.
        op: the operator, with its domain where that is not ONNX's own.
        inputs: names of tensors, "" for an input that is left out.
        attributes: as Python values.
        captured: tensors that its subgraphs take from outside.
        proto: the node in the file.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captured: tuple[str, ...]
    proto: onnx.NodeProto

    @property
    def output(self) -> str:
        """The first output's name."""
        return self.outputs[0]


class Network:
    """A graph in topological order, with its constants as torch tensors.

    Operators that the table of `torch_operators` lacks are run by ONNX Runtime, one node at a time;
    no gradient passes these.

    Attributes:
        model: the graph as it came.
        constants: initializers by name.
        inputs, outputs: names of tensors; weights that are listed among the inputs are none.
        nodes: in topological order.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import torch

        self.model = model
        self.constants: dict[str, torch.Tensor] = {
            tensor.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(tensor)))
            for tensor in model.graph.initializer
        }
        self.inputs = tuple(
            value.name for value in model.graph.input if value.name not in self.constants
        )
        self.outputs = tuple(value.name for value in model.graph.output)
        self.nodes = tuple(_node(number, proto) for number, proto in enumerate(model.graph.node))
        self._sessions: dict[str, Any] = {}

    @property
    def fixed_batch(self) -> int:
        """The batch size that the inputs are fixed to; 0 where it is open."""
        inputs = [value for value in self.model.graph.input if value.name in self.inputs]
        shapes = [value.type.tensor_type.shape.dim for value in inputs]
        return max((int(shape[0].dim_value) for shape in shapes if shape), default=0)

    @cached_property
    def producers(self) -> dict[str, NetworkNode]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def nodes_by_name(self) -> dict[str, NetworkNode]:
        """Every node by its name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, list[NetworkNode]]:
        """The nodes that take each tensor, in order, each once."""
        takers: dict[str, list[NetworkNode]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captured)):
                takers.setdefault(name, []).append(node)
        return takers

    @cached_property
    def uses(self) -> Counter[str]:
        """How often each tensor is taken, by nodes and as an output of the network."""
        counts = Counter(
            name for node in self.nodes for name in {*node.inputs, *node.captured} if name
        )
        counts.update(self.outputs)
        return counts

    def apply(self, node: NetworkNode, inputs: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """The outputs of one node for its inputs (None for those left out), then its captures."""
        from workbench.quantization.core.torch_operators import OPERATORS

        function = OPERATORS.get(node.op)
        if function is not None:
            try:
                return function(node, inputs)
            except NotImplementedError:
                pass
        return self._in_onnxruntime(node, inputs)

    def run(
        self,
        feeds: Feeds,
        hook: Hook | None = None,
        keep: Iterable[str] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The network's outputs and the tensors to `keep` by name.

        `hook` may replace the outputs of every node; tensors are dropped after their last use.
        """
        kept = {*self.outputs, *(keep or ())}
        values: dict[str, torch.Tensor] = {**self.constants, **feeds}
        left = Counter(self.uses)
        for node in self.nodes:
            taken = (*node.inputs, *node.captured)
            outputs = self.apply(node, [values[name] if name else None for name in taken])
            if hook is not None:
                outputs = hook(node, outputs)
            values.update(zip(node.outputs, outputs, strict=False))
            for name in {name for name in taken if name}:
                left[name] -= 1
                if not left[name] and name not in kept and name not in self.constants:
                    del values[name]
        return {name: values[name] for name in kept if name in values}

    def _in_onnxruntime(
        self, node: NetworkNode, inputs: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor]:
        import torch

        names = (*node.inputs, *node.captured)
        arrays = {
            name: value.detach().contiguous().numpy()
            for name, value in zip(names, inputs, strict=True)
            if name and value is not None
        }
        key = node.name + repr([(n, a.dtype, a.ndim) for n, a in arrays.items()])
        if key not in self._sessions:
            self._sessions[key] = _session(self.model, node, arrays)
        outputs = self._sessions[key].run([n for n in node.outputs if n], arrays)
        values = iter(torch.from_numpy(np.array(array)) for array in outputs)
        return [next(values) if name else torch.empty(0) for name in node.outputs]


def _node(number: int, proto: onnx.NodeProto) -> NetworkNode:
    import onnx

    own = {*proto.input, *_names_made_inside(proto)}
    taken = taken_names(onnx.GraphProto(node=[proto]))
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}:"
    return NetworkNode(
        proto.name or f"{proto.op_type}_{number}",
        f"{domain}{proto.op_type}",
        tuple(proto.input),
        tuple(proto.output),
        attributes(proto),
        tuple(dict.fromkeys(name for name in taken if name and name not in own)),
        proto,
    )


def _names_made_inside(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node's subgraphs make themselves."""
    for graph in (inner for body in bodies(node) for inner in graphs(body)):
        yield from (value.name for value in graph.input)
        yield from (tensor.name for tensor in graph.initializer)
        for inner in graph.node:
            yield from inner.output


def _session(model: onnx.ModelProto, node: NetworkNode, arrays: Mapping[str, Array]) -> Any:
    """An ONNX Runtime session of one node alone, for inputs of these types and ranks."""
    import onnx

    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in arrays.items()
    ]
    outputs = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.outputs if name]
    graph = onnx.helper.make_graph([node.proto], "node", inputs, outputs)
    single = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return working_session(single)


def multiply_accumulates(network: Network, feeds: Feeds) -> float:
    """Multiply-accumulates of convolutions and matrix products for one of a batch's samples."""
    import torch

    total = 0.0

    def count(node: NetworkNode, outputs: list[torch.Tensor]) -> list[torch.Tensor]:
        nonlocal total
        if node.op in ("Conv", "Gemm", "MatMul") and node.inputs[1] in network.constants:
            weights = network.constants[node.inputs[1]]
            products = (
                weights[0].numel() if node.op == "Conv" else weights.numel() / outputs[0].shape[-1]
            )
            total += outputs[0].numel() * products
        return outputs

    with torch.no_grad():
        network.run(slice_batch(feeds, 0, 1), count)
    return total
