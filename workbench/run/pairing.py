"""Which output of a file is which of a reference's: by name, shape, and how near they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.artifact import TensorSpec
from workbench.parity import apply_head, sqnr

Array = NDArray[Any]

# Outputs this near (dB) show that a mapping is right, whatever others give.
CLEAR = 10.0
_SERVED = "serving_default_"


@dataclass(frozen=True)
class Paired:
    """The reference's outputs that a file has too.

    Attributes:
        kept: their places in the reference.
        places: their places in the file.
        specs: the reference's, with the axis order and head that the file's have.
        sqnr: of all of them, in dB.
    """

    kept: tuple[int, ...]
    places: tuple[int, ...]
    specs: tuple[TensorSpec, ...]
    sqnr: float


def plain(name: str) -> str:
    """A tensor's name without what the converters put around it."""
    word = name
    if name.startswith(_SERVED):  # TensorFlow's own suffix, not a colon of the original's
        word = name.removeprefix(_SERVED).rpartition(":")[0] or name.removeprefix(_SERVED)
    word = word.replace(":", "__").lower()  # as onnx2tf writes it
    return "".join(letter if letter.isalnum() else "_" for letter in word)


def permutations(rank: int) -> list[tuple[int, ...]]:
    """The axis orders that converters make: as it is, channels last, channels first.

    Each gives the axes of the canonical tensor in the file's order.
    """
    if rank < 3:
        return [()]
    last, first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    return [(), last] if last == first else [(), last, first]


def pair_outputs(
    own: Sequence[TensorSpec],
    reference: Sequence[TensorSpec],
    expected: Sequence[Array],
    arrays: Sequence[Array],
) -> Paired | None:
    """A file's outputs `found` as those of the reference, the nearest pairs first.

    own, wanted: the specs of the two. None where no output has the shape of one of the reference's.
    """
    pairs = [
        pair
        for i, spec in enumerate(reference)
        for j in _places(spec, own, len(reference))
        for pair in _pairs(i, j, spec, expected[i], arrays[j])
    ]
    chosen: dict[int, _Pair] = {}
    for pair in sorted(
        pairs, key=lambda pair: (-pair.sqnr, abs(pair.place - pair.of), pair.unlike)
    ):
        if pair.of not in chosen and pair.place not in {other.place for other in chosen.values()}:
            chosen[pair.of] = pair
    if not chosen:
        return None
    kept = tuple(sorted(chosen))
    signal = sum(chosen[i].powers[0] for i in kept)
    noise = sum(chosen[i].powers[1] for i in kept)
    return Paired(
        kept=kept,
        places=tuple(chosen[i].place for i in kept),
        specs=tuple(chosen[i].spec for i in kept),
        sqnr=_decibels(signal, noise),
    )


@dataclass(frozen=True)
class _Pair:
    """Output `place` of the file for the reference's `of`: how near the two are."""

    of: int
    place: int
    spec: TensorSpec
    powers: tuple[float, float]
    sqnr: float

    @property
    def unlike(self) -> int:
        """How much must be assumed of the file: moved axes, a head."""
        return (len(self.spec.permutation) > 0) + bool(self.spec.head)


def _places(spec: TensorSpec, outputs: Sequence[TensorSpec], count: int) -> Sequence[int]:
    """Places of the outputs that may be it: by name, but where one side has only one."""
    named = [j for j, own in enumerate(outputs) if plain(own.name) == plain(spec.name)]
    return named if named and min(count, len(outputs)) > 1 else range(len(outputs))


def _pairs(i: int, j: int, spec: TensorSpec, expected: Array, output: Array) -> Iterator[_Pair]:
    """An output as the reference's, in every axis order and with every head that fits its shape."""
    for order in permutations(output.ndim):
        array = output.transpose(np.argsort(order)) if order else output
        if array.shape != expected.shape or array.dtype.kind != expected.dtype.kind:
            continue
        powers = _powers(expected, array)
        yield _Pair(i, j, replace(spec, permutation=order), powers, _decibels(*powers))
    classes = expected.ndim == 2 and expected.shape[1] > 1 and expected.dtype.kind == "f"
    if i > 0 or not classes or spec.head:
        return
    heads = {"softmax": output} if output.shape == expected.shape else {}
    if output.shape == expected.shape[:1] and output.dtype.kind in "iu":
        heads["argmax"] = (output[:, None] == np.arange(expected.shape[1])).astype(np.float32)
    for head, array in heads.items():
        powers = _powers(apply_head([expected], head)[0], array)
        near = _decibels(*powers)
        # What is no softmax can be near one by chance: of a constant output, say.
        sums = bool(np.allclose(array.sum(1), 1, atol=0.1))
        if sums and (near > CLEAR or head == "argmax"):
            head_spec = replace(spec, head=head, shape=(*spec.shape[:1], expected.shape[1]))
            yield _Pair(i, j, head_spec, powers, near)


def _powers(reference: Array, output: Array) -> tuple[float, float]:
    expected = reference.astype(np.float64)
    return float((expected**2).sum()), float(((output.astype(np.float64) - expected) ** 2).sum())


def _decibels(signal: float, noise: float) -> float:
    """SQNR; of outputs that are not finite, none."""
    return sqnr(signal, noise) if math.isfinite(noise) else -math.inf
