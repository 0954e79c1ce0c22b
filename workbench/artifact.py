"""`Artifact`: one deployable file and what is known of it, as an immutable value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from workbench.codec import from_plain, to_plain
from workbench.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

T = TypeVar("T")


class Format(StrEnum):
    """File formats that a step gives or takes. `TORCH` is a live module, not a file."""

    TORCH = "torch"
    ONNX = "onnx"
    ORT = "ort"
    TFLITE = "tflite"
    TORCHSCRIPT = "torchscript"
    PT2 = "pt2"


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How 8-bit pixels, channels last, become an input's values: pixel * factor + offset.

    Attributes:
        factor: one for all channels, or one for each in the canonical order.
        offset: as factor.
        reversed: whether the pixels' channels stand in the opposite order, as RGB pixels do for a
            model that takes BGR.
    """

    factor: tuple[float, ...]
    offset: tuple[float, ...]
    reversed: bool = False


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: the canonical tensor, as the model was given, and how the file keeps it.

    Attributes:
        name: the canonical name.
        dtype: numpy's name.
        shape: of the canonical tensor; None is a dynamic axis.
        stored: the tensor's name in the file where that differs.
        permutation: the axes of the canonical tensor in the file's order: (0, 2, 3, 1) for NCHW
            kept as NHWC.
        pixels: how the uint8 pixels that the file takes for this input become its values.
        head: what the file applies to an output of the original: "softmax" over axis 1, or
            "argmax", the index of the class, in whose place the canonical tensor has ones and
            zeros [N, classes].
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    stored: str = ""
    permutation: tuple[int, ...] = ()
    pixels: Pixels | None = None
    head: str = ""

    @property
    def stored_name(self) -> str:
        """The tensor's name in the file."""
        return self.stored or self.name

    @property
    def stored_shape(self) -> tuple[int | None, ...]:
        """The shape in the file."""
        if self.head == "argmax":
            return self.shape[:1]
        return tuple(self.shape[axis] for axis in self.permutation) or self.shape

    @property
    def inverse(self) -> tuple[int, ...]:
        """The permutation from the file's order back to the canonical one."""
        return tuple(sorted(range(len(self.permutation)), key=self.permutation.__getitem__))

    def __str__(self) -> str:
        shape = "x".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype}[{shape}]"


def feed(specs: Sequence[TensorSpec], inputs: Mapping[str, T]) -> dict[str, T]:
    """A dataset's inputs under the names that an artifact takes, in the artifact's order.

    Names are matched; a single input goes to a single input whatever the two are called.
    Raises InputError where neither is possible.
    """
    names = [spec.name for spec in specs]
    if set(names) <= set(inputs):
        return {name: inputs[name] for name in names}
    if len(names) == 1 and len(inputs) == 1:
        return {names[0]: next(iter(inputs.values()))}
    raise InputError(
        f"the model takes {', '.join(names)}, the dataset gives {', '.join(inputs)}",
        "",
        "name the dataset's inputs as the model's",
    )


def stored_input(spec: TensorSpec, array: Array) -> Array:
    """A canonical input as the file keeps it: axes in its order, values as its pixels."""
    import numpy as np

    moved = array.transpose(spec.permutation) if spec.permutation else array
    if spec.pixels is None:
        return moved
    factor = np.asarray(spec.pixels.factor, np.float64)
    offset = np.asarray(spec.pixels.offset, np.float64)
    values: Array = np.clip(np.round((moved - offset) / factor), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(values[..., ::-1]) if spec.pixels.reversed else values


def stored_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """A dataset's inputs as the file keeps them: its names, axes, pixels and types."""
    matched = feed(specs, inputs)
    return {
        spec.stored_name: stored_input(spec, matched[spec.name]).astype(
            "uint8" if spec.pixels else spec.dtype, copy=False
        )
        for spec in specs
    }


def canonical_output(spec: TensorSpec, array: Array) -> Array:
    """An output of the file as the original has it; of a class's index, ones and zeros."""
    import numpy as np

    if spec.head == "argmax":
        classes = spec.shape[1]
        assert classes is not None
        one_hot: Array = (array[:, None] == np.arange(classes)).astype(np.float32)
        return one_hot
    return array.transpose(spec.inverse) if spec.permutation else array


def is_fixed_to_one(specs: Sequence[TensorSpec]) -> bool:
    """Whether the file takes one sample at a time."""
    return any(spec.shape and spec.shape[0] == 1 for spec in specs)


def digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One deployable file. Size and SHA-256 are derived from it, never stored instead of it.

    Attributes:
        path: the file.
        format: of the file.
        precision: in a word, as `float32` or `int8`.
        inputs: in the file's order.
        outputs: in the file's order.
        history: names of the steps that made it, the first one first.
        companions: files beside it that it needs or that tell of it.
        notes: what a user should know of it, a line each.
        intermediate: made for the next step alone, and no file to ship: tables leave it out.
    """

    path: Path
    format: Format
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    history: tuple[str, ...] = ()
    companions: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    intermediate: bool = False

    @cached_property
    def size(self) -> int:
        """Bytes of the file itself, companions not counted."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file itself, as hexadecimal."""
        return digest(self.path)

    def in_folder(self, folder: Path) -> Artifact:
        """The same artifact with its files in another folder."""
        return replace(
            self,
            path=folder / self.path.name,
            companions=tuple(folder / path.name for path in self.companions),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; paths by name only, for the folder is the reader's to know."""
        return {
            **to_plain(self),
            "path": self.path.name,
            "companions": [path.name for path in self.companions],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path) -> Artifact:
        """The artifact that `to_json` described, with its files in `folder`."""
        return from_plain(data, cls).in_folder(folder)
