"""The first layers in float, where 8 bits cost there what the rest of the network cannot mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.quantization.core.placement import OperatorPlacement, weighted_nodes

if TYPE_CHECKING:
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.observers import ChannelStatistics

LONGEST = 12  # layers
HEAVIEST = 0.022  # of all weights: the file stays as small
COUNTS = 0.01  # of an input's effect on the outputs, that a channel has
WORTH = 0.005  # of the noise of all, that a layer in float must free
# INT8 gains nothing below: so many products for each output (a 1x1 convolution of 64 channels),
# so many outputs, so many channels of a depthwise one. Measured in ONNX Runtime on x86; above,
# a layer in float costs time.
FEW_PRODUCTS, FEW_OUTPUTS, NARROW = 64, 16, 128


def rounding_noise(
    placement: OperatorPlacement, stats: Mapping[str, ChannelStatistics]
) -> dict[str, float]:
    """What each quantized tensor's rounding adds to the variance of the outputs, by the model.

    The noise of its grid in every element, times the importance of its channels, which says what
    reaches the end.
    """
    return {
        name: stats[name].rounding_noise * float(stats[name].importance.sum())
        for name in placement.tensors
        if name in stats
    }


def noisy_prefix(
    network: Network, placement: OperatorPlacement, stats: Mapping[str, ChannelStatistics]
) -> tuple[str, ...]:
    """Names of nodes, the first in graph order, that are better left in float; often none.

    The longest start of the network whose layers gain no speed from INT8 and free noise each:
    few channels and large images, where INT8 is slowest too. None where a MaxPool follows: ONNX
    Runtime moves quantization in front of it, and pools slowly.
    """
    lossy = lossy_inputs(network, placement, stats)
    noise = rounding_noise(placement, stats)
    total = sum(noise.values())
    layers = [node for node in weighted_nodes(network) if node.name in placement.nodes]
    if len(layers) < 4 or not total:
        return lossy
    sizes = [network.constants[node.inputs[1]].numel() for node in layers]
    order = {node.name: number for number, node in enumerate(network.nodes)}
    weight, best = 0, 0
    for number, node in enumerate(layers[: min(LONGEST, len(layers) // 2)]):
        weight += sizes[number]
        if weight > HEAVIEST * sum(sizes) or gains_speed(node, network):
            break
        start, end = order[node.name], order[layers[number + 1].name]
        between = network.nodes[start:end]
        if any(follower.op == "MaxPool" for follower in between):
            break
        outputs = {name for follower in between for name in follower.outputs}
        if sum(share for name, share in noise.items() if name in outputs) >= WORTH * total:
            best = end
    return tuple(dict.fromkeys((*(node.name for node in network.nodes[:best]), *lossy)))


def lossy_inputs(
    network: Network, placement: OperatorPlacement, stats: Mapping[str, ChannelStatistics]
) -> tuple[str, ...]:
    """Names of the nodes that take an input of which 8 bits would leave nothing of some channel.

    Channels of an input cannot be equalized: where one is a million times another, the other's
    values all round to 0. So says the noise of the grid against the channel's power, for channels
    that count.
    """
    nodes: dict[str, None] = {}
    for name in network.inputs:
        tensor = stats.get(name)
        if name not in placement.tensors or tensor is None:
            continue
        shares = tensor.importance * tensor.power
        drowned = tensor.power < tensor.rounding_noise
        if (drowned & (shares > COUNTS * shares.sum())).any():
            nodes |= {node.name: None for node in network.consumers.get(name, [])}
    return tuple(nodes)


def gains_speed(node: NetworkNode, network: Network) -> bool:
    """Whether a layer runs clearly faster in INT8, by its kind and size alone."""
    weights = network.constants[node.inputs[1]]
    group = int(node.attributes.get("group", 1))
    if node.op != "Conv" or group > 1:
        return node.op != "Conv" or (weights.shape[1] == 1 and group >= NARROW)
    products = weights[0].numel()
    return weights.shape[1] > 4 and products > FEW_PRODUCTS and weights.shape[0] > FEW_OUTPUTS
