"""`Facts`: what a model file holds, as the file declares it, in plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.artifact import Format
from workbench.codec import to_plain


def printable(text: str, longest: int = 120) -> str:
    """A name out of a foreign file, safe to print: no control characters, not endless."""
    visible = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return visible if len(visible) <= longest else f"{visible[: longest - 1]}…"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An input or output as the file declares it.

    Attributes:
        name: as the file has it, which may not be safe to print: see `printable`.
        dtype: numpy's name, "unknown" where the file has none.
        shape: None is an open axis.
        quantization: (scale, zero point) where there is one pair for the whole tensor.
        ranked: False where not even the rank is declared; `shape` says nothing then.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    quantization: tuple[float, int] | None = None
    ranked: bool = True


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a model file holds.

    Attributes:
        path: the file.
        format: by the file's content, whatever its name.
        bytes: of the file itself; `notes` tells those of files beside it.
        sha256: of the file itself, as hexadecimal.
        inputs: in the file's order.
        outputs: in the file's order.
        opsets: operator set versions by domain, empty where the format has none.
        operators: how often each occurs, bodies of control flow included, domain-qualified where
            it is not the default.
        parameters: elements of the weights, shared ones once; scales, zero points and index
            tensors are none. None where they cannot be known; `notes` says why.
        macs: multiply-accumulates of convolutions, matrix products, recurrent layers and attention
            for one sample. None where they cannot be known; `notes` says why.
        precision: in a word, as `int8` or `dynamic-int8`; `mixed` where none has two thirds.
        takes: what of the file each accelerator or delegate takes, in words.
        notes: what else a user should know, a line each.
    """

    path: Path
    format: Format
    bytes: int
    sha256: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    opsets: Mapping[str, int]
    operators: Mapping[str, int]
    parameters: int | None
    macs: int | None
    precision: str
    takes: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `wb inspect --json` prints them: an undeclared shape is null."""
        facts: dict[str, Any] = to_plain(self)
        for tensor in (*facts["inputs"], *facts["outputs"]):
            if not tensor.pop("ranked"):
                tensor["shape"] = None
        return facts


# The least share of its weights that gives a file its precision; below, it is "mixed".
MAIN = 2 / 3

_FAMILIES = {
    "float32": "float32", "float64": "float64", "float16": "float16", "bfloat16": "bfloat16",
    "int8": "int8", "uint8": "int8", "int16": "int16", "uint16": "int16",
    "int4": "int4", "uint4": "int4", "int2": "int2", "uint2": "int2",
}  # fmt: skip


def family(dtype: str) -> str:
    """The precision that a dtype stands for: int8 also for uint8; '' for one that is none."""
    return "float8" if dtype.startswith("float8") else _FAMILIES.get(dtype, "")


def shares(weights: Mapping[str, int]) -> dict[str, float]:
    """Each precision's share of the weights, the largest first, from elements by dtype.

    int32 is left out: quantized layers keep their biases so.
    """
    counts: dict[str, int] = {}
    for dtype, elements in weights.items():
        if kind := family(dtype):
            counts[kind] = counts.get(kind, 0) + elements
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return {kind: count / total for kind, count in ordered if count}


def precision(
    weights: Mapping[str, int], activations: str, io: Iterable[Tensor] = ()
) -> tuple[str, str]:
    """A file's precision in a word, and a note with the shares where it has several.

    `weights` are elements by dtype. `activations` is the integer dtype that activations are
    quantized to, "dynamic" where that happens at run time, "" where they stay float.
    """
    fractions = shares(weights)
    if not fractions:  # nothing is stored: what flows through it
        kinds = [kind for kind in (family(tensor.dtype) for tensor in io) if kind]
        return (family(activations) or (kinds[0] if kinds else "unknown")), ""
    listing = ", ".join(
        f"{share:.0%} {kind}" for kind, share in fractions.items() if share >= 0.005
    )
    note = f"weights: {listing}" if "," in listing else ""
    main, share = next(iter(fractions.items()))
    quantized = main.startswith("int")
    if share < MAIN or (activations and not quantized) or activations == "mixed":
        return "mixed", note or f"weights: {main}, activations quantized"
    if quantized:
        if not activations:
            return f"{main}-weights", note  # dequantized before they are used
        if activations == "dynamic":
            return f"dynamic-{main}", note
        if family(activations) == "int16":
            return "int16", note  # int16 activations over int8 weights, as TFLite has it
        return main, note
    return main, note
