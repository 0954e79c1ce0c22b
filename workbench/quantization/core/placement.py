"""Which nodes compute in INT8, which tensors are quantized: so that the runtime's kernels fuse."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.quantization.core.network import Network, NetworkNode

Runtime = Literal["ort", "tflite"]

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Their outputs are values of their inputs: on the same grid they are exact.
PASSING = {
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split",
    "Gather", "DepthToSpace", "SpaceToDepth", "Identity", "Dropout", "Expand", "GlobalMaxPool",
}  # fmt: skip
ELEMENTWISE: dict[str, set[str]] = {
    "ort": {"Add", "Mul", "LeakyRelu", "Sigmoid", "AveragePool", "GlobalAveragePool", "Concat",
            "Resize", "Relu", "Clip", "Pad"},
    "tflite": {"Add", "Sub", "Mul", "LeakyRelu", "Sigmoid", "Tanh", "AveragePool", "ReduceMean",
               "GlobalAveragePool", "Concat", "Resize", "Relu", "Clip", "Pad",
               "HardSwish", "PRelu"},
}  # fmt: skip
# What LiteRT's kernels give, whatever the range: 1/256 from 0, 1/128 about 0.
FIXED = {"Sigmoid": (0.0, 255 / 256), "Softmax": (0.0, 255 / 256), "Tanh": (-1.0, 127 / 128)}
# Activations between linear layers around these have outliers that 8 bits for a whole tensor do not
# hold, and the kernels between them compute in float: only products are worth integers.
OUTLIERS = {"LayerNormalization", "Softmax"}
FUSED = {"Relu", "Clip"}  # into what makes their input, where nobody else takes that


@dataclass(frozen=True)
class OperatorPlacement:
    """What computes in INT8, and which tensors are on grids.

    Attributes:
        nodes: names of those that compute in INT8.
        tensors: that are quantized, each to its own parameters.
        ties: tensors that have another's parameters, by name.
        fused: an output that is not quantized, because the activation behind it, by name, becomes
            the clipping of the quantization.
        alike: tensors that need one grid for all of each set.
        fixed: ranges, low and high, that the runtime's kernels prescribe.
    """

    nodes: frozenset[str] = frozenset()
    tensors: tuple[str, ...] = ()
    ties: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, str] = field(default_factory=dict)
    alike: tuple[frozenset[str], ...] = ()
    fixed: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def root(self, name: str) -> str:
        """The tensor whose parameters `name` has."""
        while name in self.ties:
            name = self.ties[name]
        return name

    @property
    def quantized(self) -> set[str]:
        """The tensors with parameters, their own or another's."""
        return {*self.tensors, *self.ties}


def place_operators(
    network: Network, floats: Collection[str] = (), runtime: Runtime = "ort"
) -> OperatorPlacement:
    """The placement that leaves the nodes of `floats` alone.

    Convolutions have both ends quantized, or no kernel takes them; matrix products may give float,
    and do at the network's end and in transformers. Other operators compute in INT8 where all that
    they take is quantized already, and a layer computes with what they give before any of
    `OUTLIERS`: among convolutions, that is, also where a network has an attention elsewhere.
    """
    transformer = is_transformer(network)
    nodes: set[str] = set()
    tensors: dict[str, None] = {}
    ties: dict[str, str] = {}
    fused: dict[str, str] = {}
    for node in network.nodes:
        if node.name in floats or not _has_integer_form(node, network):
            continue
        if node.op in WEIGHTED:
            if node.inputs[0] not in ties:
                tensors[node.inputs[0]] = None
            nodes.add(node.name)
            if gives_float(node, network, transformer):
                continue
        elif not _worthwhile(node, network, runtime, {*tensors, *ties}, fused):
            continue
        else:
            nodes.add(node.name)
        if node.op in FUSED and node.inputs[0] in fused:
            tensors[node.output] = None
            continue
        takers = network.consumers.get(node.output, [])
        if _fuses(node, takers, network) and takers[0].name not in floats:
            fused[node.output] = takers[0].output
            continue
        for name in node.outputs:
            if node.op in PASSING or (node.op in FUSED and node.inputs[0] in {*tensors, *ties}):
                ties[name] = node.inputs[0]
            else:
                tensors[name] = None
    placement = OperatorPlacement(frozenset(nodes), tuple(tensors), ties, fused)
    if runtime != "tflite":
        return placement
    fixed = {
        node.output: FIXED[node.op]
        for node in network.nodes
        if node.op in FIXED and node.output in tensors
    }
    return replace(placement, alike=_concatenated(network, placement), fixed=fixed)


def _concatenated(network: Network, placement: OperatorPlacement) -> tuple[frozenset[str], ...]:
    """Sets of tensors that Concat puts together: LiteRT copies, and does not rescale."""
    sets: list[set[str]] = []
    for node in network.nodes:
        if node.op == "Concat" and node.name in placement.nodes:
            quantized = [name for name in node.inputs if name in placement.quantized]
            joined = {placement.root(name) for name in (*quantized, node.output)}
            for overlapping in [tensors for tensors in sets if tensors & joined]:
                sets.remove(overlapping)
                joined |= overlapping
            sets.append(joined)
    return tuple(frozenset(tensors) for tensors in sets)


def is_transformer(network: Network) -> bool:
    """Whether one of `OUTLIERS` stands in it, and is not its end."""
    within = {node.op for node in network.nodes if node.output not in network.outputs}
    return bool(within & OUTLIERS)


def weighted_nodes(network: Network) -> list[NetworkNode]:
    """The nodes with constant float weights that could compute in INT8, in order: the layers."""
    return [
        node for node in network.nodes if node.op in WEIGHTED and _has_integer_form(node, network)
    ]


def gives_float(node: NetworkNode, network: Network, transformer: bool) -> bool:
    """Whether a matrix product's output stays float: at the end, and in transformers."""
    if node.op not in ("Gemm", "MatMul"):
        return False
    return transformer or not _reaches(node.output, network)


def _reaches(name: str, network: Network) -> bool:
    """Whether a node with weights computes with what follows from a tensor, before `OUTLIERS`."""
    waiting, seen = [name], set()
    while waiting:
        for node in network.consumers.get(waiting.pop(), []):
            if node.op in WEIGHTED and _has_integer_form(node, network):
                return True
            if node.name not in seen and node.op not in OUTLIERS:
                seen.add(node.name)
                waiting += node.outputs
    return False


def _has_integer_form(node: NetworkNode, network: Network) -> bool:
    """Whether the node could compute in INT8: its weights are constant, nothing odd about it."""
    if node.captured:
        return False
    if node.op == "ConvTranspose":  # its kernel takes no scale for each channel of a group
        return False
    if node.op in WEIGHTED:
        weights = network.constants.get(node.inputs[1])
        if weights is None or not weights.is_floating_point() or not weights.numel():
            return False
        if node.op == "MatMul":
            return weights.ndim == 2
        plain = all(node.attributes.get(key, 1.0) == 1.0 for key in ("alpha", "beta"))
        return node.op == "Conv" or (plain and not node.attributes.get("transA"))
    return True


def _worthwhile(
    node: NetworkNode,
    network: Network,
    runtime: Runtime,
    quantized: set[str],
    fused: Mapping[str, str],
) -> bool:
    """Whether an operator without weights is to compute in INT8: what it takes is, and it leads on.

    Constants are quantized with it. At the network's end values stay float.
    """
    if node.op not in PASSING | ELEMENTWISE[runtime]:
        return False
    computed = [name for name in node.inputs if name and name not in network.constants]
    if node.op in PASSING | {"Resize", "Pad", "Clip", "Expand"}:
        computed = computed[:1]
    if not computed or not all(name in quantized or name in fused for name in computed):
        return False
    if node.op == "Pad" and len(node.inputs) > 2 and node.inputs[2]:
        value = network.constants.get(node.inputs[2])
        if value is None or value.numel() != 1 or float(value) != 0:
            return False
    if node.op in FUSED:
        return node.inputs[0] in fused
    return _reaches(node.output, network)


def _fuses(node: NetworkNode, takers: list[NetworkNode], network: Network) -> bool:
    """Whether the only taker of a node's output is a Relu, or a Clip from 0."""
    if node.op not in ("Conv", "Gemm", "MatMul", "Add") or node.output in network.outputs:
        return False
    if len(takers) != 1 or takers[0].op not in FUSED:
        return False
    return clip_bounds(takers[0], network)[0] == 0


def clip_bounds(node: NetworkNode, network: Network) -> tuple[float | None, float | None]:
    """The bounds of a Relu or Clip; None for one that is not there, or not constant."""
    if node.op == "Relu":
        return 0.0, None

    def bound(position: int, key: str) -> float | None:
        if key in node.attributes:
            return float(node.attributes[key])
        if len(node.inputs) > position and node.inputs[position] in network.constants:
            return float(network.constants[node.inputs[position]])
        return None

    return bound(1, "min"), bound(2, "max")
