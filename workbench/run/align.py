"""Which tensor of one file is which of another: names, axis orders, and what the outputs say.

Converters rename tensors and move axes, and neither names nor shapes always tell which. So every
mapping that they allow is tried, and the one whose outputs agree best with the reference's is it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import ModelError, WorkbenchError
from workbench.inspect.artifacts import UNKNOWN, with_outputs
from workbench.run import pairing
from workbench.run.pairing import CLEAR, permutations, plain

Array = NDArray[Any]

# The most mappings of inputs that are tried: each costs a session.
LIMIT = 24
# dB by which one mapping must stand out from the next where none gives outputs that are CLEAR.
GAP = 3.0

# The outputs of an artifact whose inputs are mapped and whose outputs are as in the file.
Run = Callable[[Artifact], Sequence[Array]]


@dataclass(frozen=True)
class Aligned:
    """An artifact under the reference's names and axis order.

    Attributes:
        artifact: with the reference's specs.
        kept: places of those of the reference's outputs that the file has too, all as a rule.
        sqnr: of these outputs, in dB.
    """

    artifact: Artifact
    kept: tuple[int, ...]
    sqnr: float


def input_choices(
    tensor: TensorSpec, specs: Sequence[TensorSpec], *, alone: bool, moved: bool
) -> list[TensorSpec]:
    """The canonical inputs that one of the file's may stand for, the likeliest first.

    By name where a name matches and the file has several, else by shape. alone: it is the file's
    only input. moved: converters between the two may have moved axes, so that an order that fits
    as it is proves nothing.
    """
    named = [spec for spec in specs if plain(spec.name) == plain(tensor.name)]
    choices = []
    for spec in named if named and not alone else specs:
        fitting = [order for order in _orders(tensor, spec) if _fits(tensor, spec, order)]
        if not moved and () in fitting and not _takes_pixels(tensor, spec):
            fitting = [()]
        # Channels last is what converters to TFLite make of images.
        if moved and len(tensor.shape) > 3:
            fitting.sort(key=lambda order: not order)
        choices += [_standing(spec, tensor, order) for order in fitting]
    return choices


def _standing(spec: TensorSpec, tensor: TensorSpec, order: tuple[int, ...]) -> TensorSpec:
    """The canonical tensor as that of the file keeps it; the batch is the file's."""
    return replace(
        spec,
        stored=tensor.name if tensor.name != spec.name else "",
        permutation=order,
        shape=(*(tensor.shape[:1] or spec.shape[:1]), *spec.shape[1:]),
        pixels=spec.pixels if _takes_pixels(tensor, spec) else None,
    )


def _takes_pixels(tensor: TensorSpec, spec: TensorSpec) -> bool:
    return spec.pixels is not None and tensor.dtype == "uint8" and _kind(spec.dtype) == "f"


def _kind(dtype: str) -> str:
    """What of a dtype must be the same: sessions convert between sizes, not between kinds."""
    return "f" if "float" in dtype else "i" if "int" in dtype else dtype


def _orders(tensor: TensorSpec, spec: TensorSpec) -> list[tuple[int, ...]]:
    return permutations(len(spec.shape)) if tensor.shape and spec.shape else [()]


def _fits(tensor: TensorSpec, spec: TensorSpec, order: tuple[int, ...]) -> bool:
    """Whether the file's tensor may be the canonical one in that order; the batch is free."""
    pixels = _takes_pixels(tensor, spec)
    if pixels and order not in ((0, 2, 3, 1), ()):
        return False
    kinds = {_kind(tensor.dtype), _kind(spec.dtype)}
    if len(kinds) > 1 and UNKNOWN not in kinds and not pixels:
        return False
    if not tensor.shape or not spec.shape:  # TorchScript declares no shapes
        return True
    if len(tensor.shape) != len(spec.shape):
        return False
    expected = [spec.shape[axis] for axis in order] or spec.shape
    return all(
        a is None or b is None or a == b
        for a, b in zip(expected[1:], tensor.shape[1:], strict=True)
    )


def distinct(
    choices: Sequence[Sequence[TensorSpec]], taken: frozenset[str] = frozenset()
) -> Iterator[tuple[TensorSpec, ...]]:
    """Every way to choose a canonical tensor for each of the file's, none of them twice."""
    if not choices:
        yield ()
        return
    for spec in choices[0]:
        if spec.name not in taken:
            for rest in distinct(choices[1:], taken | {spec.name}):
                yield (spec, *rest)


def input_mappings(
    artifact: Artifact, specs: Sequence[TensorSpec], origin: Format | None = None
) -> list[tuple[TensorSpec, ...]]:
    """The file's inputs, in its order, as canonical ones: every way that names and shapes allow.

    origin: the format that the canonical names and layout are from, None for a dataset's.
    Raises ModelError where there is none.
    """
    moved = (artifact.format is Format.TFLITE) != (origin is Format.TFLITE)
    alone = len(artifact.inputs) == 1
    choices = [input_choices(tensor, specs, alone=alone, moved=moved) for tensor in artifact.inputs]
    mappings = list(itertools.islice(distinct(choices), LIMIT))
    if not mappings:
        fix = "give samples that fit it, under its names where it has several inputs"
        if any(tensor.dtype == "uint8" for tensor in artifact.inputs) and not any(
            tensor.pixels or tensor.dtype == "uint8" for tensor in specs
        ):
            fix = "it takes pixels: give --data FILE.toml, 8-bit images with their [preprocess]"
        takes = ", ".join(map(str, artifact.inputs))
        gives = ", ".join(map(str, specs))
        raise ModelError(
            f"{artifact.path.name} does not take these inputs",
            f"it takes {takes}; given are {gives}",
            fix,
        )
    return mappings


def onto_data(artifact: Artifact, specs: Sequence[TensorSpec]) -> Artifact:
    """The artifact with its inputs mapped onto a dataset's, where only one mapping is possible.

    Raises ModelError where there is none or more than one: there are no outputs to judge by.
    """
    mappings = input_mappings(artifact, specs)
    if len(mappings) > 1:
        ways = "; or ".join(_mapping_words(mapping) for mapping in mappings[:2])
        raise ModelError(
            f"which inputs of {artifact.path.name} are the dataset's cannot be told",
            f"{ways}: names and shapes fit either way",
            "call the dataset's inputs as the file's are called, or give the file that it was made "
            "from too: its outputs tell",
        )
    return replace(artifact, inputs=mappings[0])


def align_artifact(
    artifact: Artifact,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    expected: Sequence[Array],
    run: Run,
    origin: Format | None = None,
) -> Aligned:
    """The artifact under the names and layout of a reference, whose `expected` outputs decide.

    inputs, outputs: the reference's. `run` gives a trial's outputs in the file's own order; what
    it raises for a wrong mapping is passed over. Raises ModelError where no mapping is possible or
    several are as good, and what `run` raised where none could be run.
    """
    trials: list[Aligned] = []
    failure: WorkbenchError | None = None
    for mapping in input_mappings(artifact, inputs, origin):
        trial = replace(artifact, inputs=mapping)
        try:
            arrays = run(trial)
        except WorkbenchError as error:
            failure = failure or error
            continue
        trial = with_outputs(trial, arrays)
        pairs = pairing.pair_outputs(trial.outputs, outputs, expected, arrays)
        if pairs is not None:
            trials.append(_with_outputs(trial, pairs))
    if not trials:
        if failure is not None:
            raise failure
        raise ModelError(
            f"{artifact.path.name}: none of its outputs has the shape of one of the reference's",
            f"it gives {', '.join(map(str, artifact.outputs))}; the reference "
            f"{', '.join(map(str, outputs))}",
            "give files of the same model; one that gives the class alone comes after those that "
            "give scores",
        )
    ranked = sorted(trials, key=lambda trial: -trial.sqnr)
    best = ranked[0]
    if len(ranked) > 1 and best.sqnr < CLEAR and best.sqnr - ranked[1].sqnr < GAP:
        ways = "; or ".join(_mapping_words(trial.artifact.inputs) for trial in ranked[:2])
        raise ModelError(
            f"which input of {artifact.path.name} is which cannot be told",
            f"{ways}: the outputs agree with the reference's as badly either way "
            f"({ranked[0].sqnr:.1f} and {ranked[1].sqnr:.1f} dB)",
            "give samples that the model was made for, with --data FILE.toml",
        )
    return best


def _with_outputs(trial: Artifact, paired: pairing.Paired) -> Aligned:
    """The trial with its outputs under the reference's names."""
    # PyTorch's outputs have no names, but an order.
    ordered = trial.format in (Format.TORCHSCRIPT, Format.PT2)
    outputs = []
    for spec, position in zip(paired.specs, paired.places, strict=True):
        own = trial.outputs[position]
        stored = f"#{position}" if ordered else own.name if own.name != spec.name else ""
        shape = (*(own.shape[:1] or spec.shape[:1]), *spec.shape[1:])
        outputs.append(replace(spec, stored=stored, shape=shape))
    return Aligned(replace(trial, outputs=tuple(outputs)), paired.kept, paired.sqnr)


def mapping_lines(aligned: Artifact, own: Artifact) -> tuple[str, ...]:
    """What of a mapping is not the identity: `image is serving_default_image:0 as NHWC`."""
    lines = []
    for kind, specs, tensors in (
        ("input", aligned.inputs, own.inputs),
        ("output", aligned.outputs, own.outputs),
    ):
        names = [tensor.name for tensor in tensors]
        for i, spec in enumerate(specs):
            name = spec.stored_name
            if name.startswith("#"):
                position = int(name[1:])
                name = names[position] if names else f"output_{position}"
            moved = spec.permutation or spec.pixels or spec.head
            if name != spec.name or moved or (names and names.index(name) != i):
                lines.append(f"{kind} {_spec_words(replace(spec, stored=name))}")
    return tuple(lines)


def _mapping_words(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(_spec_words(spec) for spec in specs)


def _spec_words(spec: TensorSpec) -> str:
    words = [_order_words(spec.permutation)] if spec.permutation else []
    words += ["as uint8 pixels"] if spec.pixels else []
    words += [f"after {spec.head}"] if spec.head else []
    return " ".join([f"'{spec.name}' is '{spec.stored_name}'", ", ".join(words)]).rstrip()


def _order_words(order: tuple[int, ...]) -> str:
    if order == (0, *range(2, len(order)), 1):
        return "with its axis 1 last" + (" (NCHW as NHWC)" if len(order) == 4 else "")
    if order == (0, len(order) - 1, *range(1, len(order) - 1)):
        return "with its last axis as axis 1" + (" (NHWC as NCHW)" if len(order) == 4 else "")
    return f"with its axes as {', '.join(map(str, order))}"
