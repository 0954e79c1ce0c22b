"""In which order layers go back to float: most noise removed for each layer first.

A knapsack where the items are not apart: a tensor between two layers is quantized as long as one of
them is INT8, so leaving a single layer in float may remove next to nothing, and its neighbours
with it, much. What a placement adds to the outputs' noise is the sum of what its weights and
tensors add each alone (for MobileNetV1 the sum is within 0.4 dB of what they add together), and the
rules of `placement` say which are left: so every candidate costs no run at all. Moves of one, two
and three neighbours are tried and the one with the most noise for each layer is made, as greedy
algorithms for knapsacks do; the last is all float. 16 bits are no third choice: LiteRT's kernels of
16-bit activations are 20 to 35 times slower than float ones, and ONNX Runtime has them from opset
21 only, on x86 without kernels of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.progress import Progress, ignore_progress
from workbench.quantization.core.float_prefix import rounding_noise
from workbench.quantization.search.budget_search import FloatStage
from workbench.quantization.search.sensitivity import LayerTrials, float_nodes, tensors_by_layer

if TYPE_CHECKING:
    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.plan import QuantizationPlan
    from workbench.quantization.core.samples import Samples

WINDOW = 3  # layers in a row that move at once
STEPS = 40  # moves, about: networks of more layers move several at a time


@dataclass(frozen=True)
class NoiseModel:
    """The noise that each part of a network adds to the outputs, alone.

    Attributes:
        weights: of each INT8 layer, by name in graph order.
        tensors: of each quantized tensor, by name.
    """

    weights: Mapping[str, float]
    tensors: Mapping[str, float]

    def of(self, placement: OperatorPlacement) -> float:
        """What a placement adds, as a share of the signal's power."""
        weights = sum(noise for name, noise in self.weights.items() if name in placement.nodes)
        return weights + sum(self.tensors.get(name, 0.0) for name in placement.tensors)


def model_noise(
    ready: CalibratedNetwork,
    placement: OperatorPlacement,
    plan: QuantizationPlan,
    samples: Samples,
    progress: Progress = ignore_progress,
) -> NoiseModel:
    """The model from runs of each layer's weights alone, and of its tensors alone.

    What its tensors add together is shared among them as `rounding_noise` has it.
    """
    trials = LayerTrials(ready, plan, samples)
    shares = rounding_noise(placement, ready.weighed_stats)
    layers = tensors_by_layer(ready.network, placement)
    tensors: dict[str, float] = {}
    for number, names in enumerate(layers.values()):
        progress(number / len(layers), f"layer {number + 1} of {len(layers)}")
        noise = trials.quantize_alone(None, names).noise if names else 0.0
        total = sum(shares.get(name, 0.0) for name in names)
        for name in names:
            tensors[name] = noise * (shares.get(name, 0.0) / total if total else 1 / len(names))
    weights = {layer: trials.quantize_alone(layer, ()).noise for layer in layers}
    return NoiseModel(weights, tensors)


def float_stages(
    ready: CalibratedNetwork, placement: OperatorPlacement, noise: NoiseModel
) -> list[FloatStage]:
    """From the placement as it is to all its layers in float, each with more than the last."""
    base = float_nodes(ready, placement)
    layers = list(noise.weights)
    at_once = -(-len(layers) // STEPS)

    def remaining(floats: Sequence[str]) -> float:
        return noise.of(ready.place(base | set(floats)))

    stages = [FloatStage((), noise.of(placement))]
    while len(stages[-1].floats) < len(layers):
        before = stages[-1]
        rest = [name for name in layers if name not in before.floats]
        windows = [
            rest[start : start + size]
            for size in range(1, WINDOW + 1)
            for start in range(len(rest) - size + 1)
        ]

        def gain(names: list[str], before: FloatStage = before) -> float:
            return (before.noise - remaining((*before.floats, *names))) / len(names)

        moved: list[str] = []
        for names in sorted(windows, key=gain, reverse=True):
            moved += [name for name in names if name not in moved]
            if len(moved) >= at_once:
                break
        floats = (*before.floats, *moved)
        stages.append(FloatStage(floats, remaining(floats)))
    return stages
