"""In which order layers go back to float: most noise removed for the least price first.

A knapsack where the items are not apart: a tensor between two layers is quantized as long as one of
them is INT8, so leaving a single layer in float may remove next to nothing, and its neighbours
with it, much. What a placement adds to the outputs' noise is the sum of what its weights and
tensors add each alone (for MobileNetV1 the sum is within 0.4 dB of what they add together), and the
rules of `placement` say which are left: so every candidate costs no run at all. Moves of one, two
and three neighbours are tried and the one with the most noise for its price is made, as greedy
algorithms for knapsacks do; the last is all float. 16 bits are no third choice: LiteRT's kernels of
16-bit activations are 20 to 35 times slower than float ones, and ONNX Runtime has them from opset
21 only, on x86 without kernels of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.quantization.core import prefix
from workbench.quantization.search.budget_search import Stage
from workbench.quantization.search.sensitivity import Simulated, floats_of, groups

if TYPE_CHECKING:
    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.placement import Placement
    from workbench.quantization.core.plan import Plan
    from workbench.quantization.core.simulation import Samples

Progress = Callable[[float, str], None]

WINDOW = 3  # layers in a row that move at once
STEPS = 40  # moves, about: networks of more layers move several at a time


@dataclass(frozen=True)
class Noise:
    """The noise model: of each INT8 layer's weights in graph order, and of each tensor, by name."""

    weights: Mapping[str, float]
    tensors: Mapping[str, float]

    def of(self, placement: Placement) -> float:
        return sum(one for name, one in self.weights.items() if name in placement.nodes) + sum(
            self.tensors.get(name, 0.0) for name in placement.tensors
        )


def simulated(
    ready: Calibrated, placement: Placement, plan: Plan, samples: Samples,
    progress: Progress = lambda _fraction, _note: None,
) -> Noise:  # fmt: skip
    """The model from runs of each layer's weights alone, and of its tensors alone.

    What its tensors add together is shared among them as `prefix.noise` has it.
    """
    tried = Simulated(ready, plan, samples)
    shares = prefix.noise(placement, ready.weighed)
    owned = groups(ready.network, placement)
    tensors: dict[str, float] = {}
    for number, names in enumerate(owned.values()):
        progress(number / len(owned), f"layer {number + 1} of {len(owned)}")
        added = tried.alone(None, names).noise if names else 0.0
        total = sum(shares.get(name, 0.0) for name in names)
        for name in names:
            part = shares.get(name, 0.0) / total if total else 1 / len(names)
            tensors[name] = added * part
    return Noise({layer: tried.alone(layer, ()).noise for layer in owned}, tensors)


def order(
    ready: Calibrated,
    placement: Placement,
    noise: Noise,
    prices: Mapping[str, float] | None = None,
) -> list[Stage]:
    """From the placement as it is to all its layers in float, each stage with more than the last.

    prices: milliseconds that a layer in float costs, by name; 1 each without, so that the fewest
    go. Those that cost nothing, or gain time, go first, together.
    """
    base = floats_of(ready, placement)
    layers = list(noise.weights)
    known = prices or {}
    least = max(known.values(), default=1.0) * 1e-3
    price = {name: max(known.get(name, least), least) if prices else 1.0 for name in layers}
    at_once = -(-len(layers) // STEPS)

    def left(floats: Sequence[str]) -> float:
        return noise.of(ready.placed(base | set(floats)))

    stages = [Stage((), noise.of(placement))]
    if free := tuple(name for name in layers if known.get(name, 1.0) <= 0):
        stages.append(Stage(free, left(free)))
    while len(stages[-1].floats) < len(layers):
        before = stages[-1]
        rest = [name for name in layers if name not in before.floats]
        windows = [
            rest[start : start + size]
            for size in range(1, WINDOW + 1)
            for start in range(len(rest) - size + 1)
        ]

        def gain(names: list[str], before: Stage = before) -> float:
            freed = before.noise - left((*before.floats, *names))
            return freed / sum(price[name] for name in names)

        ranked = sorted(windows, key=gain, reverse=True)
        moved: list[str] = []
        for names in ranked:
            moved += [name for name in names if name not in moved]
            if len(moved) >= at_once:
                break
        floats = (*before.floats, *moved)
        stages.append(Stage(floats, left(floats)))
    return stages
