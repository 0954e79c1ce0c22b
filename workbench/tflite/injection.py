"""The numbers of a QDQ graph put into the `.tflite` file that the float graph became.

TensorFlow's quantizer takes a float file in which each activation has a calibrated range. The
ranges that a QDQ file wants are written there before it runs: it then places QUANTIZE and
DEQUANTIZE, keeps what must share a grid on one, and fuses, all as it always does, but on these
grids. A tensor without a range stays float. Afterwards weights and biases get the QDQ file's own
integers: TensorFlow would round the floats again, on the grid of each channel's largest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.onnxgraph.walk import output_names
from workbench.tflite.flatbuffer import MOVES, Flatbuffer
from workbench.tflite.integer_weights import (
    float_rows,
    make_hybrid,
    rows_of,
    scale_rows,
    set_weights,
    weighted_operators,
)

if TYPE_CHECKING:
    from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph

Array = NDArray[Any]
Inputs = Mapping[str, Array]

# Their results hold values of their input, or zeros beside them: one grid serves both.
PASSING = frozenset((
    "PAD", "PADV2", "MIRROR_PAD", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE",
    "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK", "GATHER", "GATHER_ND", "MAX_POOL_2D",
    "SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "TILE",
    "BROADCAST_TO", "REVERSE_V2", "RESIZE_NEAREST_NEIGHBOR",
))  # fmt: skip
# Two scales that differ by less, of one of them, are one: float rounding.
NEAR = 1e-5


@dataclass(frozen=True)
class Chosen:
    """A float file with the QDQ file's ranges in it.

    Attributes:
        grids: by tensor.
        floats: operators to leave float, as the quantizer names them.
        own: how many tensors keep TensorFlow's range, of `tensors`.
        outputs: those of the network that have to be integers, and are float in the QDQ file.
    """

    content: bytes
    grids: Mapping[int, ActivationGrid]
    floats: frozenset[str]
    own: int
    tensors: int
    outputs: int = 0


def with_ranges(
    calibrated: bytes,
    stripped: StrippedGraph,
    samples: Sequence[tuple[Inputs, Inputs]],
    all_integer: bool = False,
) -> Chosen:
    """Write the grids of a QDQ graph into a calibrated float file as ranges.

    samples: each as the ONNX graph and as the file's signature takes it. all_integer: nothing may
    stay float, so that TensorFlow's range stays where the QDQ file has none.
    """
    from workbench.tflite import tensor_matching as matching

    flat = Flatbuffer(calibrated)
    before = matching.onnx_prints(stripped.model, (original for original, _ in samples))
    after = matching.tflite_prints(calibrated, flat, (converted for _, converted in samples))
    grids = matching.match_tensors(stripped, before, after)
    _spread(flat, grids)
    own = 0
    injected: dict[int, ActivationGrid] = {}
    for number in after:
        grid = grids.get(number)
        if grid is not None:
            injected[number] = grid
            flat.set_range(number, grid.low, grid.high)
        elif number in grids and not all_integer:
            flat.clear_range(number)
        else:
            own += flat.has_range(number)
    floats = frozenset() if all_integer else _left_float(flat, stripped, grids)
    results = output_names(stripped.model.graph)
    outputs = sum(name not in stripped.grids for name in results) if all_integer else 0
    return Chosen(flat.packed(), injected, floats, own, len(injected) + own, outputs)


def _spread(flat: Flatbuffer, grids: dict[int, ActivationGrid | None]) -> None:
    """Say of tensors without a counterpart what follows from their neighbours.

    What only moves values has its input's grid. Between float tensors nothing is quantized: of an
    operator that the ONNX file computes in float, the parts that it became are float too.
    """
    for operator in flat.operators:
        taken = [tensor for tensor in flat.activations(operator) if flat.is_float(tensor)]
        for number in flat.results(operator):
            if number in grids or not taken:
                continue
            if flat.kind(operator) in PASSING:
                if taken[0] in grids:
                    grids[number] = grids[taken[0]]
            elif any(tensor in grids and grids[tensor] is None for tensor in taken):
                grids[number] = None
    takers: dict[int, list[Any]] = {}
    for operator in flat.operators:
        for number in flat.activations(operator):
            takers.setdefault(number, []).append(operator)
    for operator in reversed(flat.operators):
        for number in flat.results(operator):
            results = [tensor for taker in takers.get(number, ()) for tensor in flat.results(taker)]
            if number in grids or not results:
                continue
            if all(tensor in grids and grids[tensor] is None for tensor in results):
                grids[number] = None


def _left_float(
    flat: Flatbuffer, stripped: StrippedGraph, grids: Mapping[int, ActivationGrid | None]
) -> frozenset[str]:
    """Operators that the quantizer would take although the QDQ file leaves them float.

    Those between quantized tensors whose weights are float there, and those whose result is: of a
    Softmax or a Sigmoid the quantizer knows the range without being told.
    """
    rows = float_rows(stripped)
    left = [
        operator
        for operator, weights, axis in weighted_operators(flat)
        if rows and all(row in rows for row in rows_of(weights, axis))
    ]
    for operator in flat.operators:
        results = flat.results(operator)
        if flat.kind(operator) not in PASSING and all(
            output in grids and grids[output] is None for output in results
        ):
            left.append(operator)
    return frozenset(
        flat.tensors[number].name.decode()
        for operator in left
        for number in flat.results(operator)[:1]
    )


def with_integers(
    quantized: bytes, chosen: Chosen, stripped: StrippedGraph
) -> tuple[bytes, dict[str, int]]:
    """The quantizer's file with the QDQ file's own integers, and what came from where.

    Counts: `grids` activations on the wanted grid and `moved`, those that TensorFlow put on another
    one; `weights` operators that have the QDQ file's weights, `rounded` those that have not;
    `hybrids`, of the former, give floats.
    """
    before, after = Flatbuffer(chosen.content), Flatbuffer(quantized)
    counts = {"grids": 0, "moved": 0, "weights": 0, "rounded": 0, "hybrids": 0}
    pairs = _pairs(before, after)
    _exact(after, chosen, pairs, counts)
    rows = scale_rows(stripped)
    floats = {
        id(operator): (weights, axis) for operator, weights, axis in weighted_operators(before)
    }
    for operator, converted in pairs:
        if id(operator) not in floats:
            continue
        weights, axis = floats[id(operator)]
        done = set_weights(after, converted, weights, axis, before.bias(operator), rows)
        if done is not None:
            counts["weights" if done else "rounded"] += 1
        elif make_hybrid(after, converted, weights, rows):
            counts["hybrids"] += 1
            counts["weights"] += 1
    after.drop_unused()
    return after.packed(), counts


def _pairs(before: Flatbuffer, after: Flatbuffer) -> list[tuple[Any, Any]]:
    """Each operator of the float file with what it became; [] where they cannot be paired."""
    first = [operator for operator in before.operators if before.kind(operator) not in MOVES]
    second = [operator for operator in after.operators if after.kind(operator) not in MOVES]
    kinds = (
        [before.kind(operator) for operator in first],
        [after.kind(operator) for operator in second],
    )
    return list(zip(first, second, strict=True)) if kinds[0] == kinds[1] else []


def _exact(
    after: Flatbuffer, chosen: Chosen, pairs: list[tuple[Any, Any]], counts: dict[str, int]
) -> None:
    """Scales to the last bit: the quantizer computes them anew from ends of ranges.

    By value, not by tensor, so that tensors that must share a scale go on doing so.
    """
    import numpy as np

    bits: dict[tuple[float, int], float] = {}
    counterparts: dict[int, list[int]] = {}  # by tensor of the float file: what stands for it
    for before, new in pairs:
        for number, counterpart in [
            *zip(before.outputs, new.outputs, strict=False),
            *zip(before.inputs, new.inputs, strict=False),
        ]:
            counterparts.setdefault(int(number), []).append(int(counterpart))
    for number, grid in chosen.grids.items():
        grids = [
            after.grid(other) for other in counterparts.get(number, ()) if after.is_int8(other)
        ]
        ends = {(float(scales[0]), int(zeros[0])) for scales, zeros, _ in filter(None, grids)}
        same = {
            (scale, zero)
            for scale, zero in ends
            if zero == grid.zero and abs(scale - grid.scale) <= NEAR * grid.scale
        }
        counts["grids"] += bool(same)
        counts["moved"] += bool(ends) and not same
        bits.update(dict.fromkeys(same, grid.scale))
    for number in range(len(after.tensors)):
        own = after.grid(number) if after.is_int8(number) else None
        if own is not None and len(own[0]) == 1 and not after.constant(number):
            zero = int(own[1][0])
            exact = bits.get((float(own[0][0]), zero))
            if exact is not None:
                after.set_grid(number, np.array([exact], np.float32), zero=zero)
