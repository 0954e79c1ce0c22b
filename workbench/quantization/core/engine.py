"""The engine: a float ONNX graph and calibration samples to a quantized graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.signature import EQUALIZED
from workbench.quantization.core import moments, presets, qdq, simulation
from workbench.quantization.core.lockstep import Lockstep, nonlinearity
from workbench.quantization.core.network import Network, multiplications
from workbench.quantization.core.placement import Placement, Runtime, place, weighted
from workbench.quantization.core.plan import SCHEMES, Plan, Range
from workbench.quantization.core.projection import projected

if TYPE_CHECKING:
    import onnx
    import torch

    from workbench.quantization.core.moments import Channels

Array = NDArray[Any]

BATCH = 10
GRADIENTS = 20  # samples for importance
CHECKED = 32  # samples on which two ways are compared by simulation
PROJECTED = 40  # samples for ranges by their effect on the outputs
DRAWS = 4  # backward passes for each of these
# Multiply-accumulates that the second pass, and the gradients, may take: large networks get fewer
# samples, 32 and 10 at least. MobileNets stay far below; a BERT base takes a minute or two.
PASSES, BACKWARD = 1500e9, 150e9


@dataclass(frozen=True)
class Options:
    """preset: see `presets`. scheme: of `plan.SCHEMES`. runtime: whose kernels it is for. floats:
    names of nodes left alone. whole: every layer in INT8, no float prefix. without: techniques
    left out, for ablations.
    """

    preset: str = "balanced"
    scheme: str = "u8s8"
    runtime: Runtime = "ort"
    floats: frozenset[str] = frozenset()
    whole: bool = False
    without: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Calibrated:
    """A prepared and equalized network with its statistics: whatever is planned starts here.

    samples: the calibration samples in batches, by input name. scales: of tensors that were
    equalized, by what each channel was divided.
    """

    network: Network
    stats: Mapping[str, Channels]
    samples: list[Mapping[str, torch.Tensor]]
    options: Options
    notes: tuple[str, ...] = ()
    scales: Mapping[str, Array] = field(default_factory=dict)
    progress: Callable[[float, str], None] = field(default=lambda _fraction, _note: None)
    _ranges: dict[str, Range] = field(default_factory=dict)

    @property
    def recipe(self) -> presets.Recipe:
        return presets.chosen(self.options.preset, self.options.without)

    def placed(self, floats: Iterable[str] = ()) -> Placement:
        """The placement with these nodes, too, in float."""
        return place(self.network, self.options.floats | set(floats), self.options.runtime)

    def planned(self, placement: Placement) -> Plan:
        """Ranges, weights and biases for a placement: the second pass over the samples.

        Where the preset has several ways, each is tried on four fifths of the samples; that which
        is nearest to float on the fifth that is held back is then planned on all.
        """
        variants = self.recipe.variants
        samples = first(self.samples, self.passed)
        if len(variants) == 1:
            return self._pass(placement, samples, self.recipe.techniques, (0.3, 0.9))
        kept = max(1, len(samples) * 4 // 5)
        held = samples[kept:] or samples
        expected = simulation.outputs(self.network, held)
        part = 0.6 / (len(variants) + 1)
        found: list[float] = []
        for number, without in enumerate(variants):
            span = 0.3 + number * part, 0.3 + (number + 1) * part
            plan = self._pass(placement, samples[:kept], self.recipe.techniques - {*without}, span)
            made = simulation.outputs(self.network, held, placement, plan)
            found.append(simulation.sqnr(expected, made))
        nearest = self.recipe.techniques - {*variants[int(np.argmax(found))]}
        return self._pass(placement, samples, nearest, (0.9 - part, 0.9))

    def _pass(
        self,
        placement: Placement,
        samples: list[Mapping[str, torch.Tensor]],
        techniques: frozenset[str],
        span: tuple[float, float],
    ) -> Plan:
        known = self.ranges(placement) if "projection" in techniques else {}
        known |= {name: Range(*ends) for name, ends in placement.fixed.items()}
        for tensors in placement.alike:
            ends = [known.get(name) or self.extremes(name) for name in sorted(tensors)]
            shared = Range(min(one.low for one in ends), max(one.high for one in ends))
            known |= dict.fromkeys(tensors, shared)
        low, high = span
        return Lockstep(
            self.network, placement, self.stats, SCHEMES[self.options.scheme],
            replace(self.recipe, techniques=techniques).lockstep, self.options.seed, known,
            lambda part: self.progress(low + (high - low) * part, "rounding and correcting"),
        ).run(samples)  # fmt: skip

    @cached_property
    def weighed(self) -> Mapping[str, Channels]:
        """The statistics with each channel's importance: what its noise does to the outputs."""
        few = first(self.samples, GRADIENTS)
        return moments.weighed(
            self.stats,
            moments.importances(self.network, self.stats, lambda: few, self.options.seed),
        )

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates for one sample."""
        return max(1.0, multiplications(self.network, self.samples[0]))

    @property
    def passed(self) -> int:
        """How many samples the second pass takes at most."""
        return max(32, int(PASSES / (3 * self.macs)))

    def guarded(self, placement: Placement, plan: Plan) -> Plan:
        """The plan, or plain min-max where that is nearer to the float outputs.

        No technique is allowed to make things worse than nothing; on a network that they do not
        fit, all of them together may.
        """
        few = first(self.samples, CHECKED)
        expected = simulation.outputs(self.network, few)
        plain = simulation.plain(self.network, placement, self.stats, plan.scheme)
        scores = [simulation.sqnr(expected, simulation.outputs(self.network, few, placement, one))
                  for one in (plan, plain)]  # fmt: skip
        return plan if scores[0] >= scores[1] else plain

    def extremes(self, name: str) -> Range:
        """What calibration saw of a tensor on the float path."""
        one = self.stats[name]
        return Range(float(one.low.min()), float(one.high.max()))

    def ranges(self, placement: Placement) -> dict[str, Range]:
        """Ranges by their effect on the outputs, of all tensors that a gradient reaches."""
        wanted = [name for name in placement.tensors if name not in self.network.inputs]
        missing = {name: nonlinearity(self.network, name) for name in wanted
                   if name not in self._ranges}  # fmt: skip
        if missing:
            most = int(BACKWARD / (self.macs * (1 + 2 * DRAWS)))
            few = first(self.samples, min(PROJECTED, most))
            found = projected(
                self.network, missing, self.stats, lambda: few, self.options.seed, DRAWS
            )
            scheme = SCHEMES[self.options.scheme]
            self._ranges.update({name: one.best(scheme) for name, one in found.items()})
        return {name: self._ranges[name] for name in wanted if name in self._ranges}

    def written(self, placement: Placement, plan: Plan) -> onnx.ModelProto:
        """The quantized graph; `plan` may hold more than the placement asks for."""
        model = qdq.write(self.network, placement, plan)
        if self.scales:  # its inner tensors are not to be compared with FP32's as they are
            model.metadata_props.add(key=EQUALIZED, value="1")
        return model

    @cached_property
    def prefix(self) -> tuple[str, ...]:
        """The first layers, where these make most of the outputs' noise (see `prefix`)."""
        from workbench.quantization.core.prefix import noisy_prefix

        if self.options.whole or "prefix" not in self.recipe.techniques:
            return ()
        return noisy_prefix(self.network, self.placed(), self.weighed)

    @property
    def wiped(self) -> tuple[str, ...]:
        """What must stay in float, for 8 bits would leave nothing of a channel (see `prefix`)."""
        from workbench.quantization.core.prefix import wiped

        if self.options.whole or "prefix" not in self.recipe.techniques:
            return ()
        return wiped(self.network, self.placed(), self.weighed)


@dataclass(frozen=True)
class Outcome:
    """A quantized model and all that was decided for it."""

    model: onnx.ModelProto
    plan: Plan
    placement: Placement
    calibrated: Calibrated
    prefix: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        return self.calibrated.notes


def quantize(
    model: onnx.ModelProto,
    batches: Callable[[int], Iterable[Mapping[str, Array]]],
    options: Options = Options(),
    progress: Callable[[float, str], None] = lambda _fraction, _note: None,
) -> Outcome:
    """Quantize a float model. batches(size): the calibration samples, as the model takes them."""
    ready = calibrated(model, batches, options, progress)
    prefix = ready.prefix
    placement = ready.placed(prefix)
    plan = ready.guarded(placement, ready.planned(placement))
    return Outcome(ready.written(placement, plan), plan, placement, ready, prefix)


def calibrated(
    model: onnx.ModelProto,
    batches: Callable[[int], Iterable[Mapping[str, Array]]],
    options: Options = Options(),
    progress: Callable[[float, str], None] = lambda _fraction, _note: None,
) -> Calibrated:
    """Prepare the graph, collect statistics and equalize."""
    import torch

    from workbench.quantization.core.equalizing import equalized

    recipe = presets.chosen(options.preset, options.without)
    samples: list[Mapping[str, torch.Tensor]] = []
    count = 0
    for batch in batches(BATCH):
        # A copy: what the dataset gives may be memory that it uses again.
        samples.append({name: torch.from_numpy(np.array(one)) for name, one in batch.items()})
        count += len(next(iter(batch.values())))
        if count >= recipe.samples:
            break
    progress(0.05, "preparing the graph")
    notes: tuple[str, ...] = ()
    if "preparation" in recipe.techniques:
        from workbench.quantization.prepare.passes import prepared

        examples = {name: one[:4].numpy() for name, one in samples[0].items()}
        made = prepared(model, examples, target=options.runtime)
        model, notes = made.model, made.notes
    network = Network(model)
    placement = place(network, options.floats, options.runtime)
    progress(0.1, "statistics")
    names = {*placement.quantized, *network.producers, *network.inputs}
    found = moments.collected(network, names, lambda: samples)
    ready = Calibrated(network, found, samples, options, notes, progress=progress)
    if "equalization" not in recipe.techniques or not weighted(network):
        return ready
    progress(0.2, "equalizing")
    return equalized(ready, placement)


def first(
    samples: list[Mapping[str, torch.Tensor]], count: int
) -> list[Mapping[str, torch.Tensor]]:
    """The batches that hold the first `count` samples, one at least."""
    found: list[Mapping[str, torch.Tensor]] = []
    held = 0
    for feeds in samples:
        if found and held >= count:
            break
        found.append(feeds)
        held += len(next(iter(feeds.values())))
    return found
