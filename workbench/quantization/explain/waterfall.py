"""What each technique gave, from plain quantization to the file, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import concatenate
from workbench.onnxgraph.session import working_session
from workbench.progress import ignore_progress
from workbench.quantization.core import engine
from workbench.quantization.core.engine import PlannedPlacement
from workbench.quantization.core.fake_quantization import min_max_plan, output_sqnr, simulate
from workbench.quantization.core.plan import SCHEMES

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.engine import CalibratedNetwork
    from workbench.quantization.core.network import Network
    from workbench.quantization.core.placement import OperatorPlacement
    from workbench.quantization.core.samples import Samples
    from workbench.quantization.search.choice import PlacementChoice

Array = NDArray[Any]

HEAVY = 4e9  # multiply-accumulates a sample: above, techniques that take a pass are not tried apart
PLAIN, EQUALIZED = "min-max, weights to the nearest", "equalization"
EXACT = 200.0  # dB: what equal values are given, for JSON has no infinity


@dataclass(frozen=True)
class WaterfallStage:
    """The outputs with one technique more.

    Attributes:
        sqnr: against FP32, in dB.
        agreement: from 0 to 1; None where the first output is not [N, classes].
    """

    name: str
    sqnr: float
    agreement: float | None


def waterfall(
    ready: CalibratedNetwork,
    choice: PlacementChoice,
    written: onnx.ModelProto,
    original: onnx.ModelProto,
    samples: Samples,
) -> Iterator[WaterfallStage]:
    """From plain quantization to the file, one technique more at a time.

    Each but the last is planned and simulated on `samples` alone; the last is the file, run by ONNX
    Runtime.
    """
    expected = simulate(ready.network, samples)

    def stage(name: str, outputs: Sequence[Array]) -> WaterfallStage:
        sqnr = float(np.clip(output_sqnr(expected, outputs), -EXACT, EXACT))
        return WaterfallStage(name, sqnr, _agreement(expected, outputs))

    for name, network, planned in _planned_stages(ready, choice, original, samples):
        yield stage(name, simulate(network, samples, planned.placement, planned.plan))
    name = "weights rounded by reconstruction"
    if "reconstruction" not in ready.preset.techniques:
        name = "all samples"
    for next_name, planned in choice.earlier.items():
        yield stage(name, simulate(ready.network, samples, planned.placement, planned.plan))
        name = next_name
    yield stage(name, _run_file(written, samples, ready.network.outputs))


def _planned_stages(
    ready: CalibratedNetwork, choice: PlacementChoice, original: onnx.ModelProto, samples: Samples
) -> Iterator[tuple[str, Network, PlannedPlacement]]:
    """Names, networks and plans of the stages before the file's."""
    techniques, floats = ready.preset.techniques, ready.options.floats
    bare = ready
    if "equalization" in techniques:
        arrays = [{name: value.numpy() for name, value in feeds.items()} for feeds in samples]
        options = replace(ready.options, without=("equalization",))
        bare = engine.calibrate(original, lambda _size: arrays, options)
        yield PLAIN, bare.network, _plan_min_max(bare, floats)
    network = ready.network
    if "equalization" not in techniques or not _same_weights(bare.network, network):
        name = EQUALIZED if "equalization" in techniques else PLAIN
        yield name, network, _plan_min_max(ready, floats)
    if ready.macs > HEAVY:
        return
    without = ["compensation", "reconstruction", "bias_correction"]

    def plan(placement: OperatorPlacement) -> PlannedPlacement:
        options = replace(ready.options, without=(*ready.options.without, *without))
        few = replace(ready, samples=list(samples), options=options, progress=ignore_progress)
        return PlannedPlacement(placement, few.plan(placement))

    placement = ready.place(floats)
    if "projection" in techniques:
        yield "ranges by their effect", network, plan(placement)
    if choice.prefix:
        placement = ready.place(floats | set(choice.prefix))
        yield "first layers in float", network, plan(placement)
    if "bias_correction" in techniques:
        without.remove("bias_correction")
        yield "bias correction", network, plan(placement)


def _plan_min_max(ready: CalibratedNetwork, floats: frozenset[str]) -> PlannedPlacement:
    placement = ready.place(floats)
    scheme = SCHEMES[ready.options.scheme]
    return PlannedPlacement(placement, min_max_plan(ready.network, placement, ready.stats, scheme))


def _same_weights(network: Network, equalized: Network) -> bool:
    """Whether two networks have the same weights: of one that was not equalized."""
    return all(
        np.array_equal(value, equalized.constants[name])
        for name, value in network.constants.items()
        if name in equalized.constants
    )


def _agreement(expected: Sequence[Array], outputs: Sequence[Array]) -> float | None:
    """The share of samples whose class, of the first output [N, classes], is the same."""
    before, after = expected[0], outputs[0]
    if before.ndim != 2 or before.shape[1] < 2 or before.dtype.kind != "f":
        return None
    return float((before.argmax(1) == after.argmax(1)).mean())


def _run_file(model: onnx.ModelProto, samples: Samples, names: Iterable[str]) -> list[Array]:
    session = working_session(model)
    return concatenate(
        session.run(list(names), {name: value.numpy() for name, value in feeds.items()})
        for feeds in samples
    )
