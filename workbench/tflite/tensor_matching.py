"""Which tensor of a `.tflite` file is which of the ONNX graph's: told by their values.

Names do not survive the conversion, layouts change and operators are fused. What a tensor holds on
real samples, put in order, is the same in both files whatever the order of the axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.rewrites import expose
from workbench.onnxgraph.session import working_session
from workbench.onnxgraph.walk import computed_names

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.core.qdq_reader import ActivationGrid, StrippedGraph
    from workbench.tflite.flatbuffer import Flatbuffer

Array = NDArray[Any]
Inputs = Mapping[str, Array]

# The largest difference between two equal tensors, of the largest magnitude in them; float sums
# taken in another order over many layers.
TOLERANCE = 1e-3
# Two tensors are equally near where neither is nearer by more than this factor, or this difference.
TIE, NOISE = 3.0, 1e-5
POINTS = 256


@dataclass(frozen=True)
class Print:
    """What is kept of a tensor: how many values, and some of them in ascending order."""

    size: int
    values: Array

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Print:
        """Of a tensor on several samples."""
        kept = []
        for array in arrays:
            flat = np.sort(np.asarray(array, np.float32), axis=None)
            places = np.linspace(0, flat.size - 1, min(POINTS, flat.size)).round().astype(int)
            kept.append(flat[places])
        return cls(sum(array.size for array in arrays), np.concatenate(kept))

    def distance(self, other: Print) -> float:
        """The largest difference, of the largest magnitude; inf for another number of values."""
        if self.size != other.size:
            return float("inf")
        largest = float(np.abs(self.values).max(initial=0.0))
        difference = float(np.abs(self.values - other.values).max(initial=0.0))
        return difference / largest if largest else difference

    @property
    def telling(self) -> bool:
        """Whether there is anything in it: zeros look like any other zeros."""
        return bool(self.values.size) and bool(np.ptp(self.values) > 0)


def onnx_prints(model: onnx.ModelProto, samples: Iterable[Inputs]) -> dict[str, Print]:
    """Of every float activation of a graph, by name, in order of computation."""
    names = computed_names(model.graph)
    session = working_session(expose(model, names), optimized=False)
    kinds = {value.name: value.type for value in session.get_outputs()}
    floats = [name for name in dict.fromkeys(names) if kinds.get(name) == "tensor(float)"]
    runs: list[dict[str, Print]] = []
    for sample in samples:
        outputs = session.run(floats, dict(sample))
        inputs = {name: array for name, array in sample.items() if array.dtype.kind == "f"}
        arrays = {**inputs, **dict(zip(floats, outputs, strict=True))}
        runs.append({name: Print.of([array]) for name, array in arrays.items()})
    return _join(runs)


def tflite_prints(content: bytes, flat: Flatbuffer, samples: Iterable[Inputs]) -> dict[int, Print]:
    """Of every float activation of a float `.tflite` file, by number; samples by signature name."""
    return _join(
        [
            {number: Print.of([array]) for number, array in tensors}
            for tensors in tflite_tensors(content, flat, samples)
        ]
    )


def tflite_tensors(
    content: bytes, flat: Flatbuffer, samples: Iterable[Inputs]
) -> Iterator[Iterator[tuple[int, Array]]]:
    """For each sample every float activation of a float `.tflite` file, by number.

    Each in memory of its own: LiteRT lets some operators write over what they take.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=content,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    places = flat.inputs()
    results = [number for operator in flat.operators for number in flat.results(operator)]
    numbers = [
        number for number in (*places.values(), *results) if number >= 0 and flat.is_float(number)
    ]
    for sample in samples:
        for name, array in sample.items():
            interpreter.set_tensor(places[name], np.ascontiguousarray(array))
        interpreter.invoke()
        yield ((number, interpreter.get_tensor(number)) for number in numbers)


def _join(runs: list[dict[Any, Print]]) -> dict[Any, Print]:
    """The prints of several samples as one."""
    return {
        name: Print(
            sum(run[name].size for run in runs), np.concatenate([run[name].values for run in runs])
        )
        for name in runs[0]
    }


def match_tensors(
    stripped: StrippedGraph, before: Mapping[str, Print], after: Mapping[int, Print]
) -> dict[int, ActivationGrid | None]:
    """By tensor of the `.tflite` file: its grid, None where the ONNX file leaves it float.

    A tensor that is not in it has no counterpart. Several of one content (a Reshape's two sides, a
    Relu that clipped nothing) are told apart by their order, or get the last one's grid: what is
    fused comes out as the last does.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, contents in after.items():
        distances = {name: contents.distance(other) for name, other in before.items()}
        nearest = min(distances.values(), default=float("inf"))
        if nearest > TOLERANCE:
            continue
        near = max(TIE * nearest, NOISE)
        names = tuple(name for name, distance in distances.items() if distance <= near)
        groups.setdefault(names, []).append(number)
    grid_of: dict[int, ActivationGrid | None] = {}
    for names, numbers in groups.items():
        grids = [stripped.grids.get(name) for name in names]
        real = [grid for grid in grids if grid is not None]
        if len(set(real)) > 1 and len(names) == len(numbers):
            grid_of.update(zip(numbers, grids, strict=True))
        elif len(set(real)) > 1 and not before[names[0]].telling:
            continue
        else:
            grid_of.update(dict.fromkeys(numbers, real[-1] if real else None))
    return grid_of
