"""What quantization did to a network, as figures: every layer, and what each technique gave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import slice_batch
from workbench.codec import to_plain
from workbench.quantization.core.float_prefix import rounding_noise
from workbench.quantization.core.placement import FUSED, PASSING, weighted_nodes
from workbench.quantization.core.samples import Feeds, Samples, count_samples
from workbench.quantization.explain.waterfall import EXACT, WaterfallStage, waterfall

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import CalibratedNetwork, PlannedPlacement
    from workbench.quantization.core.network import Network, NetworkNode
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.plan import ActivationRange, QuantizationPlan
    from workbench.quantization.search.budget_search import BudgetEvidence
    from workbench.quantization.search.choice import PlacementChoice
    from workbench.quantization.search.latency_evidence import LatencyEvidence

Array = NDArray[Any]
Figures = TypeVar("Figures", "LayerEvidence", WaterfallStage)

TRACED = 8  # samples through which every layer is followed
STAGED = 20  # samples on which the techniques are tried one after the other
# Multiply-accumulates that each of the two may take, so that it stays at seconds: large networks
# get fewer samples.
MOST = 20e9
PASSES = 16  # through the network, of a sample, for all techniques


@dataclass(frozen=True)
class LayerEvidence:
    """One node, or an input. None where there is no such figure, for a layer in float say.

    Attributes:
        precision: "int8" or "float32".
        weight_sqnr: of its weights, equalized, to those on the grid, in dB.
        low, high: the range of its output's grid.
        clipped: the share of the float network's values outside of it.
        sqnr: of the file's values against these, in dB, all that came before it included.
        noise: the share of the outputs' noise that the model gives to rounding this output.
    """

    name: str
    op: str
    precision: str
    weight_sqnr: float | None = None
    low: float | None = None
    high: float | None = None
    clipped: float | None = None
    sqnr: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class QuantizationEvidence:
    """What `quantization.json` holds.

    Attributes:
        samples: for calibration; traced, staged: of these, for the layers and for the waterfall.
        prefix: names of first nodes left in float.
        scales: by tensor, what each channel was divided by.
        latency, budget: what the searches tried; None where there were none.
    """

    preset: str
    scheme: str
    runtime: str
    samples: int
    traced: int
    staged: int
    waterfall: tuple[WaterfallStage, ...]
    layers: tuple[LayerEvidence, ...]
    prefix: tuple[str, ...]
    scales: Mapping[str, tuple[float, ...]]
    latency: LatencyEvidence | None = None
    budget: BudgetEvidence | None = None

    def save(self, path: Path) -> None:
        """Write it as JSON; a search that was not made is left out."""
        plain = {key: value for key, value in to_plain(self).items() if value is not None}
        path.write_text(json.dumps(plain, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def gather_evidence(
    ready: CalibratedNetwork,
    choice: PlacementChoice,
    written: onnx.ModelProto,
    original: onnx.ModelProto,
) -> QuantizationEvidence:
    """The evidence for a choice, `written` as a quantized file. original: the float one it was."""
    assert choice.planned is not None
    traced = _affordable_samples(ready, TRACED, 1)
    staged = _affordable_samples(ready, STAGED, PASSES)
    stages = waterfall(ready, choice, written, original, staged)
    layers = _layers(ready, choice.planned, written, traced)
    return QuantizationEvidence(
        preset=ready.options.preset,
        scheme=ready.options.scheme,
        runtime=ready.options.runtime,
        samples=count_samples(ready.samples),
        traced=count_samples(traced),
        staged=count_samples(staged),
        waterfall=tuple(_rounded(stage) for stage in stages),
        layers=tuple(_rounded(layer) for layer in layers),
        prefix=choice.prefix,
        scales={
            name: tuple(float(f"{scale:.6g}") for scale in scales)
            for name, scales in ready.scales.items()
        },
        latency=choice.latency,
        budget=choice.budget,
    )


def _rounded(figures: Figures) -> Figures:
    """With numbers to what is known of them."""
    values = {item.name: getattr(figures, item.name) for item in fields(figures)}
    rounded: dict[str, Any] = {
        name: float(f"{value:.4g}") for name, value in values.items() if isinstance(value, float)
    }
    return replace(figures, **rounded)


def _layers(
    ready: CalibratedNetwork, planned: PlannedPlacement, written: onnx.ModelProto, samples: Samples
) -> Iterator[LayerEvidence]:
    """The inputs, the nodes that compute in INT8, and those with weights that do not, in order.

    What only hands values on, or became the clipping of a quantization, is no layer.
    """
    network, placement, plan = ready.network, planned.placement, planned.plan
    traces = _traces(network, planned, written, samples)
    noise = rounding_noise(placement, ready.weighed_stats)
    total = sum(noise.values()) or 1.0
    weighted = {node.name for node in weighted_nodes(network)}

    def with_grid(layer: LayerEvidence, tensor: str) -> LayerEvidence:
        """The layer with the figures of a tensor that has a grid of its own."""
        if tensor not in placement.tensors or tensor not in plan.ranges:
            return layer
        grid, trace = plan.ranges[tensor], traces.get(tensor)
        return replace(
            layer,
            low=grid.low,
            high=grid.high,
            clipped=trace.clipped if trace else None,
            sqnr=trace.sqnr if trace else None,
            noise=noise[tensor] / total if tensor in noise else None,
        )

    for name in network.inputs:
        if name in placement.tensors:
            yield with_grid(LayerEvidence(name, "input", "int8"), name)
    for node in network.nodes:
        integer = node.name in placement.nodes
        if not (integer or node.name in weighted) or node.op in PASSING:
            continue
        if node.op in FUSED and node.inputs[0] in placement.fused:
            continue
        if not integer:
            yield LayerEvidence(node.name, node.op, "float32")
            continue
        layer = LayerEvidence(node.name, node.op, "int8", _weight_sqnr(node, network, plan))
        yield with_grid(layer, _output_tensor(node, placement))


@dataclass(frozen=True)
class _Trace:
    """Sums over a tensor's values: of squares, of squared errors, and how many left the range."""

    signal: float = 0.0
    error: float = 0.0
    outside: int = 0
    count: int = 0

    def with_values(self, exact: Array, quantized: Array, grid: ActivationRange) -> _Trace:
        values = exact.astype(np.float64)
        return _Trace(
            self.signal + float(np.square(values).sum()),
            self.error + float(np.square(values - quantized).sum()),
            self.outside + int(((values < grid.low) | (values > grid.high)).sum()),
            self.count + values.size,
        )

    @property
    def clipped(self) -> float:
        return self.outside / max(self.count, 1)

    @property
    def sqnr(self) -> float:
        return _decibels(self.signal, self.error)


def _traces(
    network: Network, planned: PlannedPlacement, written: onnx.ModelProto, samples: Samples
) -> dict[str, _Trace]:
    """The quantized tensors of the file against the float network's, a few samples at a time."""
    import torch

    from workbench.quantization.prepare.graph_runs import run_graph

    ranges = planned.plan.ranges
    in_file = {name for node in written.graph.node for name in node.output}
    names = [
        name for name in planned.placement.tensors if name in ranges and f"{name}_dq8" in in_file
    ]
    traces = dict.fromkeys(names, _Trace())
    for feeds in samples:
        arrays = {name: value.numpy() for name, value in feeds.items()}
        (quantized,) = run_graph(written, [arrays], [f"{name}_dq8" for name in names])
        with torch.no_grad():
            exact = {**feeds, **network.run(feeds, keep=names)}
        for name, values in zip(names, quantized, strict=True):
            traces[name] = traces[name].with_values(exact[name].numpy(), values, ranges[name])
    return traces


def _output_tensor(node: NetworkNode, placement: OperatorPlacement) -> str:
    """The tensor that is quantized for a node: its output's, or that of a fused activation."""
    return placement.root(placement.fused.get(node.output, node.output))


def _weight_sqnr(node: NetworkNode, network: Network, plan: QuantizationPlan) -> float | None:
    if node.name not in plan.weights:
        return None
    values = network.constants[node.inputs[1]].numpy().astype(np.float64)
    error = np.square(values - plan.weights[node.name].floats).sum()
    return _decibels(float(np.square(values).sum()), float(error))


def _decibels(signal: float, error: float) -> float:
    if not error:
        return EXACT
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / error), -EXACT, EXACT))


def _affordable_samples(ready: CalibratedNetwork, most: int, passes: int) -> Samples:
    """The first samples, as many as the network's size allows, in the batches that it takes."""
    count = int(np.clip(MOST / (passes * ready.macs), 2, most))
    samples: list[Feeds] = []
    for feeds in ready.samples:
        left = count - count_samples(samples)
        if left <= 0:
            break
        samples.append(feeds if ready.network.fixed_batch else slice_batch(feeds, 0, left))
    return samples
