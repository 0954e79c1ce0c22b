"""The first layers in float, where 8 bits cost there what the rest of the network cannot mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.quantization.core.placement import Placement, weighted

if TYPE_CHECKING:
    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network, Node

LONGEST = 12  # layers
HEAVIEST = 0.022  # of all weights: the file stays as small
COUNTS = 0.01  # of an input's effect on the outputs, that a channel has
WORTH = 0.005  # of the noise of all, that a layer in float must free
# INT8 gains nothing below: so many products for each output (a 1x1 convolution of 64 channels),
# so many outputs, so many channels of a depthwise one. Measured in ONNX Runtime on x86; above,
# a layer in float costs time.
FEW_PRODUCTS, FEW_OUTPUTS, NARROW = 64, 16, 128


def noise(placement: Placement, stats: Mapping[str, Channels]) -> dict[str, float]:
    """What each quantized tensor's rounding adds to the variance of the outputs, by the model.

    A grid of width w has noise of w² / 12 in every element; importance says what reaches the end.
    """
    found = {}
    for name in placement.tensors:
        one = stats.get(name)
        if one is not None:
            width = (float(one.high.max()) - float(one.low.min())) / 255
            found[name] = width**2 / 12 * float(one.importance.sum())
    return found


def noisy_prefix(
    network: Network, placement: Placement, stats: Mapping[str, Channels]
) -> tuple[str, ...]:
    """Names of nodes, the first in graph order, that are better left in float; often none.

    The longest start of the network whose layers gain no speed from INT8 and free noise each:
    few channels and large images, where INT8 is slowest too. None where a MaxPool follows: ONNX
    Runtime moves quantization in front of it, and pools slowly.
    """
    lost = wiped(network, placement, stats)
    shares = noise(placement, stats)
    total = sum(shares.values())
    layers = [node for node in weighted(network) if node.name in placement.nodes]
    if len(layers) < 4 or not total:
        return lost
    sizes = [network.constants[node.inputs[1]].numel() for node in layers]
    order = {node.name: place for place, node in enumerate(network.nodes)}
    weight, best = 0, 0
    for number, node in enumerate(layers[: min(LONGEST, len(layers) // 2)]):
        weight += sizes[number]
        if weight > HEAVIEST * sum(sizes) or gains(node, network):
            break
        start, end = order[node.name], order[layers[number + 1].name]
        between = network.nodes[start:end]
        if any(one.op == "MaxPool" for one in between):
            break
        made = {name for one in between for name in one.outputs}
        if sum(share for name, share in shares.items() if name in made) >= WORTH * total:
            best = end
    return tuple(dict.fromkeys((*(node.name for node in network.nodes[:best]), *lost)))


def wiped(network: Network, placement: Placement, stats: Mapping[str, Channels]) -> tuple[str, ...]:
    """Names of the nodes that take an input of which 8 bits would leave nothing of some channel.

    Channels of an input cannot be equalized: where one is a million times another, the other's
    values all round to 0. So says the noise of the grid against the channel's power, for channels
    that count.
    """
    found: dict[str, None] = {}
    for name in network.inputs:
        one = stats.get(name)
        if name not in placement.tensors or one is None:
            continue
        noise = ((float(one.high.max()) - float(one.low.min())) / 255) ** 2 / 12
        shares = one.importance * one.power
        if ((one.power < noise) & (shares > COUNTS * shares.sum())).any():
            found |= {node.name: None for node in network.consumers.get(name, [])}
    return tuple(found)


def gains(node: Node, network: Network) -> bool:
    """Whether a layer runs clearly faster in INT8, by its kind and size alone."""
    weights = network.constants[node.inputs[1]]
    group = int(node.attributes.get("group", 1))
    if node.op != "Conv" or group > 1:
        return node.op != "Conv" or (weights.shape[1] == 1 and group >= NARROW)
    products = weights[0].numel()
    return weights.shape[1] > 4 and products > FEW_PRODUCTS and weights.shape[0] > FEW_OUTPUTS
