"""Noise-model equalization: factors between channels that lessen the quantization noise of outputs.

Cross-layer equalization (Nagel et al. 2019, arXiv:1906.04721) divides a convolution's output
channels by factors s and multiplies its consumers' columns by them: the function stays, the grids
change. There s equals weight ranges; here it minimises a model of the noise that reaches the
outputs. A tensor with one grid for all channels has noise of variance ((H + L) / 255)² / 12 in
every element, H = max_c high_c / s_c, L likewise; a channel's share of it reaches the outputs with
importance I_c s_c². A consumer's row o, of scale m_o / 127, adds (m_o / 127)² / 12 for each weight,
times the power of what the weight multiplies, E[x_c²] / s_c². With a scale for each row, the
producer's rows and depthwise consumers absorb any factor for free. Importance is 1 for all
channels, or what gradients say (`statistics.weighed`): which is better differs between networks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.moments import highest
from workbench.quantization.core.placement import weighted

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.channels import Scaling
    from workbench.quantization.core.moments import Channels
    from workbench.quantization.core.network import Network

Array = NDArray[Any]

STEPS, FASTEST, SLOWEST = 150, 0.08, 0.001  # of Adam
WIDEST = 100.0  # factors lie between 1 / WIDEST and WIDEST
POWER = 20  # of the mean that stands for the maximum, so that a gradient reaches more than one


@dataclass(frozen=True)
class _Grid:
    """A quantized tensor: classes [C], extremes and importance of its channels."""

    classes: Array
    low: Array
    high: Array
    importance: Array


@dataclass(frozen=True)
class _Consumer:
    """Weights as the largest of each row and column [O, I/g], over the kernel; size of the kernel.

    classes: of the input channels, as rows see them [O, I/g]. importance: of the rows [O].
    """

    largest: Array
    classes: Array
    power: Array
    importance: Array
    kernel: int


def factors(
    network: Network,
    scaling: Scaling,
    stats: Mapping[str, Channels],
    tensors: Collection[str],
    nodes: Collection[str],
    weight_max: int = 127,
) -> Array:
    """The factor of every class [count], 1 for class 0.

    tensors: those with grids of their own. nodes: those whose weights are quantized.
    """
    import torch

    grids = [
        _Grid(scaling.tensors[name], stats[name].low, highest(network, stats, name),
              stats[name].importance)
        for name in tensors
        if name in scaling.tensors and name in stats and scaling.tensors[name].any()
    ]  # fmt: skip
    consumers = _consumers(network, scaling, stats, nodes)
    if not grids and not consumers:
        return np.ones(scaling.count)
    groups = _groups(
        scaling.count, [one.classes for one in grids] + [one.classes for one in consumers]
    )
    count = int(groups.max()) + 1
    if count < 2:
        return np.ones(scaling.count)
    u = torch.zeros(scaling.count, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([u], lr=FASTEST)
    decay = torch.optim.lr_scheduler.ExponentialLR(adam, (SLOWEST / FASTEST) ** (1 / STEPS))
    terms: list[_Grid | _Consumer] = [*grids, *consumers]
    parts = [(int(groups[one.classes.max()]), _noise_of(one, weight_max)) for one in terms]
    fixed = torch.ones(scaling.count, dtype=torch.float64)
    fixed[0] = 0
    floor = torch.from_numpy(np.log(scaling.least))
    for _ in range(STEPS):
        s = torch.exp(u * fixed)
        noise = torch.zeros(count, dtype=torch.float64)
        for group, part in parts:
            noise = noise.index_add(0, torch.tensor([group]), part(s).reshape(1))
        loss = torch.log(noise[1:] + 1e-30).sum()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
        decay.step()
        with torch.no_grad():
            u.copy_(torch.maximum(u, floor).clamp(-np.log(WIDEST), np.log(WIDEST)))
    found: Array = torch.exp(u * fixed).detach().numpy()
    return found


def _noise_of(one: _Grid | _Consumer, weight_max: int) -> Any:
    """A function from the factors of all classes to this one's share of the outputs' noise."""
    import torch

    index = torch.from_numpy(np.ascontiguousarray(one.classes))
    importance = torch.from_numpy(one.importance)

    def top(value: Any) -> Any:
        peak = value.detach().amax(-1, keepdim=True).clamp_min(1e-30)
        total = ((value / peak) ** POWER).sum(-1, keepdim=True).clamp_min(1e-30)  # rows of zeros
        return (total ** (1 / POWER) * peak).squeeze(-1)

    if isinstance(one, _Grid):
        high, low = torch.from_numpy(one.high), torch.from_numpy(-one.low)

        def of_grid(s: Any) -> Any:
            own = s[index]
            span = top(high / own) + (top(low / own) if one.low.any() else 0.0)
            return (span / 255) ** 2 / 12 * (importance * own**2).sum()

        return of_grid
    largest, power = torch.from_numpy(one.largest), torch.from_numpy(one.power)

    def of_consumer(s: Any) -> Any:
        own = s[index]
        rows = (top(largest * own) / weight_max) ** 2 / 12
        return (importance * rows * one.kernel * (power / own**2).sum(-1)).sum()

    return of_consumer


def _consumers(
    network: Network, scaling: Scaling, stats: Mapping[str, Channels], nodes: Collection[str]
) -> list[_Consumer]:
    found = []
    for node in weighted(network):
        taken = node.inputs[0]
        if node.name not in nodes or taken not in scaling.tensors or taken not in stats:
            continue
        classes = scaling.tensors[taken]
        rows, kernel = as_rows(node.op, node.attributes, network.constants[node.inputs[1]].numpy())
        group = int(node.attributes.get("group", 1))
        if not classes.any() or rows.shape[1] == 1 or node.op == "MatMul":
            continue
        spread = columns(np.arange(len(classes)), rows.shape[0], group)
        after = stats.get(node.output)
        importance = after.importance if after is not None else np.ones(len(rows))
        found.append(
            _Consumer(
                np.abs(rows).max(axis=2).astype(np.float64), classes[spread],
                stats[taken].power[spread], importance, kernel,
            )
        )  # fmt: skip
    return found


def as_rows(op: str, attributes: Mapping[str, Any], weights: Array) -> tuple[Array, int]:
    """Weights as [O, I/g, kernel], and the size of the kernel."""
    if op == "Conv":
        rows = weights.reshape(*weights.shape[:2], -1)
        return rows, rows.shape[2]
    turned = weights if attributes.get("transB") else weights.T
    return turned[:, :, None], 1


def columns(channels: Array, rows: int, group: int) -> Array:
    """What of the input's channels [C] each row of a grouped convolution sees [rows, C/group]."""
    each = channels.reshape(group, -1)
    return np.repeat(each, rows // group, axis=0)


def _groups(count: int, members: Sequence[Array]) -> Array:
    """Classes that meet in one noise term, as numbers [count]; class 0 is group 0."""
    parents = np.arange(count)

    def find(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = int(parents[one])
        return one

    for one in members:
        present = np.unique(one)
        present = present[present > 0]
        for other in present[1:]:
            a, b = find(int(present[0])), find(int(other))
            parents[max(a, b)] = min(a, b)
    roots = np.array([find(one) for one in range(count)])
    found: Array = np.unique(roots, return_inverse=True)[1]
    return found


def applied(
    model: onnx.ModelProto, network: Network, scaling: Scaling, factor: Array
) -> onnx.ModelProto:
    """The model with its channels divided by their factors: the same function, to rounding.

    Every node with weights must own them (see `prepare`).
    """
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    changed: dict[str, Array] = {}

    def value(name: str) -> Array:
        found: Array = changed.get(name, network.constants[name].numpy())
        return found.astype(np.float64)

    for node in weighted(network):
        name = node.inputs[1]
        if node.op not in ("Conv", "Gemm"):
            continue
        before, after = (
            factor[scaling.tensors[one]] if one in scaling.tensors else None
            for one in (node.inputs[0], node.output)
        )
        weights = value(name)
        transposed = node.op == "Gemm" and not node.attributes.get("transB")
        rows = weights.T if transposed else weights
        ones = [1] * (rows.ndim - 2)
        if before is not None:
            spread = columns(before, len(rows), int(node.attributes.get("group", 1)))
            rows = rows * spread.reshape(*spread.shape, *ones)
        if after is not None:
            rows = rows / after.reshape(-1, 1, *ones)
            if len(node.inputs) > 2 and node.inputs[2]:
                changed[node.inputs[2]] = value(node.inputs[2]) / after
        changed[name] = rows.T if transposed else rows
    for node in network.nodes:
        for place, name in enumerate(node.inputs):
            if (node.name, place) in scaling.constants:
                own = factor[scaling.constants[node.name, place]]
                # [C, 1, 1] beside images, [C] beside vectors: as the summand itself is.
                images = scaling.ranks[node.name] == 4
                changed[name] = value(name) / own.reshape((-1, 1, 1) if images else (-1,))
    for tensor in made.graph.initializer:
        if tensor.name in changed:
            array = np.ascontiguousarray(changed[tensor.name], dtype=np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return made
