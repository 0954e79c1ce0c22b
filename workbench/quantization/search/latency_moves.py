"""Which nodes to try in float: prefix cuts, minimum cuts, operator classes, windows. All pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.quantization.core.placement import FUSED, PASSING, WEIGHTED, weighted

if TYPE_CHECKING:
    from workbench.quantization.core.network import Network, Node
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.search.latency_profile import Costs

NARROW = 64  # channels, below which depthwise convolutions are slower in INT8 (0.4 to 0.6)
STEPS = 12  # of the bisection for the price of a weight
# Lookup tables and scalar loops in INT8; in float they are fused or vectorized.
CLASSES = ("LeakyRelu", "Sigmoid", "Mul", "Add", "Concat", "AveragePool", "GlobalAveragePool",
           "Resize", "MaxPool", "Gemm", "MatMul")  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """A node with weights and what follows it up to the next. Kernels fuse within: it moves whole.

    weights: how many it has.
    """

    name: str
    nodes: tuple[str, ...]
    weights: int


@dataclass(frozen=True)
class Move:
    """Nodes to leave in float, beyond those that the recipe leaves, and why they are tried."""

    name: str
    floats: frozenset[str]


def units(network: Network) -> tuple[Unit, ...]:
    """The network in units, in order; what comes before the first weights is in the first.

    A node without weights belongs to the last unit that it takes anything from.
    """
    heads = weighted(network)
    if not heads:
        return ()
    place = {node.name: number for number, node in enumerate(heads)}
    members: list[list[str]] = [[] for _ in heads]
    for node in network.nodes:
        if node.name not in place:
            makers = [network.producers[name].name for name in node.inputs
                      if name in network.producers]  # fmt: skip
            place[node.name] = max((place[name] for name in makers), default=0)
        members[place[node.name]].append(node.name)
    return tuple(
        Unit(node.name, tuple(names), network.constants[node.inputs[1]].numel())
        for node, names in zip(heads, members, strict=True)
    )


def heads(found: Sequence[Unit]) -> dict[str, str]:
    """The unit's name of each node."""
    return {name: unit.name for unit in found for name in unit.nodes}


def share(found: Sequence[Unit], placement: Placement) -> float:
    """How much of all weights a placement leaves in float."""
    total = sum(unit.weights for unit in found)
    left = sum(unit.weights for unit in found if unit.name not in placement.nodes)
    return left / total if total else 0.0


def prefixes(found: Sequence[Unit]) -> list[Move]:
    """The first k units in float, for every k from 1 to all but one."""
    moves, names = [], frozenset[str]()
    for number, unit in enumerate(found[:-1], 1):
        names |= set(unit.nodes)
        moves.append(Move(f"prefix of {number}", names))
    return moves


def classes(
    network: Network, placement: Placement, found: Sequence[Unit] = (),
    sizes: Mapping[str, int] | None = None,
) -> list[Move]:  # fmt: skip
    """All INT8 nodes of one operator; units of convolutions of one kind.

    sizes: elements of each tensor for one sample, which tell convolutions of one pixel: of gates.
    """
    apart = WEIGHTED | PASSING | FUSED
    # Chains of them, where nothing is quantized between then.
    groups = {"operator without weights": {n.name for n in network.nodes if n.op not in apart}}
    groups |= {op: {n.name for n in network.nodes if n.op == op} for op in CLASSES}
    whole = {unit.name: unit.nodes for unit in found}
    for node in network.nodes:
        for kind in _kinds(node, network, sizes or {}) if node.op == "Conv" else ():
            groups.setdefault(kind, set()).update(whole.get(node.name, (node.name,)))
    moves = {name: frozenset(names & placement.nodes) for name, names in groups.items()}
    return [Move(f"every {name}", names) for name, names in moves.items() if names]


def _kinds(node: Node, network: Network, sizes: Mapping[str, int]) -> list[str]:
    """What a convolution is, of the kinds whose INT8 kernels are slow."""
    weights = network.constants.get(node.inputs[1])
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
    if sizes.get(node.output) == weights.shape[0]:
        kinds.append("convolution of one pixel")
    return kinds


def windows(
    found: Sequence[Unit], floats: frozenset[str], forced: Collection[str], size: int
) -> list[Move]:
    """`size` neighbouring units turned to float, and such that are in float turned back.

    forced: nodes that stay in float. A window that is partly in float is turned to it whole.
    """
    moves = []
    for start in range(len(found) - size + 1):
        chosen = found[start : start + size]
        names = {name for unit in chosen for name in unit.nodes}
        what = f"{size} from {chosen[0].name}" if size > 1 else chosen[0].name
        if names <= floats | set(forced):
            if names & floats:
                moves.append(Move(f"{what} back in INT8", floats - names))
        else:
            moves.append(Move(f"{what} in float", floats | names))
    return moves


def cut(
    found: Sequence[Unit], network: Network, costs: Costs, forced: Collection[str],
    weight: float = 1.0, heaviest: float = 1.0,
) -> Move:  # fmt: skip
    """The units in float of the cheapest placement by predicted costs: a minimum cut.

    heaviest: the most of the weights in float. Where the cheapest has more, weights get a price
    (a Lagrange multiplier), the lowest that keeps the limit.
    """
    total = max(sum(unit.weights for unit in found), 1)

    def at(price: float) -> tuple[frozenset[str], float]:
        names = _cut(found, network, costs, forced, weight, price / total)
        return names, sum(unit.weights for unit in found if unit.name in names) / total

    low, high = 0.0, 4 * sum(costs.floats.values()) + 4 * sum(costs.ints.values())
    names, heavy = at(low)
    if heavy > heaviest:
        names, _ = at(high)
        for _ in range(STEPS):
            middle = (low + high) / 2
            lighter, heavy = at(middle)
            if heavy > heaviest:
                low = middle
            else:
                names, high = lighter, middle
    return Move(f"minimum cut, crossings × {weight:g}", names)


def _cut(
    found: Sequence[Unit], network: Network, costs: Costs, forced: Collection[str],
    weight: float, price: float,
) -> frozenset[str]:  # fmt: skip
    """The nodes in float of the cheapest placement, a weight in float costing `price`.

    Each unit is on the float or on the INT8 side and pays its time there; a tensor between units
    of the two sides pays its crossing, times `weight`. That is an s-t cut (Greig, Porteous and
    Seheult, 1989), which the maximum flow finds exactly.
    """
    place = {name: number for number, unit in enumerate(found) for name in unit.nodes}
    count = len(found)
    source, sink = count, count + 1
    capacity = np.zeros((count + 2, count + 2))
    never = price * sum(unit.weights for unit in found) + 2 * sum(
        sum(times.values()) for times in (costs.floats, costs.ints, costs.crossing)
    )  # what no cut takes
    for number, unit in enumerate(found):
        integer = unit.name in costs.base and unit.name not in forced
        ints = sum(costs.ints.get(name, 0.0) for name in unit.nodes)
        capacity[source, number] = ints if integer else never
        floats = sum(costs.floats.get(name, 0.0) for name in unit.nodes)
        capacity[number, sink] = floats + price * unit.weights
    for tensor, node in network.producers.items():
        for taker in network.consumers.get(tensor, ()):
            ends = place[node.name], place[taker.name]
            if ends[0] != ends[1]:
                crossing = weight * costs.crossing.get(tensor, 0.0)
                capacity[ends] += crossing
                capacity[ends[::-1]] += crossing
    side = _source_side(capacity, source, sink)
    return frozenset(name for number in side for name in found[number].nodes)


def _source_side(capacity: np.ndarray, source: int, sink: int) -> set[int]:
    """What the source still reaches once the flow is maximal."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import breadth_first_order, maximum_flow

    # It takes 32-bit integers alone, for the sums too.
    whole = np.rint(capacity * (2.0**30 / max(capacity.sum(), 1e-9))).astype(np.int32)
    flow = maximum_flow(csr_matrix(whole), source, sink).flow.toarray()
    left = csr_matrix((whole - flow > 0).astype(np.int32))
    order, _ = breadth_first_order(left, source, return_predecessors=True)
    return {int(one) for one in order} - {source, sink}


def ranked(
    moves: Sequence[Move], predicted: Mapping[str, float], best: int, spread: int = 0
) -> list[Move]:
    """The `best` moves by prediction, fastest first, and `spread` more at even distances."""
    order = sorted(moves, key=lambda move: predicted[move.name])
    chosen = order[:best]
    if spread and moves:
        at = np.unique(np.linspace(0, len(moves) - 1, spread).astype(int))
        chosen += [moves[one] for one in at if moves[one] not in chosen]
    return chosen
