"""The quantized path beside the float one, node after node: each error is seen when it arises.

For every node with weights, in topological order, on all samples: second moments of what it takes
on both paths; compensation and rounding of its weights; its bias, so that the mean of its output is
the float path's; then the range of its output, on the values that the quantized path really gives.
Sequential bias correction is Nagel et al. 2019 (arXiv:1906.04721), there on the float path's data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core import rounding
from workbench.quantization.core.grid import quantized
from workbench.quantization.core.moments import channel_axis
from workbench.quantization.core.placement import FUSED, Placement
from workbench.quantization.core.placement import clipped as bounds
from workbench.quantization.core.plan import Plan, Range, Scheme, Weight, fitted, rounded
from workbench.quantization.core.rounding import Moments
from workbench.quantization.core.shelf import Shelf, Store

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network, Node

Array = NDArray[Any]
Paths = dict[str, Any]  # a tensor's batches by its name: a Shelf, or a list

PLACES = 40_000  # columns of im2col for second moments
# Operators behind which an error looks different, and that change single values.
NONLINEAR = {"LeakyRelu", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
             "Gelu", "PRelu", "Softplus", "Mish"}  # fmt: skip


@dataclass(frozen=True)
class Techniques:
    """Which parts of the pass are done; the rest is min-max, rounding to nearest, no correction."""

    compensation: bool = True
    reconstruction: bool = True
    bias_correction: bool = True


@dataclass
class Lockstep:
    """One pass; `run` gives the plan. known: ranges that were found before (see `projection`)."""

    network: Network
    placement: Placement
    stats: Mapping[str, Channels]
    scheme: Scheme
    techniques: Techniques = Techniques()
    seed: int = 0
    known: Mapping[str, Range] = field(default_factory=dict)
    progress: Callable[[float], None] = lambda _: None
    _ranges: dict[str, Range] = field(default_factory=dict)
    _weights: dict[str, Weight] = field(default_factory=dict)
    _biases: dict[str, Array] = field(default_factory=dict)
    _store: Store = field(default_factory=Store)

    def run(self, batches: Sequence[Mapping[str, torch.Tensor]]) -> Plan:
        """The plan for samples in batches. Activations beyond some megabytes are kept in files."""
        import torch

        floats: Paths = {}
        quants: Paths = {}
        left = Counter(self.network.uses)
        with torch.no_grad(), Store() as self._store:
            for name in self.network.inputs:
                floats[name] = quants[name] = [feeds[name] for feeds in batches]
            for number, node in enumerate(self.network.nodes):
                self._step(node, floats, quants, len(batches))
                self.progress((number + 1) / len(self.network.nodes))
                for name in {*node.inputs, *node.captured}:
                    left[name] -= 1
                    if not left[name]:
                        _forget(name, floats, quants)
        made = Plan(self._ranges, self._weights, self._biases, frozenset(), self.scheme)
        return made.tied(self.placement.ties)

    def _step(self, node: Node, floats: Paths, quants: Paths, count: int) -> None:
        integer = node.name in self.placement.nodes
        names = (*node.inputs, *node.captured)
        if integer:
            for name in node.inputs:
                if name in self.placement.tensors and name not in self._ranges:
                    self._range_of(name, floats[name], quants[name])
        constants = self.network.constants

        def given(values: Paths, index: int, on_grid: bool) -> list[Any]:
            found: list[Any] = []
            for name in names:
                if not name or name in constants:
                    found.append(constants[name] if name else None)
                    continue
                value = values[name][index]
                root = self.placement.root(name)
                # What an INT8 node made is on its grid already; what a float one made is not.
                if on_grid and root in self._ranges and not self._made_on_grid(name):
                    value = quantized(value, self._ranges[root], self.scheme)
                found.append(value)
            return found

        made_f = self._shelves(node, lambda index: given(floats, index, False), count)
        taken = [name for name in names if name and name not in constants]
        if integer and node.op in ("Conv", "Gemm", "MatMul"):
            made_q = [self._weighted(node, given, floats, quants, made_f[0])]
        elif not integer and all(quants[name] is floats[name] for name in taken):
            made_q = made_f  # nothing in front of it is quantized
        else:
            made_q = self._shelves(node, lambda index: given(quants, index, integer), count)
        for name, one, other in zip(node.outputs, made_f, made_q, strict=False):
            if not name:
                continue
            floats[name], quants[name] = one, other
            if integer and name in self.placement.tensors:
                self._range_of(name, one, other)
                for index, value in enumerate(other):
                    other.replace(index, quantized(value, self._ranges[name], self.scheme))
            if not self.network.uses[name]:
                _forget(name, floats, quants)

    def _shelves(self, node: Node, inputs: Callable[[int], list[Any]], count: int) -> list[Shelf]:
        """A node's outputs for every batch."""
        found = [Shelf(self._store) for _ in node.outputs]
        for index in range(count):
            for shelf, value in zip(found, self.network.apply(node, inputs(index)), strict=False):
                shelf.append(value)
        return found

    def _made_on_grid(self, name: str) -> bool:
        maker = self.network.producers.get(name)
        return maker is not None and maker.name in self.placement.nodes

    def _range_of(
        self, name: str, floats: Sequence[torch.Tensor], quants: Sequence[torch.Tensor]
    ) -> None:
        """Set the range of a tensor: the known one, or what the quantized path's values span."""
        found = self.known.get(name)
        if found is None:
            ends = [(float(one.min()), float(one.max())) for one in quants]
            found = Range(min(low for low, _ in ends), max(high for _, high in ends))
        self._ranges[name] = self._bounded(name, found)

    def _bounded(self, name: str, found: Range) -> Range:
        """A range that ends at a Clip's bound: a wider one would not clip, and nothing fuses."""
        maker = self.network.producers.get(name)
        if maker is None or maker.op not in FUSED or maker.inputs[0] not in self.placement.fused:
            return found
        _, high = bounds(maker, self.network)
        return found if high is None else Range(found.low, min(found.high, high))

    def _weighted(self, node: Node, given: Any, floats: Any, quants: Any, made_f: Shelf) -> Shelf:
        """Round a node's weights, correct its bias; its outputs on the quantized path."""
        import torch

        count = len(made_f)
        original = self.network.constants[node.inputs[1]].numpy()
        axis = 0 if node.op == "Conv" or node.attributes.get("transB") else original.ndim - 1
        weights = rounding.grouped(node, original).astype(np.float64)
        done = self.techniques
        last = node.op != "Conv"
        if done.compensation or done.reconstruction:
            halves = self._moments(node, given, floats, quants, count, original.shape[2:])
            if done.compensation and not last:
                weights = rounding.compensated(weights, halves)
            second, _ = (halves[0] + halves[1]).centred
        shaped = rounding.ungrouped(node, weights, original.shape)
        found = self._fitted(node, rounded(shaped, axis, self.scheme))
        if done.reconstruction:
            scales = found.scales.reshape(weights.shape[:2]).astype(np.float64)
            integers = rounding.reconstructed(weights, scales, second, self.scheme.weight_max)
            found = Weight(
                rounding.ungrouped(node, integers, original.shape), found.scales, found.axis
            )
        self._weights[node.name] = found
        values = torch.from_numpy(found.floats)

        made = Shelf(self._store)
        for index in range(count):
            inputs = given(quants, index, True)
            made.append(self.network.apply(node, [inputs[0], values, *inputs[2:]])[0])
        if done.bias_correction and len(node.inputs) > 2:
            rank = made[0].ndim
            axis = channel_axis(rank) if node.op != "Conv" else 1
            over = [one for one in range(rank) if one != axis]
            shift = torch.stack(
                [(f - q).double().mean(over) * len(q) for f, q in zip(made_f, made, strict=True)]
            ).sum(0) / sum(len(q) for q in made)
            before = self.network.constants[node.inputs[2]].numpy().astype(np.float64)
            self._biases[node.name] = (before + shift.numpy()).astype(np.float32)
            wide = shift.float().reshape([-1 if one == axis else 1 for one in range(rank)])
            for index, value in enumerate(made):
                made.replace(index, value + wide)
        return made

    def _fitted(self, node: Node, found: Weight) -> Weight:
        """Weights on scales that their node's bias fits."""
        if len(node.inputs) < 3 or not node.inputs[2]:
            return found
        taken = self._ranges[self.placement.root(node.inputs[0])]
        scale, _ = taken.grid(self.scheme)
        return fitted(found, self.network.constants[node.inputs[2]].numpy(), float(scale))

    def _moments(
        self, node: Node, given: Any, floats: Any, quants: Any, count: int, kernel: tuple[int, ...]
    ) -> tuple[Moments, Moments]:
        """Second moments of a node's columns, over every other batch each."""
        import torch

        size = int(np.prod(self.network.constants[node.inputs[1]].shape[1:]))
        # Enough columns for a matrix of that size, not more: large ones take time as K² n, and
        # many small ones, of a depthwise convolution, as g K n.
        group = int(node.attributes.get("group", 1)) if node.op == "Conv" else 1
        affordable = min(2_000_000_000 // size**2, 20_000_000 // (group * size))
        places = min(PLACES, max(4 * size, 4096, affordable))
        each = -(-places // count)
        halves: list[Moments | None] = [None, None]
        for index in range(count):
            xs = []
            for values, on_grid in ((floats, False), (quants, True)):
                generator = torch.Generator().manual_seed(self.seed + index)
                x = given(values, index, on_grid)[0]
                xs.append(rounding.patches(node, x, tuple(kernel), each, generator))
            f, q = xs
            found = Moments(
                each, f.double().sum(1).numpy(), q.double().sum(1).numpy(),
                (q.transpose(1, 2) @ q).double().numpy(),
                ((f - q).transpose(1, 2) @ q).double().numpy(),
            )  # fmt: skip
            before = halves[index % 2]
            halves[index % 2] = found if before is None else before + found
        one, other = halves[0], halves[1] or halves[0]
        assert one is not None and other is not None
        return one, other


def nonlinearity(network: Network, name: str) -> Node | None:
    """The node that alone takes a tensor, where it changes single values, each by itself alone."""
    following = network.consumers.get(name, [])
    if len(following) != 1 or following[0].op not in NONLINEAR or name in network.outputs:
        return None
    rest = [network.constants.get(one) for one in following[0].inputs[1:]]
    return None if any(one is None or one.numel() > 1 for one in rest) else following[0]


def _forget(name: str, floats: Paths, quants: Paths) -> None:
    """Drop a tensor that nothing takes any more."""
    for one in {id(values): values for path in (floats, quants)
                if (values := path.pop(name, None)) is not None}.values():  # fmt: skip
        if isinstance(one, Shelf):
            one.clear()
