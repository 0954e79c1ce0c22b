"""What each technique gave, from plain quantization to the file, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.session import working_session
from workbench.quantization.core import simulation
from workbench.quantization.core.placement import Placement
from workbench.quantization.core.plan import SCHEMES, Plan

if TYPE_CHECKING:
    import onnx
    import torch

    from workbench.quantization.core.engine import Calibrated
    from workbench.quantization.core.network import Network
    from workbench.quantization.search.choice import Choice

Array = NDArray[Any]
Samples = Sequence[Mapping[str, "torch.Tensor"]]

HEAVY = 4e9  # multiply-accumulates a sample: above, techniques that take a pass are not tried apart
PLAIN, EQUALIZED = "min-max, weights to the nearest", "equalization"
EXACT = 200.0  # dB: what equal values are given, for JSON has no infinity


@dataclass(frozen=True)
class Stage:
    """The outputs with one technique more: SQNR in dB against FP32, agreement from 0 to 1.

    agreement: None where the first output is not [N, classes].
    """

    name: str
    sqnr: float
    agreement: float | None


def stages(
    ready: Calibrated, made: Choice, written: onnx.ModelProto, original: onnx.ModelProto,
    samples: Samples,
) -> Iterator[Stage]:  # fmt: skip
    """From plain quantization to the file, one technique more at a time.

    Each but the last is planned and simulated on `samples` alone; the last is the file, run by ONNX
    Runtime.
    """
    expected = simulation.outputs(ready.network, samples)

    def stage(name: str, outputs: Sequence[Array]) -> Stage:
        return Stage(
            name,
            float(np.clip(simulation.sqnr(expected, outputs), -EXACT, EXACT)),
            agreement(expected, outputs),
        )

    for name, network, placement, plan in _planned(ready, made, original, samples):
        yield stage(name, simulation.outputs(network, samples, placement, plan))
    before = "weights rounded by reconstruction"
    if "reconstruction" not in ready.recipe.techniques:
        before = "all samples"
    for name, (placement, plan) in made.earlier.items():
        yield stage(before, simulation.outputs(ready.network, samples, placement, plan))
        before = name
    yield stage(before, _in_onnxruntime(written, samples, ready.network.outputs))


def _planned(
    ready: Calibrated, made: Choice, original: onnx.ModelProto, samples: Samples
) -> Iterator[tuple[str, Network, Placement, Plan]]:
    """Names, networks, placements and plans of the stages before the file's."""
    from workbench.quantization.core import engine

    scheme, done = SCHEMES[ready.options.scheme], ready.recipe.techniques
    floats = ready.options.floats
    if "equalization" in done:
        arrays = [{name: one.numpy() for name, one in feeds.items()} for feeds in samples]
        plain = replace(ready.options, without=("equalization",))
        bare = engine.calibrated(original, lambda _size: arrays, plain)
        whole = bare.placed(floats)
        start = simulation.plain(bare.network, whole, bare.stats, scheme)
        yield PLAIN, bare.network, whole, start
    network, whole = ready.network, ready.placed(floats)
    if "equalization" not in done or not _same(bare.network, network):
        start = simulation.plain(network, whole, ready.stats, scheme)
        yield EQUALIZED if "equalization" in done else PLAIN, network, whole, start
    if ready.macs > HEAVY:
        return
    without = ["compensation", "reconstruction", "bias_correction"]

    def planned(placement: Placement) -> Plan:
        options = replace(ready.options, without=(*ready.options.without, *without))
        few = replace(ready, samples=list(samples), options=options, progress=_silent)
        return few.planned(placement)

    if "projection" in done:
        yield "ranges by their effect", network, whole, planned(whole)
    if made.prefix:
        whole = ready.placed(floats | set(made.prefix))
        yield "first layers in float", network, whole, planned(whole)
    if "bias_correction" in done:
        without.remove("bias_correction")
        yield "bias correction", network, whole, planned(whole)


def _same(one: Network, other: Network) -> bool:
    """Whether two networks have the same weights: of one that was not equalized."""
    return all(
        np.array_equal(value, other.constants[name]) for name, value in one.constants.items()
        if name in other.constants
    )  # fmt: skip


def agreement(expected: Sequence[Array], outputs: Sequence[Array]) -> float | None:
    """The share of samples whose class, of the first output [N, classes], is the same."""
    one, other = expected[0], outputs[0]
    if one.ndim != 2 or one.shape[1] < 2 or one.dtype.kind != "f":
        return None
    return float((one.argmax(1) == other.argmax(1)).mean())


def _in_onnxruntime(
    written: onnx.ModelProto, samples: Samples, names: Iterable[str]
) -> list[Array]:
    session = working_session(written)
    parts = [
        session.run(list(names), {name: one.numpy() for name, one in feeds.items()})
        for feeds in samples
    ]
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def _silent(_fraction: float, _note: str) -> None:
    pass
