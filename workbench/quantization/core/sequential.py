"""The quantized path beside the float one, node after node: each error is seen when it arises.

For every node with weights, in topological order, on all samples: second moments of what it takes
on both paths; compensation and rounding of its weights; its bias, so that the mean of its output is
the float path's; then the range of its output, on the values that the quantized path really gives.
Sequential bias correction is Nagel et al. 2019 (arXiv:1906.04721), there on the float path's data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import channel_axis
from workbench.quantization.core import gptq
from workbench.quantization.core.activation_store import ActivationStore, StoredBatches
from workbench.quantization.core.fake_quantization import fake_quantize, output_axis
from workbench.quantization.core.gptq import ColumnMoments
from workbench.quantization.core.placement import FUSED, OperatorPlacement, clip_bounds
from workbench.quantization.core.plan import (
    ActivationRange,
    QuantizationPlan,
    QuantizationScheme,
    QuantizedWeight,
    quantize_weights,
    widen_for_bias,
)

if TYPE_CHECKING:
    import torch

    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.samples import Samples

Array = NDArray[Any]
Batches: TypeAlias = "StoredBatches | Sequence[torch.Tensor]"

COLUMNS = 40_000  # of im2col for second moments
# Operators behind which an error looks different, and that change single values.
NONLINEAR = {"LeakyRelu", "Relu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu",
             "Gelu", "PRelu", "Softplus", "Mish"}  # fmt: skip


@dataclass
class SequentialQuantizer:
    """One pass over the samples; `run` gives the plan.

        plan = SequentialQuantizer(network, placement, SCHEMES["u8s8"], TECHNIQUES).run(samples)

    Attributes:
        techniques: which of compensation, reconstruction and bias_correction are done (see
            `presets`); the rest is min-max, rounding to nearest, no correction.
        seed: of the columns that second moments are taken of.
        ranges: those that were found before (see `range_search`).
        progress: takes the fraction that is done.
    """

    network: Network
    placement: OperatorPlacement
    scheme: QuantizationScheme
    techniques: Collection[str] = ()
    seed: int = 0
    ranges: Mapping[str, ActivationRange] = field(default_factory=dict)
    progress: Callable[[float], None] = lambda _: None

    def run(self, samples: Samples) -> QuantizationPlan:
        """The plan for samples. Activations beyond some megabytes are kept in files."""
        import torch

        with torch.no_grad(), ActivationStore() as store:
            return _Pass(self, samples, store).plan()


@dataclass(frozen=True)
class _Path:
    """The tensors of one of the two paths, by name, as long as some node will take them."""

    batches: dict[str, Batches]
    quantized: bool


class _Pass:
    """The state of a pass: both paths so far, and what was decided."""

    def __init__(
        self, options: SequentialQuantizer, samples: Samples, store: ActivationStore
    ) -> None:
        self.options, self.store, self.count = options, store, len(samples)
        self.network, self.placement = options.network, options.placement
        self.scheme = options.scheme
        inputs: dict[str, Batches] = {
            name: [feeds[name] for feeds in samples] for name in self.network.inputs
        }
        self.floats, self.quants = _Path(inputs, False), _Path(dict(inputs), True)
        self.ranges: dict[str, ActivationRange] = {}
        self.weights: dict[str, QuantizedWeight] = {}
        self.biases: dict[str, Array] = {}

    def plan(self) -> QuantizationPlan:
        left = Counter(self.network.uses)
        for number, node in enumerate(self.network.nodes):
            self._take_step(node)
            self.options.progress((number + 1) / len(self.network.nodes))
            for name in {*node.inputs, *node.captured}:
                left[name] -= 1
                if not left[name]:
                    self._forget(name)
        plan = QuantizationPlan(self.ranges, self.weights, self.biases, self.scheme)
        return plan.with_tied_ranges(self.placement.ties)

    def _take_step(self, node: NetworkNode) -> None:
        """Run a node on both paths; decide its weights, its bias and the ranges it needs."""
        integer = node.name in self.placement.nodes
        if integer:
            for name in node.inputs:
                if name in self.placement.tensors and name not in self.ranges:
                    self._set_range(name)
        exact = self._apply(node, self.floats, on_grid=False)
        if integer and node.op in ("Conv", "Gemm", "MatMul"):
            outputs = [self._apply_weighted(node, exact[0])]
        elif not integer and self._is_exact(node):
            outputs = exact  # nothing in front of it is quantized
        else:
            outputs = self._apply(node, self.quants, on_grid=integer)
        for name, reference, output in zip(node.outputs, exact, outputs, strict=False):
            if not name:
                continue
            self.floats.batches[name], self.quants.batches[name] = reference, output
            if integer and name in self.placement.tensors:
                self._set_range(name)
                for index, value in enumerate(output):
                    output.replace(index, fake_quantize(value, self.ranges[name], self.scheme))
            if not self.network.uses[name]:
                self._forget(name)

    def _is_exact(self, node: NetworkNode) -> bool:
        """Whether all that a node takes is the same on both paths."""
        return all(
            self.quants.batches[name] is self.floats.batches[name]
            for name in (*node.inputs, *node.captured)
            if name and name not in self.network.constants
        )

    def _inputs(self, node: NetworkNode, path: _Path, index: int, on_grid: bool) -> list[Any]:
        """What a node takes of a batch; `on_grid` what is quantized is on its grid."""
        constants = self.network.constants
        inputs: list[Any] = []
        for name in (*node.inputs, *node.captured):
            if not name or name in constants:
                inputs.append(constants[name] if name else None)
                continue
            value = path.batches[name][index]
            root = self.placement.root(name)
            # What an INT8 node made is on its grid already; what a float one made is not.
            if on_grid and root in self.ranges and not self._made_on_grid(name):
                value = fake_quantize(value, self.ranges[root], self.scheme)
            inputs.append(value)
        return inputs

    def _apply(self, node: NetworkNode, path: _Path, on_grid: bool) -> list[StoredBatches]:
        """A node's outputs for every batch."""
        outputs = [StoredBatches(self.store) for _ in node.outputs]
        for index in range(self.count):
            values = self.network.apply(node, self._inputs(node, path, index, on_grid))
            for batches, value in zip(outputs, values, strict=False):
                batches.append(value)
        return outputs

    def _made_on_grid(self, name: str) -> bool:
        producer = self.network.producers.get(name)
        return producer is not None and producer.name in self.placement.nodes

    def _set_range(self, name: str) -> None:
        """Set the range of a tensor: a known one, or what the quantized path's values span.

        One that ends beyond a Clip's bound would not clip, and nothing fuses.
        """
        tensor_range = self.options.ranges.get(name)
        if tensor_range is None:
            ends = [(float(batch.min()), float(batch.max())) for batch in self.quants.batches[name]]
            tensor_range = ActivationRange(min(low for low, _ in ends), max(h for _, h in ends))
        producer = self.network.producers.get(name)
        if (
            producer is not None
            and producer.op in FUSED
            and producer.inputs[0] in self.placement.fused
        ):
            _, bound = clip_bounds(producer, self.network)
            if bound is not None:
                high = min(tensor_range.high, bound)
                tensor_range = ActivationRange(tensor_range.low, high)
        self.ranges[name] = tensor_range

    def _apply_weighted(self, node: NetworkNode, exact: StoredBatches) -> StoredBatches:
        """Round a node's weights, correct its bias; its outputs on the quantized path."""
        import torch

        weight = self.weights[node.name] = self._quantize_weights(node)
        values = torch.from_numpy(weight.floats)
        outputs = StoredBatches(self.store)
        for index in range(self.count):
            inputs = self._inputs(node, self.quants, index, on_grid=True)
            outputs.append(self.network.apply(node, [inputs[0], values, *inputs[2:]])[0])
        if "bias_correction" in self.options.techniques and len(node.inputs) > 2:
            self._correct_bias(node, exact, outputs)
        return outputs

    def _quantize_weights(self, node: NetworkNode) -> QuantizedWeight:
        """A node's weights by what they multiply, on scales that its bias fits."""
        techniques = self.options.techniques
        original = self.network.constants[node.inputs[1]].numpy()
        weights = gptq.to_groups(node, original).astype(np.float64)
        moments = None
        if "compensation" in techniques or "reconstruction" in techniques:
            halves = self._column_moments(node, original.shape[2:])
            moments = halves[0] + halves[1]
            if "compensation" in techniques and node.op == "Conv":
                weights = gptq.compensate_weights(weights, halves)
        shaped = gptq.from_groups(node, weights, original.shape)
        nearest = quantize_weights(shaped, output_axis(node, self.network), self.scheme)
        if len(node.inputs) > 2 and node.inputs[2]:
            scale, _ = self.ranges[self.placement.root(node.inputs[0])].grid(self.scheme)
            bias = self.network.constants[node.inputs[2]].numpy()
            nearest = widen_for_bias(nearest, bias, float(scale))
        if "reconstruction" not in techniques or moments is None:
            return nearest
        scales = nearest.scales.reshape(weights.shape[:2]).astype(np.float64)
        integers = gptq.round_gptq(weights, scales, moments.centred[0], self.scheme.weight_max)
        integers = gptq.from_groups(node, integers, original.shape)
        return QuantizedWeight(integers, nearest.scales, nearest.axis)

    def _correct_bias(
        self, node: NetworkNode, exact: StoredBatches, outputs: StoredBatches
    ) -> None:
        """Shift a node's outputs, and its bias, to the means that they have on the float path."""
        import torch

        rank = outputs[0].ndim
        channels = channel_axis(rank) if node.op != "Conv" else 1
        others = [axis for axis in range(rank) if axis != channels]
        sums = [
            (f - q).sum(others, dtype=torch.float64) for f, q in zip(exact, outputs, strict=True)
        ]
        count = sum(q.numel() // q.shape[channels] for q in outputs)
        shift = torch.stack(sums).sum(0) / count
        before = self.network.constants[node.inputs[2]].numpy().astype(np.float64)
        self.biases[node.name] = (before + shift.numpy()).astype(np.float32)
        spread = shift.float().reshape([-1 if axis == channels else 1 for axis in range(rank)])
        for index, value in enumerate(outputs):
            outputs.replace(index, value + spread)

    def _column_moments(
        self, node: NetworkNode, kernel: tuple[int, ...]
    ) -> tuple[ColumnMoments, ColumnMoments]:
        """Second moments of a node's columns, over every other batch each."""
        from torch import float64 as f64

        size = int(np.prod(self.network.constants[node.inputs[1]].shape[1:]))
        # Enough columns for a matrix of that size, not more: large ones take time as K² n, and
        # many small ones, of a depthwise convolution, as g K n.
        group = int(node.attributes.get("group", 1)) if node.op == "Conv" else 1
        affordable = min(2_000_000_000 // size**2, 20_000_000 // (group * size))
        columns = min(COLUMNS, max(4 * size, 4096, affordable))
        each = -(-columns // self.count)
        halves: list[ColumnMoments | None] = [None, None]
        for index, (f, q) in enumerate(self._sampled_columns(node, kernel, each)):
            moments = ColumnMoments(
                f.shape[1], f.sum(1, dtype=f64).numpy(), q.sum(1, dtype=f64).numpy(),
                (q.transpose(1, 2) @ q).double().numpy(),
                ((f - q).transpose(1, 2) @ q).double().numpy(),
            )  # fmt: skip
            before = halves[index % 2]
            halves[index % 2] = moments if before is None else before + moments
        even, odd = halves[0], halves[1] or halves[0]
        assert even is not None and odd is not None
        return even, odd

    def _sampled_columns(
        self, node: NetworkNode, kernel: tuple[int, ...], count: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """For each batch the same columns [g, count, K] on the float and on the quantized path."""
        import torch

        for index in range(self.count):
            pair = []
            for path in (self.floats, self.quants):
                generator = torch.Generator().manual_seed(self.options.seed + index)
                x = self._inputs(node, path, index, on_grid=path.quantized)[0]
                pair.append(gptq.sample_columns(node, x, tuple(kernel), count, generator))
            yield pair[0], pair[1]

    def _forget(self, name: str) -> None:
        """Drop a tensor that nothing takes any more."""
        paths = (self.floats.batches.pop(name, None), self.quants.batches.pop(name, None))
        for batches in {id(batches): batches for batches in paths}.values():
            if isinstance(batches, StoredBatches):
                batches.clear()


def lone_nonlinearity(network: Network, name: str) -> NetworkNode | None:
    """The node that alone takes a tensor, where it changes single values, each by itself alone."""
    takers = network.consumers.get(name, [])
    if len(takers) != 1 or takers[0].op not in NONLINEAR or name in network.outputs:
        return None
    parameters = [network.constants.get(constant) for constant in takers[0].inputs[1:]]
    if any(parameter is None or parameter.numel() > 1 for parameter in parameters):
        return None
    return takers[0]
