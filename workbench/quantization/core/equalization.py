"""Cross-layer equalization: channels scaled against each other, the function kept.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019
(arXiv:1906.04721) divide a convolution's output channels by factors s and multiply its consumers'
columns by them: the function stays, the grids change. There s equals weight ranges; here it
minimises a model of the noise that reaches the outputs (`equalization_noise`), and is taken where
the quantized network then simulates better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import slice_batch
from workbench.quantization.core import equalization_noise
from workbench.quantization.core.channel_classes import ScalableChannels, find_scalable_channels
from workbench.quantization.core.equalization_noise import input_columns
from workbench.quantization.core.fake_quantization import (
    COMPARED,
    min_max_plan,
    output_sqnr,
    simulate,
)
from workbench.quantization.core.network import Network
from workbench.quantization.core.placement import OperatorPlacement, weighted_nodes
from workbench.quantization.core.plan import QuantizationScheme
from workbench.quantization.core.samples import Samples, first_samples

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.observers import ChannelStatistics

Array = NDArray[Any]


@dataclass(frozen=True)
class Equalization:
    """A network equalized.

    Attributes:
        stats: of its tensors, the network's scaled.
        scales: by tensor, what each channel [C] was divided by; those that were not are absent.
        sqnr: of min-max quantization, simulated, in dB.
    """

    network: Network
    stats: Mapping[str, ChannelStatistics]
    scales: Mapping[str, Array]
    sqnr: float


def equalize(
    network: Network,
    samples: Samples,
    weighings: Sequence[Mapping[str, ChannelStatistics]],
    placement: OperatorPlacement,
    scheme: QuantizationScheme,
) -> tuple[Equalization | None, str]:
    """The equalization that simulates best, None where none gains, and a note for the user.

    Args:
        weighings: the network's statistics with the importances that are tried, importance 1 first.
        placement: says which grids there are.
    """
    stats = weighings[0]
    channels = find_scalable_channels(network, slice_batch(samples[0], 0, 1), stats)
    few = first_samples(samples, COMPARED)
    expected = simulate(network, few)

    def simulated_sqnr(network: Network, stats: Mapping[str, ChannelStatistics]) -> float:
        plan = min_max_plan(network, placement, stats, scheme)
        return output_sqnr(expected, simulate(network, few, placement, plan))

    before = simulated_sqnr(network, stats)
    candidates = []
    for weighed in weighings:
        factors = equalization_noise.least_noise_factors(
            network, channels, weighed, placement, scheme.weight_max
        )
        changed = Network(apply_factors(network, channels, factors))
        scales = {name: factors[classes] for name, classes in channels.tensors.items()}
        scaled = {
            name: tensor.scaled(scales[name]) if name in scales else tensor
            for name, tensor in stats.items()
        }
        scales = {name: own for name, own in scales.items() if not np.allclose(own, 1)}
        sqnr = simulated_sqnr(changed, scaled)
        candidates.append(Equalization(changed, scaled, scales, sqnr))
    best = max(candidates, key=lambda candidate: candidate.sqnr)
    # It can destroy a network: so it is taken where it simulates better than nothing.
    if best.sqnr < before:
        return None, f"not equalized: {best.sqnr:.1f} dB simulated, {before:.1f} without"
    return best, f"equalized: {before:.1f} dB with min-max became {best.sqnr:.1f}, simulated"


def apply_factors(network: Network, channels: ScalableChannels, factors: Array) -> onnx.ModelProto:
    """The network's model with its channels divided by their factors [count].

    The same function, to rounding. Every node with weights must own them (see `prepare`).
    """
    import onnx

    changed: dict[str, Array] = {}

    def value(name: str) -> Array:
        array: Array = changed.get(name, network.constants[name].numpy())
        return array.astype(np.float64)

    for node in weighted_nodes(network):
        name = node.inputs[1]
        if node.op not in ("Conv", "Gemm"):
            continue
        before, after = (
            factors[channels.tensors[tensor]] if tensor in channels.tensors else None
            for tensor in (node.inputs[0], node.output)
        )
        weights = value(name)
        transposed = node.op == "Gemm" and not node.attributes.get("transB")
        rows = weights.T if transposed else weights
        kernel = [1] * (rows.ndim - 2)
        if before is not None:
            columns = input_columns(before, len(rows), int(node.attributes.get("group", 1)))
            rows = rows * columns.reshape(*columns.shape, *kernel)
        if after is not None:
            rows = rows / after.reshape(-1, 1, *kernel)
            if len(node.inputs) > 2 and node.inputs[2]:
                changed[node.inputs[2]] = value(node.inputs[2]) / after
        changed[name] = rows.T if transposed else rows
    for (node_name, position), constant in channels.constants.items():
        name = network.nodes_by_name[node_name].inputs[position]
        # [C, 1, 1] beside images, [C] beside vectors: as the summand itself is.
        shape = (-1, 1, 1) if constant.rank == 4 else (-1,)
        changed[name] = value(name) / factors[constant.classes].reshape(shape)
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    for tensor in model.graph.initializer:
        if tensor.name in changed:
            array = np.ascontiguousarray(changed[tensor.name], dtype=np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return model
