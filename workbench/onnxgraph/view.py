"""What the rewrites of `prepare` share: a graph's nodes by what they make and take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph import signature
from workbench.onnxgraph.rewrites import Weights, in_order, replace_nodes
from workbench.onnxgraph.shapes import infer_shapes
from workbench.onnxgraph.walk import (
    attributes,
    bodies,
    consumers,
    output_names,
    producers,
    taken_names,
)

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Inputs = Mapping[str, Array]
Target = Literal["ort", "tflite"]

CONVOLUTIONS = ("Conv", "ConvTranspose")


@dataclass(frozen=True)
class RewriteContext:
    """What a rewrite may ask for beside the graph.

    Attributes:
        batches: real inputs by name, [n, ...], for each n that rewrites are tried with.
        target: whose kernels will run the file.
    """

    batches: Sequence[Inputs]
    target: Target = "ort"


class View:
    """A graph's nodes by the tensors that they make and take, and the changing of them.

    Nodes are changed in place, `drop` and `put` are carried out by `write`. A node is known by its
    name, so every node needs one of its own.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.weights = Weights(model.graph)
        self.nodes = list(model.graph.node)
        self.makers = producers(model.graph.node)
        self.takers = consumers(model.graph.node)
        # Graph outputs, and what subgraphs take: tensors whose name and value have to stay.
        self.kept = set(output_names(model.graph))
        for node in self.nodes:
            for body in bodies(node):
                self.kept |= {*taken_names(body), *output_names(body)}
        self._dropped: set[str] = set()
        self._added: list[onnx.NodeProto] = []

    @cached_property
    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        return infer_shapes(self.model)

    def rank(self, name: str) -> int:
        """How many axes a tensor has; 0 where it is not known."""
        return len(self._shapes.get(name, ()))

    def maker(self, name: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, if it is of one of these operators."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type in kinds and not node.domain else None

    def only_taker(self, name: str) -> onnx.NodeProto | None:
        """The node that alone takes a tensor, once; None where others, or the outside, do too."""
        takers = self.takers.get(name, [])
        return takers[0] if len(takers) == 1 and name not in self.kept else None

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        """A node's constant input at a place; None where it is computed or absent."""
        return self.weights.get(node.input[index]) if len(node.input) > index else None

    def scalar(self, name: str) -> float | None:
        """The one number of a constant float tensor; None for all others."""
        array = self.weights.get(name)
        return float(array.reshape(-1)[0]) if is_real(array) and array.size == 1 else None

    def swallow(self, node: onnx.NodeProto, following: onnx.NodeProto) -> None:
        """Take out `following`, whose result `node` now gives itself."""
        node.output[0] = following.output[0]
        self.makers[node.output[0]] = node
        self.drop(following)

    def drop(self, node: onnx.NodeProto) -> None:
        """Take a node out, when the view is written."""
        self._dropped.add(node.name)
        for name in node.input:
            self.takers[name] = [taker for taker in self.takers.get(name, []) if taker is not node]

    def is_dropped(self, node: onnx.NodeProto) -> bool:
        """Whether a node is to be taken out."""
        return node.name in self._dropped

    def reroute(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node take another tensor at a place."""
        old = node.input[index]
        node.input[index] = name
        if old not in node.input:
            self.takers[old] = [taker for taker in self.takers.get(old, []) if taker is not node]
        self.takers.setdefault(name, []).append(node)

    def put(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A new node, named as its output; its output."""
        import onnx

        node = onnx.helper.make_node(op, inputs, [output], f"{output}/{op}", **attributes)
        self._added.append(node)
        self.makers[output] = node
        for name in inputs:
            self.takers.setdefault(name, []).append(node)
        return output

    def write(self) -> None:
        """Carry out what was dropped and put; then drop the nodes that nobody takes from."""
        nodes = [node for node in (*self.nodes, *self._added) if node.name not in self._dropped]
        replace_nodes(self.graph, _live(nodes, self.kept))
        if self._added:
            in_order(self.graph)
        del self.graph.value_info[:]  # some tensors have another shape or meaning now

    def write_if(self, count: int) -> int:
        """The count of a rewrite's changes, which are carried out where there are any."""
        if count:
            self.write()
        return count


def _live(nodes: list[onnx.NodeProto], kept: set[str]) -> list[onnx.NodeProto]:
    """The nodes from which something that is `kept` is made, in the same order."""
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    # A node with a subgraph may do more than it gives.
    alive = {number for number, node in enumerate(nodes) if bodies(node)}
    waiting = [makers[name] for name in kept if name in makers] + list(alive)
    while waiting:
        number = waiting.pop()
        alive.add(number)
        waiting += [makers[name] for name in nodes[number].input
                    if name in makers and makers[name] not in alive]  # fmt: skip
    return [node for number, node in enumerate(nodes) if number in alive]


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set, or with None remove, an attribute."""
    import onnx

    others = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(others)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))


def axes_of(view: View, node: onnx.NodeProto) -> list[int] | None:
    """The axes that a node such as ReduceMean or Squeeze is given, wherever its opset has them.

    None where they are computed, or absent.
    """
    axes = attributes(node).get("axes")
    if axes is not None:
        return list(axes)
    array = view.constant(node, 1)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def is_real(array: Array | None) -> TypeGuard[Array]:
    """Whether it is an array of 32-bit floats, the only ones that the rewrites compute with."""
    return array is not None and array.dtype == np.float32


def is_baked(node: onnx.NodeProto) -> bool:
    """Whether BakePreprocess made the node: what makes values of pixels stays as it is."""
    return str(node.name).startswith(signature.BAKED)
