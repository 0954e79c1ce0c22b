"""Where two ONNX graphs begin to differ: their common tensors, compared layer by layer."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size
from workbench.artifact import Artifact
from workbench.measure.layered import Layered
from workbench.parity import sqnr
from workbench.progress import Progress

Array = NDArray[Any]

# Tensors fetched in one run: all of a large network's at once may not fit into memory.
CHUNK = 48
# Below these (dB) a tensor has diverged: an error of 1 % of the signal between float graphs, of
# 10 % where one of the two computes with 8 bits.
FLOAT, QUANTIZED = 40.0, 20.0
MASKED = -9e3  # attention scores at or below it are masked ones
LEAST = 0.5  # dB, the least drop worth a line
# The best that a number format can do, 6.02 dB a bit + 1.76 (Oppenheim and Schafer, Discrete-Time
# Signal Processing, 4.8.3): a tensor that is nearer than this has lost nothing yet.
BEST = {8: 49.9, 11: 68.0, 24: 146.2}


@dataclass(frozen=True, kw_only=True)
class TensorDivergence:
    """A tensor of both graphs, and how near they are there.

    tensor: its name in the reference. node, operator: what makes it there; an input of the graph
    has neither. before: the least SQNR among the tensors that it is made from. best: that of the
    number formats. In dB, infinite where equal; `largest` is the largest absolute difference.
    """

    tensor: str
    node: str
    operator: str
    sqnr: float
    before: float
    best: float
    largest: float

    @property
    def drop(self) -> float:
        """What is lost in this layer, in dB: of more than the formats can do, nothing is lost."""
        before = min(self.before, self.best)
        if self.sqnr == -math.inf:
            return 0.0 if before == -math.inf else math.inf
        return max(0.0, before - self.sqnr)

    @property
    def title(self) -> str:
        """The layer that makes it, as tables name it."""
        if not self.operator:
            return f"input {self.tensor}"
        return f"{self.operator} {self.node}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The common tensors of two graphs in the reference's order of computation.

    threshold: dB, below which a tensor has diverged. inside: how many of them are neither inputs
    nor outputs, of: how many such float tensors the reference has, weights not counted.
    """

    layers: tuple[TensorDivergence, ...]
    inside: int
    of: int
    threshold: float
    samples: int

    @property
    def first(self) -> TensorDivergence | None:
        """The first tensor below the threshold."""
        return next((layer for layer in self.layers if not layer.sqnr >= self.threshold), None)

    def worst(self, count: int) -> tuple[TensorDivergence, ...]:
        """The layers that lose most, the largest drop first."""
        ranked = sorted(self.layers, key=lambda layer: -layer.drop)
        return tuple(layer for layer in ranked[:count] if layer.drop >= LEAST)


def layers(
    reference: Artifact, candidate: Artifact, inputs: Mapping[str, Array], progress: Progress
) -> Divergence:
    """Compare every tensor that both graphs have, on canonical inputs [N, ...]; a worker's job.

    A tensor of the reference and what stands for it in the other are known by their names: the
    same one, or what ONNX Runtime's quantizer makes of it. Both graphs run node by node, without
    any optimization, which would fuse layers away. What the quantization engine equalized is
    compared as it was before. Raises DeviceError where one does not run so, StepError where it is
    not known by what an equalized graph was scaled.
    """
    with tempfile.TemporaryDirectory(prefix="wb-layers-") as folder:
        graph = Layered(reference, Path(folder) / "reference")
        candidate_graph = Layered(candidate, Path(folder) / "candidate")
        pairs = [
            (graph.own[name], candidate_graph.own[name])
            for name in graph.own
            if name in candidate_graph.own
        ]
        session, candidate_session = (
            graph.session(graph.order),
            candidate_graph.session([b for _, b in pairs]),
        )
        pairs = [(a, b) for a, b in pairs if session.is_float(a) and candidate_session.is_float(b)]
        ends = {*graph.inputs, *graph.outputs}
        sums = {a: np.zeros(3) for a, _ in pairs}
        samples = batch_size(inputs)
        chunks = [pairs[i : i + CHUNK] for i in range(0, len(pairs), CHUNK)]
        for number in range(samples):
            sample = {name: array[number : number + 1] for name, array in inputs.items()}
            for at, chunk in enumerate(chunks):
                progress((number + at / len(chunks)) / samples, f"{number}/{samples}")
                expected = session.run([a for a, _ in chunk], sample)
                tensors = candidate_session.run([b for _, b in chunk], sample)
                for (a, b), left, right in zip(chunk, expected, tensors, strict=True):
                    _add(sums, a, graph.unscaled(a, left), candidate_graph.unscaled(b, right))
        bits = min(graph.bits, candidate_graph.bits)
        compared = tuple(_layers(graph, candidate_graph, dict(pairs), sums, BEST[bits]))
        return Divergence(
            layers=compared,
            inside=sum(layer.tensor not in ends for layer in compared),
            of=sum(session.is_float(name) for name in graph.order if name not in ends),
            threshold=QUANTIZED if bits == 8 else FLOAT,
            samples=samples,
        )


def _add(sums: dict[str, Array], name: str, left: Array, right: Array) -> None:
    """Sum up one sample; a tensor of another shape is not the same one, whatever its name."""
    if name not in sums:
        return
    if left.shape != right.shape:
        del sums[name]
        return
    expected = left.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity less infinity: such elements are told apart
        difference = right.astype(np.float64) - expected
    both = np.isfinite(expected) & np.isfinite(difference)
    # Masks hold infinities on purpose: where both have the same, there is no difference. Masked
    # scores that are finite (-1e4, -1e9) would drown the others in their own power.
    masked = (left == right) | ((left <= MASKED) & (right <= MASKED))
    if not (both | masked).all():
        sums[name][:] = sums[name][0], math.inf, math.inf
        return
    both &= left > MASKED
    sums[name][0] += float((expected[both] ** 2).sum())
    sums[name][1] += float((difference[both] ** 2).sum())
    sums[name][2] = max(sums[name][2], float(np.abs(difference[both]).max(initial=0.0)))


def _layers(
    graph: Layered, other: Layered, pairs: Mapping[str, str], sums: Mapping[str, Array], best: float
) -> Iterator[TensorDivergence]:
    """The layers in the reference's order; `pairs` are the other's names of its tensors."""
    quality = {
        name: sqnr(float(signal), float(noise)) if math.isfinite(noise) else -math.inf
        for name, (signal, noise, _) in sums.items()
    }
    for name in graph.order:
        if name not in quality or (sums[name][0] == 0 < sums[name][1] < math.inf):
            continue  # of a tensor that is all zeros, no difference is large or small
        node = graph.makers.get(name)
        if node is not None and node.op_type == "DequantizeLinear":
            node = other.makers.get(pairs[name], node)  # which layer's output it is
        before = min((quality[source] for source in graph.sources(name, quality)), default=math.inf)
        yield TensorDivergence(
            tensor=name,
            node=node.name if node is not None else "",
            operator=node.op_type if node is not None else "",
            sqnr=quality[name],
            before=before,
            best=best,
            largest=float(sums[name][2]),
        )
