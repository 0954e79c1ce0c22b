"""What quantization did to a network, as figures: every layer, and what each technique gave."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.quantization.core.placement import FUSED, PASSING, Placement, weighted
from workbench.quantization.core.plan import Plan, Range
from workbench.quantization.core.prefix import noise
from workbench.quantization.explain.waterfall import EXACT, Stage, stages

if TYPE_CHECKING:
    import onnx
    import torch

    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.network import Network, Node
    from workbench.quantization.search.choice import Choice

Array = NDArray[Any]
Samples = Sequence[Mapping[str, "torch.Tensor"]]

TRACED = 8  # samples through which every layer is followed
STAGED = 20  # samples on which the techniques are tried one after the other
# Multiply-accumulates that each of the two may take, so that it stays at seconds: large networks
# get fewer samples.
MOST = 20e9
PASSES = 16  # through the network, of a sample, for all techniques


@dataclass(frozen=True)
class Layer:
    """One node, or an input. weight_sqnr: of its weights, equalized, to those on the grid, in dB.

    low, high: the range of its output's grid, and with it: clipped, the share of the float
    network's values outside, and sqnr, of the file's values against these, in dB, all that came
    before it included. noise: the share of the outputs' noise that the model gives to rounding this
    output. None where there is no such thing, for a layer in float say.
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


def found(
    ready: Calibrated, made: Choice, written: onnx.ModelProto, original: onnx.ModelProto
) -> dict[str, Any]:
    """The evidence for a choice, as plain values. original: the float file as it came."""
    assert made.placement is not None
    traced = _some(ready, TRACED, 1)
    staged = _some(ready, STAGED, PASSES)
    return {
        "preset": ready.options.preset,
        "scheme": ready.options.scheme,
        "runtime": ready.options.runtime,
        "samples": _count(ready.samples),
        "traced": _count(traced),
        "staged": _count(staged),
        "waterfall": [_rounded(one) for one in stages(ready, made, written, original, staged)],
        "layers": [
            _rounded(one) for one in layers(ready, made.placement, made.plan, written, traced)
        ],
        "prefix": list(made.prefix),
        "scales": {
            name: [float(f"{one:.6g}") for one in found] for name, found in ready.scales.items()
        },
        **made.evidence,
    }


def _rounded(one: Layer | Stage) -> dict[str, Any]:
    """As plain values, numbers to what is known of them."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in asdict(one).items()
    }


def save(evidence: Mapping[str, Any], path: Path) -> None:
    """Write evidence as JSON."""
    path.write_text(json.dumps(evidence, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def layers(
    ready: Calibrated, placement: Placement, plan: Plan, written: onnx.ModelProto, samples: Samples
) -> Iterator[Layer]:
    """The inputs, the nodes that compute in INT8, and those with weights that do not, in order.

    What only hands values on, or became the clipping of a quantization, is no layer.
    """
    network = ready.network
    traces = _traces(network, placement, plan, written, samples)
    shares = noise(placement, ready.weighed)
    total = sum(shares.values()) or 1.0
    owners = {node.name for node in weighted(network)}

    def within(name: str) -> tuple[float | None, ...]:
        """Low, high, clipped, SQNR and noise of a tensor with a grid of its own."""
        if name not in placement.tensors or name not in plan.ranges:
            return (None,) * 5
        kept, trace = plan.ranges[name], traces.get(name)
        share = shares[name] / total if name in shares else None
        return (
            kept.low,
            kept.high,
            *((trace.clipped, trace.sqnr) if trace else (None, None)),
            share,
        )

    for name in network.inputs:
        if name in placement.tensors:
            yield Layer(name, "input", "int8", None, *within(name))
    for node in network.nodes:
        integer = node.name in placement.nodes
        if not (integer or node.name in owners) or node.op in PASSING:
            continue
        if node.op in FUSED and node.inputs[0] in placement.fused:
            continue
        weights = _weight_sqnr(node, network, plan) if integer else None
        ends = within(_end(node, placement)) if integer else ()
        yield Layer(node.name, node.op, "int8" if integer else "float32", weights, *ends)


@dataclass(frozen=True)
class _Trace:
    signal: float = 0.0
    error: float = 0.0
    outside: int = 0
    count: int = 0

    def with_sample(self, floats: Array, made: Array, kept: Range) -> _Trace:
        values = floats.astype(np.float64)
        return _Trace(
            self.signal + float(np.square(values).sum()),
            self.error + float(np.square(values - made).sum()),
            self.outside + int(((values < kept.low) | (values > kept.high)).sum()),
            self.count + values.size,
        )

    @property
    def clipped(self) -> float:
        return self.outside / max(self.count, 1)

    @property
    def sqnr(self) -> float:
        return _decibels(self.signal, self.error)


def _traces(
    network: Network, placement: Placement, plan: Plan, written: onnx.ModelProto, samples: Samples
) -> dict[str, _Trace]:
    """The quantized tensors of the file against the float network's, a few samples at a time."""
    import torch

    from workbench.quantization.prepare.trial import run

    made_there = {name for node in written.graph.node for name in node.output}
    names = [
        name for name in placement.tensors
        if name in plan.ranges and f"{name}_dq8" in made_there
    ]  # fmt: skip
    traces = dict.fromkeys(names, _Trace())
    for feeds in samples:
        arrays = {name: one.numpy() for name, one in feeds.items()}
        (made,) = run(written, [arrays], [f"{name}_dq8" for name in names])
        with torch.no_grad():
            floats = {**feeds, **network.run(feeds, keep=names)}
        for name, values in zip(names, made, strict=True):
            traces[name] = traces[name].with_sample(floats[name].numpy(), values, plan.ranges[name])
    return traces


def _end(node: Node, placement: Placement) -> str:
    """The tensor that is quantized for a node: its output's, or that of a fused activation."""
    return placement.root(placement.fused.get(node.output, node.output))


def _weight_sqnr(node: Node, network: Network, plan: Plan) -> float | None:
    if node.name not in plan.weights:
        return None
    values = network.constants[node.inputs[1]].numpy().astype(np.float64)
    error = np.square(values - plan.weights[node.name].floats).sum()
    return _decibels(float(np.square(values).sum()), float(error))


def _decibels(signal: float, error: float) -> float:
    if not error:
        return EXACT
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / error), -EXACT, EXACT))


def _some(ready: Calibrated, most: int, passes: int) -> Samples:
    """The first samples, as many as the network's size allows, in the batches that it takes."""
    wanted = int(np.clip(MOST / (passes * ready.macs), 2, most))
    fixed = any(
        value.type.tensor_type.shape.dim and value.type.tensor_type.shape.dim[0].dim_value
        for value in ready.network.model.graph.input
    )
    some: list[Mapping[str, torch.Tensor]] = []
    for feeds in ready.samples:
        left = wanted - _count(some)
        if left <= 0:
            break
        some.append(feeds if fixed else {name: one[:left] for name, one in feeds.items()})
    return some


def _count(samples: Samples) -> int:
    return sum(len(next(iter(feeds.values()))) for feeds in samples)
