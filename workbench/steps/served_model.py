"""onnx2tf's Keras model as a function with the ONNX file's names, compared with it, and saved."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from workbench.errors import StepError

Array = NDArray[Any]

# The least SQNR (dB) of each float output, and the least share of an integer output's elements
# that must be equal: ties may fall either way.
LEAST = 60.0
LEAST_EQUAL = 0.75


def moved_axes(array: Array, moved: bool) -> tuple[int, ...]:
    """The permutation from N, C, spatial axes to N, spatial axes, C, where there are any."""
    return channels_last(array.ndim) if moved and array.ndim in (4, 5) else ()


def channels_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def keys(names: Sequence[str]) -> list[str]:
    """The names as TensorFlow takes them in a signature, each different from the others."""
    made: list[str] = []
    for name in names:
        word = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "tensor"
        same = [one for one in made if re.fullmatch(rf"{re.escape(word)}(_\d+)?", one)]
        made.append(f"{word}_{len(same) + 1}" if word in made else word)
    return made


def places(names: Sequence[str] | Mapping[str, Any], orders: Sequence[Any]) -> dict[str, Any]:
    """By the ONNX file's name: the signature's, and the axes in the SavedModel's order."""
    words = keys(list(names))
    return {
        name: {"key": word, "permutation": list(order)}
        for name, word, order in zip(names, words, orders, strict=True)
    }


def served(network: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The network as a function whose inputs and outputs have the ONNX file's names."""
    import tensorflow as tf

    names = keys(outputs)

    def serve(*given: Any) -> dict[str, Any]:
        found = network(list(given) if len(given) > 1 else given[0])
        found = found if isinstance(found, list | tuple) else [found]
        return {name: tf.identity(one) for name, one in zip(names, found, strict=True)}

    specs = [
        tf.TensorSpec((1, *one.shape[1:]), one.dtype, name=name)
        for one, name in zip(network.inputs, keys(inputs), strict=True)
    ]
    return tf.function(serve, input_signature=specs, autograph=False)


def compared(
    serve: Any,
    inputs: Mapping[str, Array],
    expected: Sequence[Array],
    names: Sequence[str],
    moved: bool,
) -> list[tuple[int, ...]]:
    """Each output's axes in the SavedModel's order. Raises StepError where one disagrees."""
    import numpy as np

    given = [
        array.transpose(order) if (order := moved_axes(array, moved)) else array
        for array in inputs.values()
    ]
    runs = [serve(*(array[i : i + 1] for array in given)) for i in range(len(given[0]))]
    orders = []
    for name, key, wanted in zip(names, keys(names), expected, strict=True):
        parts = [np.asarray(run[key]) for run in runs]
        found = np.concatenate([part[None] if part.ndim == 0 else part for part in parts])
        ranked = sorted(
            (_nearness(wanted, found.transpose(np.argsort(order)) if order else found), order)
            for order in ([(), channels_last(wanted.ndim)] if wanted.ndim > 2 else [()])
            if found.ndim == wanted.ndim
        )
        if not ranked or ranked[-1][0] < LEAST:
            said = f"{ranked[-1][0]:.1f} dB" if ranked else f"shape {found.shape}"
            raise StepError(f"output {name} differs from the ONNX file's: {said}")
        orders.append(ranked[-1][1])
    return orders


def _nearness(wanted: Array, found: Array) -> float:
    """SQNR in dB; of integers infinite where enough are equal."""
    from workbench.measure import parity

    if wanted.shape != found.shape:
        return -math.inf
    if wanted.dtype.kind != "f":
        return math.inf if (wanted == found).mean() >= LEAST_EQUAL else -math.inf
    return parity.compare([wanted], [found]).sqnr


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
