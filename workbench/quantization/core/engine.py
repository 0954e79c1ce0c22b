"""The engine: a float ONNX graph and calibration samples to a quantized graph.

    result = quantize(onnx.load("model.onnx"), read_batches, QuantizationOptions("fast"))
    onnx.save(result.model, "model.int8.onnx")

`calibrate` prepares the graph, collects statistics and equalizes; a `CalibratedNetwork` then places
operators, plans ranges, weights and biases for a placement, and writes the result. Searches over
placements (`search`) go on from the same calibrated network.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.signature import EQUALIZED
from workbench.progress import Progress, ignore_progress, span_progress
from workbench.quantization.core.equalization import equalize
from workbench.quantization.core.fake_quantization import (
    COMPARED,
    min_max_plan,
    output_sqnr,
    simulate,
)
from workbench.quantization.core.float_prefix import lossy_inputs, noisy_prefix
from workbench.quantization.core.network import Network, multiply_accumulates
from workbench.quantization.core.observers import (
    ChannelStatistics,
    channel_importances,
    observe_channels,
    with_importances,
)
from workbench.quantization.core.placement import (
    OperatorPlacement,
    Runtime,
    place_operators,
    weighted_nodes,
)
from workbench.quantization.core.plan import SCHEMES, ActivationRange, QuantizationPlan
from workbench.quantization.core.presets import QuantizationPreset, choose_preset
from workbench.quantization.core.qdq_writer import write_qdq
from workbench.quantization.core.range_search import gradient_histograms
from workbench.quantization.core.samples import Feeds, Samples, count_samples, first_samples
from workbench.quantization.core.sequential import SequentialQuantizer, lone_nonlinearity

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
# Takes a batch size; gives the calibration samples, as the model takes them.
ReadBatches: TypeAlias = Callable[[int], Iterable[Mapping[str, Array]]]

BATCH = 10
GRADIENTS = 20  # samples for importance
SEARCHED = 40  # samples for ranges by their effect on the outputs
DRAWS = 4  # backward passes for each of these
# Multiply-accumulates that the second pass, and the gradients, may take: large networks get fewer
# samples, 32 and 10 at least. MobileNets stay far below; a BERT base takes a minute or two.
PASSES, BACKWARD = 1500e9, 150e9


@dataclass(frozen=True)
class QuantizationOptions:
    """What a user asks of the engine.

    Attributes:
        preset: how much is done: see `presets`.
        scheme: of `plan.SCHEMES`.
        runtime: whose kernels it is for.
        floats: names of nodes left in float.
        whole: every layer in INT8, no float prefix.
        without: techniques left out, for ablations.
    """

    preset: str = "balanced"
    scheme: str = "u8s8"
    runtime: Runtime = "ort"
    floats: frozenset[str] = frozenset()
    whole: bool = False
    without: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class PlannedPlacement:
    """What computes in INT8, and with which ranges, weights and biases."""

    placement: OperatorPlacement
    plan: QuantizationPlan


@dataclass(frozen=True)
class CalibratedNetwork:
    """A prepared and equalized network with its statistics: whatever is planned starts here.

    Attributes:
        stats: by tensor.
        samples: the calibration samples.
        notes: for the user.
        scales: of tensors that were equalized, by what each channel [C] was divided.
    """

    network: Network
    stats: Mapping[str, ChannelStatistics]
    samples: Samples
    options: QuantizationOptions
    notes: tuple[str, ...] = ()
    scales: Mapping[str, Array] = field(default_factory=dict)
    progress: Progress = field(default=ignore_progress)
    _ranges: dict[str, ActivationRange] = field(default_factory=dict)

    @property
    def preset(self) -> QuantizationPreset:
        """How much is done, without the techniques that are left out."""
        return choose_preset(self.options.preset, self.options.without)

    def place(self, floats: Iterable[str] = ()) -> OperatorPlacement:
        """The placement with these nodes, too, in float."""
        return place_operators(
            self.network, self.options.floats | set(floats), self.options.runtime
        )

    def plan(self, placement: OperatorPlacement) -> QuantizationPlan:
        """Ranges, weights and biases for a placement: the second pass over the samples.

        Where the preset has several ways, each is tried on four fifths of the samples; that which
        is nearest to float on the fifth that is held back is then planned on all.
        """
        variants, techniques = self.preset.variants, self.preset.techniques
        samples = first_samples(self.samples, max(32, int(PASSES / (3 * self.macs))))
        if len(variants) == 1:
            progress = span_progress(self.progress, 0.3, 0.9)
            return self._pass(placement, samples, techniques, progress)
        kept = max(1, len(samples) * 4 // 5)
        held_back = samples[kept:] or samples
        expected = simulate(self.network, held_back)
        part = 0.6 / (len(variants) + 1)
        scores: list[float] = []
        for number, without in enumerate(variants):
            start = 0.3 + number * part
            progress = span_progress(self.progress, start, start + part)
            plan = self._pass(placement, samples[:kept], techniques - {*without}, progress)
            outputs = simulate(self.network, held_back, placement, plan)
            scores.append(output_sqnr(expected, outputs))
        nearest = techniques - {*variants[int(np.argmax(scores))]}
        progress = span_progress(self.progress, 0.9 - part, 0.9)
        return self._pass(placement, samples, nearest, progress)

    def _pass(
        self,
        placement: OperatorPlacement,
        samples: Samples,
        techniques: Collection[str],
        progress: Progress,
    ) -> QuantizationPlan:
        ranges = self._searched_ranges(placement) if "projection" in techniques else {}
        ranges |= {name: ActivationRange(*ends) for name, ends in placement.fixed.items()}
        for tensors in placement.alike:
            own = [ranges.get(name) or self.stats[name].extremes for name in sorted(tensors)]
            shared = ActivationRange(min(r.low for r in own), max(r.high for r in own))
            ranges |= dict.fromkeys(tensors, shared)
        return SequentialQuantizer(
            self.network, placement, SCHEMES[self.options.scheme], techniques, self.options.seed,
            ranges, lambda fraction: progress(fraction, "rounding and correcting"),
        ).run(samples)  # fmt: skip

    def _searched_ranges(self, placement: OperatorPlacement) -> dict[str, ActivationRange]:
        """Ranges by their effect on the outputs, of all tensors that a gradient reaches."""
        names = [name for name in placement.tensors if name not in self.network.inputs]
        missing = {
            name: lone_nonlinearity(self.network, name)
            for name in names
            if name not in self._ranges
        }
        if missing:
            affordable = int(BACKWARD / (self.macs * (1 + 2 * DRAWS)))
            few = first_samples(self.samples, min(SEARCHED, affordable))
            histograms = gradient_histograms(
                self.network, missing, self.stats, few, self.options.seed, DRAWS
            )
            scheme = SCHEMES[self.options.scheme]
            self._ranges.update(
                {name: histogram.best_range(scheme) for name, histogram in histograms.items()}
            )
        return {name: self._ranges[name] for name in names if name in self._ranges}

    def plan_guarded(self, placement: OperatorPlacement) -> PlannedPlacement:
        """A placement with its plan, or plain min-max where that is nearer to the float outputs."""
        return PlannedPlacement(placement, self.guard(placement, self.plan(placement)))

    def guard(self, placement: OperatorPlacement, plan: QuantizationPlan) -> QuantizationPlan:
        """The plan, or plain min-max where that is nearer to the float outputs.

        No technique is allowed to make things worse than nothing; on a network that they do not
        fit, all of them together may.
        """
        few = first_samples(self.samples, COMPARED)
        expected = simulate(self.network, few)
        plain = min_max_plan(self.network, placement, self.stats, plan.scheme)
        own, plains = (
            output_sqnr(expected, simulate(self.network, few, placement, candidate))
            for candidate in (plan, plain)
        )
        return plan if own >= plains else plain

    @cached_property
    def weighed_stats(self) -> Mapping[str, ChannelStatistics]:
        """The statistics with each channel's importance: what its noise does to the outputs."""
        few = first_samples(self.samples, GRADIENTS)
        importances = channel_importances(self.network, self.stats, few, self.options.seed)
        return with_importances(self.stats, importances)

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates for one sample."""
        return max(1.0, multiply_accumulates(self.network, self.samples[0]))

    def write(self, placement: OperatorPlacement, plan: QuantizationPlan) -> onnx.ModelProto:
        """The quantized graph; `plan` may hold more than the placement asks for."""
        model = write_qdq(self.network, placement, plan)
        if self.scales:  # its inner tensors are not to be compared with FP32's as they are
            model.metadata_props.add(key=EQUALIZED, value="1")
        return model

    @cached_property
    def noisy_prefix(self) -> tuple[str, ...]:
        """The first layers, where these make most of the outputs' noise (see `float_prefix`)."""
        if self.options.whole or "prefix" not in self.preset.techniques:
            return ()
        return noisy_prefix(self.network, self.place(), self.weighed_stats)

    @property
    def lossy_inputs(self) -> tuple[str, ...]:
        """What must stay in float, for 8 bits would leave nothing of a channel of an input."""
        if self.options.whole or "prefix" not in self.preset.techniques:
            return ()
        return lossy_inputs(self.network, self.place(), self.weighed_stats)


@dataclass(frozen=True)
class QuantizationResult:
    """A quantized model and all that was decided for it.

    Attributes:
        prefix: names of first nodes that were left in float.
    """

    model: onnx.ModelProto
    plan: QuantizationPlan
    placement: OperatorPlacement
    calibrated: CalibratedNetwork
    prefix: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user."""
        return self.calibrated.notes


def quantize(
    model: onnx.ModelProto,
    batches: ReadBatches,
    options: QuantizationOptions = QuantizationOptions(),
    progress: Progress = ignore_progress,
) -> QuantizationResult:
    """Quantize a float model."""
    ready = calibrate(model, batches, options, progress)
    planned = ready.plan_guarded(ready.place(ready.noisy_prefix))
    written = ready.write(planned.placement, planned.plan)
    return QuantizationResult(written, planned.plan, planned.placement, ready, ready.noisy_prefix)


def calibrate(
    model: onnx.ModelProto,
    batches: ReadBatches,
    options: QuantizationOptions = QuantizationOptions(),
    progress: Progress = ignore_progress,
) -> CalibratedNetwork:
    """Prepare the graph, collect statistics and equalize."""
    preset = choose_preset(options.preset, options.without)
    samples = _read_samples(batches, preset.samples)
    progress(0.05, "preparing the graph")
    notes: tuple[str, ...] = ()
    if "preparation" in preset.techniques:
        from workbench.quantization.prepare.passes import prepare_model

        examples = {name: value[:4].numpy() for name, value in samples[0].items()}
        prepared = prepare_model(model, examples, target=options.runtime)
        model, notes = prepared.model, prepared.notes
    network = Network(model)
    placement = place_operators(network, options.floats, options.runtime)
    progress(0.1, "statistics")
    names = {*placement.quantized, *network.producers, *network.inputs}
    stats = observe_channels(network, names, samples)
    ready = CalibratedNetwork(network, stats, samples, options, notes, progress=progress)
    if "equalization" not in preset.techniques or not weighted_nodes(network):
        return ready
    progress(0.2, "equalizing")
    weighings = [stats] + ([ready.weighed_stats] if "importance" in preset.techniques else [])
    best, note = equalize(network, samples, weighings, placement, SCHEMES[options.scheme])
    ready = replace(ready, notes=(*ready.notes, note))
    if best is None:
        return ready
    return replace(ready, network=best.network, stats=best.stats, scales=best.scales)


def _read_samples(batches: ReadBatches, count: int) -> Samples:
    """Calibration samples until there are `count`, in whole batches."""
    import torch

    samples: list[Feeds] = []
    for batch in batches(BATCH):
        # A copy: what the dataset gives may be memory that it uses again.
        samples.append({name: torch.from_numpy(np.array(value)) for name, value in batch.items()})
        if count_samples(samples) >= count:
            break
    return samples
