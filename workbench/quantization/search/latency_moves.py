"""Which nodes to try in float: prefix cuts, minimum cuts, operator classes, windows. All pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.placement import FUSED, PASSING, WEIGHTED, weighted_nodes

if TYPE_CHECKING:
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.search.latency_profile import LatencyCosts

NARROW = 64  # channels, below which depthwise convolutions are slower in INT8 (0.4 to 0.6)
STEPS = 12  # of the bisection for the price of a weight
# Of the weights may be left in float: a quarter of the rest and this are 0.35 of the FP32 file.
HEAVIEST = 0.13
# Lookup tables and scalar loops in INT8; in float they are fused or vectorized.
CLASSES = ("LeakyRelu", "Sigmoid", "Mul", "Add", "Concat", "AveragePool", "GlobalAveragePool",
           "Resize", "MaxPool", "Gemm", "MatMul")  # fmt: skip


@dataclass(frozen=True)
class FusionUnit:
    """A node with weights and what follows it up to the next. Kernels fuse within: it moves whole.

    Attributes:
        name: of the node with weights.
        nodes: names of all of them.
        weights: how many there are.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int


@dataclass(frozen=True)
class FloatMove:
    """Nodes to leave in float, beyond those that the recipe leaves, and why they are tried."""

    name: str
    floats: frozenset[str]


@dataclass(frozen=True)
class SearchSpace:
    """What of a network may be left in float.

    Attributes:
        forced: nodes that the recipe leaves in float anyway.
        sizes: elements of each tensor for one sample, which tell convolutions of one pixel: of
            gates.
        heaviest: the largest share of the weights in float.
    """

    network: Network
    forced: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)
    heaviest: float = HEAVIEST

    @cached_property
    def units(self) -> tuple[FusionUnit, ...]:
        """The network in units, in order; what comes before the first weights is in the first.

        A node without weights belongs to the last unit that it takes anything from.
        """
        layers = weighted_nodes(self.network)
        if not layers:
            return ()
        unit = {node.name: number for number, node in enumerate(layers)}
        members: list[list[str]] = [[] for _ in layers]
        for node in self.network.nodes:
            if node.name not in unit:
                makers = [self.network.producers[name].name for name in node.inputs
                          if name in self.network.producers]  # fmt: skip
                unit[node.name] = max((unit[name] for name in makers), default=0)
            members[unit[node.name]].append(node.name)
        return tuple(
            FusionUnit(node.name, tuple(names), self.network.constants[node.inputs[1]].numel())
            for node, names in zip(layers, members, strict=True)
        )

    def weight_share(self, placement: OperatorPlacement) -> float:
        """How much of all weights a placement leaves in float."""
        left = sum(unit.weights for unit in self.units if unit.name not in placement.nodes)
        total = sum(unit.weights for unit in self.units)
        return left / total if total else 0.0

    def prefix_moves(self) -> list[FloatMove]:
        """The first k units in float, for every k from 1 to all but one."""
        moves, names = [], frozenset[str]()
        for number, unit in enumerate(self.units[:-1], 1):
            names |= set(unit.nodes)
            moves.append(FloatMove(f"prefix of {number}", names))
        return moves

    def class_moves(self, placement: OperatorPlacement) -> list[FloatMove]:
        """All INT8 nodes of one operator; units of convolutions of one kind."""
        nodes = self.network.nodes
        apart = WEIGHTED | PASSING | FUSED
        # Chains of them, where nothing is quantized between then.
        groups = {"operator without weights": {n.name for n in nodes if n.op not in apart}}
        groups |= {op: {node.name for node in nodes if node.op == op} for op in CLASSES}
        members = {unit.name: unit.nodes for unit in self.units}
        for node in nodes:
            for kind in self._convolution_kinds(node) if node.op == "Conv" else ():
                groups.setdefault(kind, set()).update(members.get(node.name, (node.name,)))
        moves = {name: frozenset(names & placement.nodes) for name, names in groups.items()}
        return [FloatMove(f"every {name}", names) for name, names in moves.items() if names]

    def _convolution_kinds(self, node: NetworkNode) -> list[str]:
        """What a convolution is, of the kinds whose INT8 kernels are slow."""
        weights = self.network.constants.get(node.inputs[1])
        group = int(node.attributes.get("group", 1))
        if weights is None:
            return []
        kinds = []
        if group > 1 and weights.shape[0] == group and weights.shape[1] == 1:
            kinds.append("depthwise convolution")
            if group < NARROW:
                kinds.append(f"depthwise convolution below {NARROW} channels")
        elif group > 1:
            kinds.append("grouped convolution")
        if self.sizes.get(node.output) == weights.shape[0]:
            kinds.append("convolution of one pixel")
        return kinds

    def window_moves(self, floats: frozenset[str], size: int) -> list[FloatMove]:
        """`size` neighbouring units turned to float, and such that are in float turned back.

        A window that is partly in float is turned to it whole.
        """
        moves = []
        for start in range(len(self.units) - size + 1):
            window = self.units[start : start + size]
            names = {name for unit in window for name in unit.nodes}
            words = f"{size} from {window[0].name}" if size > 1 else window[0].name
            if names <= floats | self.forced:
                if names & floats:
                    moves.append(FloatMove(f"{words} back in INT8", floats - names))
            else:
                moves.append(FloatMove(f"{words} in float", floats | names))
        return moves

    def cut_move(self, costs: LatencyCosts, crossing_weight: float = 1.0) -> FloatMove:
        """The units in float of the cheapest placement by predicted costs: a minimum cut.

        Where the cheapest has more than `heaviest` of the weights in float, weights get a price (a
        Lagrange multiplier), the lowest that keeps the limit.
        """
        total = max(sum(unit.weights for unit in self.units), 1)

        def at_price(price: float) -> tuple[frozenset[str], float]:
            names = self._minimum_cut(costs, crossing_weight, price / total)
            left = sum(unit.weights for unit in self.units if unit.name in names)
            return names, left / total

        low, high = 0.0, 4 * sum(costs.floats.values()) + 4 * sum(costs.ints.values())
        names, share = at_price(low)
        if share > self.heaviest:
            names, _ = at_price(high)
            for _ in range(STEPS):
                middle = (low + high) / 2
                lighter, share = at_price(middle)
                if share > self.heaviest:
                    low = middle
                else:
                    names, high = lighter, middle
        return FloatMove(f"minimum cut, crossings × {crossing_weight:g}", names)

    def _minimum_cut(
        self, costs: LatencyCosts, crossing_weight: float, price: float
    ) -> frozenset[str]:
        """The nodes in float of the cheapest placement, a weight in float costing `price`.

        Each unit is on the float or on the INT8 side and pays its time there; a tensor between
        units of the two sides pays its crossing, times `crossing_weight`. That is an s-t cut
        (Greig, Porteous and Seheult, 1989), which the maximum flow finds exactly.
        """
        unit_of = {name: number for number, unit in enumerate(self.units) for name in unit.nodes}
        count = len(self.units)
        source, sink = count, count + 1
        capacity = np.zeros((count + 2, count + 2))
        infinite = price * sum(unit.weights for unit in self.units) + 2 * sum(
            sum(times.values()) for times in (costs.floats, costs.ints, costs.crossing)
        )  # what no cut takes
        for number, unit in enumerate(self.units):
            integer = unit.name in costs.base and unit.name not in self.forced
            ints = sum(costs.ints.get(name, 0.0) for name in unit.nodes)
            capacity[source, number] = ints if integer else infinite
            floats = sum(costs.floats.get(name, 0.0) for name in unit.nodes)
            capacity[number, sink] = floats + price * unit.weights
        for tensor, node in self.network.producers.items():
            for taker in self.network.consumers.get(tensor, ()):
                ends = unit_of[node.name], unit_of[taker.name]
                if ends[0] != ends[1]:
                    crossing = crossing_weight * costs.crossing.get(tensor, 0.0)
                    capacity[ends] += crossing
                    capacity[ends[::-1]] += crossing
        side = _source_side(capacity, source, sink)
        return frozenset(name for number in side for name in self.units[number].nodes)


def _source_side(capacity: NDArray[Any], source: int, sink: int) -> set[int]:
    """What the source still reaches once the flow is maximal."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    # It takes 32-bit integers alone, for the sums too.
    scaled = np.rint(capacity * (2.0**30 / max(capacity.sum(), 1e-9))).astype(np.int32)
    flow = maximum_flow(csr_matrix(scaled), source, sink).flow.toarray()
    residual = csr_matrix((scaled - flow > 0).astype(np.int32))
    order, _ = breadth_first_order(residual, source, return_predecessors=True)
    return {int(number) for number in order} - {source, sink}


def rank_moves(
    moves: Sequence[FloatMove], predicted: Mapping[str, float], best: int, spread: int = 0
) -> list[FloatMove]:
    """The `best` moves by prediction, fastest first, and `spread` more at even distances."""
    ranked = sorted(moves, key=lambda move: predicted[move.name])[:best]
    if spread and moves:
        numbers = np.unique(np.linspace(0, len(moves) - 1, spread).astype(int))
        ranked += [moves[number] for number in numbers if moves[number] not in ranked]
    return ranked
