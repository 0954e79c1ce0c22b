"""onnx2tf's Keras model as a function with the ONNX file's names, compared with it, and saved."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.errors import StepError

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

# The least SQNR (dB) of each float output, and the least share of an integer output's elements
# that must be equal: ties may fall either way.
LEAST = 60.0
LEAST_EQUAL = 0.75
DIFFERS = "differs from the ONNX file's"
# All orders of so many axes are not tried.
MOST_AXES = 6


def moved_axes(array: Array, moved: bool) -> tuple[int, ...]:
    """The permutation from N, C, spatial axes to N, spatial axes, C, where there are any."""
    return channels_last(array.ndim) if moved and array.ndim in (4, 5) else ()


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes that puts the channels of [N, C, ...] last."""
    return (0, *range(2, rank), 1)


def keys(names: Sequence[str]) -> list[str]:
    """The names as TensorFlow takes them in a signature: words that differ by more than case."""
    unique: list[str] = []
    taken: set[str] = set()
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "tensor"
        key, number = word, 1
        while key.lower() in taken:
            number += 1
            key = f"{word}_{number}"
        taken.add(key.lower())
        unique.append(key)
    return unique


def places(arrays: Mapping[str, Array], orders: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """By the ONNX file's name: the signature's, the axes in the SavedModel's order, the shape.

    The shape is the ONNX file's, of one sample.
    """
    return {
        name: {"key": key, "permutation": list(order), "shape": [1, *array.shape[1:]]}
        for (name, array), key, order in zip(
            arrays.items(), keys(list(arrays)), orders, strict=True
        )
    }


def make_serving(network: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The network as a function whose inputs and outputs have the ONNX file's names."""
    import tensorflow as tf

    names = keys(outputs)

    def serve(*tensors: Any) -> dict[str, Any]:
        results = network(list(tensors) if len(tensors) > 1 else tensors[0])
        results = results if isinstance(results, list | tuple) else [results]
        return {name: tf.identity(result) for name, result in zip(names, results, strict=True)}

    specs = [
        tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype, name=name)
        for tensor, name in zip(network.inputs, keys(inputs), strict=True)
    ]
    return tf.function(serve, input_signature=specs, autograph=False)


def compare_outputs(
    serve: Any,
    inputs: Mapping[str, Array],
    expected: Sequence[Array],
    names: Sequence[str],
    moved: bool,
) -> list[tuple[int, ...]]:
    """Each output's axes in the SavedModel's order. Raises StepError where one disagrees."""
    import numpy as np

    arrays = [
        array.transpose(order) if (order := moved_axes(array, moved)) else array
        for array in inputs.values()
    ]
    runs = [serve(*(array[i : i + 1] for array in arrays)) for i in range(len(arrays[0]))]
    orders = []
    for name, key, reference in zip(names, keys(names), expected, strict=True):
        parts = [np.asarray(run[key]) for run in runs]
        output = np.concatenate([part[None] if part.ndim == 0 else part for part in parts])
        ranked = sorted(
            (_nearness(reference, output.transpose(np.argsort(order)) if order else output), order)
            for order in ([(), channels_last(reference.ndim)] if reference.ndim > 2 else [()])
            if output.ndim == reference.ndim
        )
        if not ranked or ranked[-1][0] < LEAST:
            nearness = f"{ranked[-1][0]:.1f} dB" if ranked else f"shape {output.shape}"
            raise StepError(f"output {name} {DIFFERS}: {nearness}")
        orders.append(ranked[-1][1])
    return orders


def _nearness(reference: Array, output: Array) -> float:
    """SQNR in dB; of integers infinite where enough are equal."""
    from workbench import parity

    if reference.shape != output.shape:
        return -math.inf
    if reference.dtype.kind != "f":
        return math.inf if (reference == output).mean() >= LEAST_EQUAL else -math.inf
    return parity.compare([reference], [output]).sqnr


def first_wrong(
    model: onnx.ModelProto,
    inputs: Mapping[str, Array],
    moved: bool,
    convert: Callable[[onnx.ModelProto], Any],
) -> str:
    """The first operator whose results, in any order of their axes, are not the ONNX graph's.

    '' where that cannot be told. convert: onnx2tf on a model.
    """
    import numpy as np

    from workbench.onnxgraph.session import run_samples
    from workbench.tflite.lowering import expose_floats

    sample = {name: array[:1] for name, array in inputs.items()}
    asked, places = expose_floats(model)
    arrays = [
        array.transpose(order) if (order := moved_axes(array, moved)) else array
        for array in sample.values()
    ]
    try:
        network = convert(asked)
        results = network(arrays if len(arrays) > 1 else arrays[0])
        values = run_samples(asked, sample)
    except Exception:  # noqa: BLE001 - it was to explain an error, not to become one
        return ""
    results = results if isinstance(results, list | tuple) else [results]
    for node, before, result in zip(places, values, results, strict=False):
        after = np.asarray(result)
        orders = itertools.permutations(range(after.ndim)) if after.ndim < MOST_AXES else ()
        moves = [after.transpose(order) for order in orders]
        if before.ndim == after.ndim and all(_nearness(before, move) < LEAST for move in moves):
            return node
    return ""


def write(serve: Any, folder: Path) -> None:
    """The SavedModel, with one signature."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = serve
    # Not all of them belong to the network's own layers: onnx2tf hides some in functions.
    module.kept = list(serve.get_concrete_function().graph.variables)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
    if not (folder / "saved_model.pb").is_file():
        raise StepError("TensorFlow wrote no SavedModel")
