"""An ONNX graph that torch executes node by node, so that gradients flow and nodes can be changed.

Not a runtime: what a file computes is judged by the runtimes that it is for. This is for looking
inside: statistics of every tensor, gradients of the outputs, a quantized path beside a float one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.session import working_session

if TYPE_CHECKING:
    import onnx
    import torch

Array = NDArray[Any]
Hook = Callable[["Node", list["torch.Tensor"]], list["torch.Tensor"]]


@dataclass(frozen=True, eq=False)
class Node:
    """An operator of the graph, its attributes as Python values."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    captured: tuple[str, ...]  # what its subgraphs take from outside
    proto: onnx.NodeProto

    @property
    def output(self) -> str:
        return self.outputs[0]


class Network:
    """A graph in topological order, with its constants as torch tensors.

    Operators that the table of `operators` lacks are run by ONNX Runtime, one node at a time; no
    gradient passes these.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        import onnx
        import torch

        from workbench.onnxgraph.rewrites import inputs_of

        self.model = model
        weights = {one.name for one in model.graph.initializer}
        self.constants: dict[str, torch.Tensor] = {
            one.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(one)))
            for one in model.graph.initializer
        }
        self.inputs = tuple(one.name for one in model.graph.input if one.name not in weights)
        self.outputs = tuple(one.name for one in model.graph.output)
        nodes = []
        for number, node in enumerate(model.graph.node):
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            inner = onnx.GraphProto(node=[node])
            captured = [n for n in inputs_of(inner) if n and n not in node.input]
            made = {n for one in _inside(node) for n in one}
            nodes.append(
                Node(
                    node.name or f"{node.op_type}_{number}",
                    node.op_type if node.domain in ("", "ai.onnx") else
                    f"{node.domain}:{node.op_type}",
                    tuple(node.input),
                    tuple(node.output),
                    attributes,
                    tuple(dict.fromkeys(n for n in captured if n not in made)),
                    node,
                )
            )  # fmt: skip
        self.nodes = tuple(nodes)
        self._sessions: dict[str, Any] = {}

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def nodes_by_name(self) -> dict[str, Node]:
        """Every node by its name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that take each tensor, in order, each once."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captured)):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def uses(self) -> Counter[str]:
        """How often each tensor is taken, by nodes and as an output of the network."""
        counts = Counter(
            name for node in self.nodes for name in {*node.inputs, *node.captured} if name
        )
        counts.update(self.outputs)
        return counts

    def apply(self, node: Node, inputs: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
        """The outputs of one node for its inputs (None for those left out), then its captures."""
        from workbench.quantization.core.operators import OPERATORS

        function = OPERATORS.get(node.op)
        if function is not None:
            try:
                return function(node, inputs)
            except NotImplementedError:
                pass
        return self._in_onnxruntime(node, inputs)

    def run(
        self,
        feeds: Mapping[str, torch.Tensor],
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
            made = self.apply(node, [values[name] if name else None for name in taken])
            if hook is not None:
                made = hook(node, made)
            values.update(zip(node.outputs, made, strict=False))
            for name in {name for name in taken if name}:
                left[name] -= 1
                if not left[name] and name not in kept and name not in self.constants:
                    del values[name]
        return {name: values[name] for name in kept if name in values}

    def _in_onnxruntime(
        self, node: Node, inputs: Sequence[torch.Tensor | None]
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
        found = self._sessions[key].run([n for n in node.outputs if n], arrays)
        values = iter(torch.from_numpy(np.array(array)) for array in found)
        return [next(values) if name else torch.empty(0) for name in node.outputs]


def _inside(node: onnx.NodeProto) -> Iterable[Sequence[str]]:
    """The names that a node's subgraphs make themselves."""
    from workbench.onnxgraph.rewrites import graphs_of

    for attribute in node.attribute:
        for top in [attribute.g] if attribute.HasField("g") else [*attribute.graphs]:
            for graph in graphs_of(top):
                yield [value.name for value in graph.input]
                yield [tensor.name for tensor in graph.initializer]
                for one in graph.node:
                    yield one.output


def _session(model: onnx.ModelProto, node: Node, arrays: Mapping[str, Array]) -> Any:
    """An ONNX Runtime session of one node alone, for inputs of these types and ranks."""
    import onnx

    made = onnx.helper.make_value_info
    inputs = [
        onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
        for name, array in arrays.items()
    ]
    outputs = [made(name, onnx.TypeProto()) for name in node.outputs if name]
    graph = onnx.helper.make_graph([node.proto], "node", inputs, outputs)
    single = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version
    )
    return working_session(single)


def multiplications(network: Network, feeds: Mapping[str, torch.Tensor]) -> float:
    """Multiply-accumulates of convolutions and matrix products for one of a batch's samples."""
    import torch

    total = 0.0

    def hook(node: Node, made: list[torch.Tensor]) -> list[torch.Tensor]:
        nonlocal total
        if node.op in ("Conv", "Gemm", "MatMul") and node.inputs[1] in network.constants:
            weights = network.constants[node.inputs[1]]
            each = weights[0].numel() if node.op == "Conv" else weights.numel() / made[0].shape[-1]
            total += made[0].numel() * each
        return made

    with torch.no_grad():
        network.run({name: one[:1] for name, one in feeds.items()}, hook)
    return total
