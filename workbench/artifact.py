"""`Artifact`: one deployable file and what is known of it, as an immutable value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from workbench.errors import InputError

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
class TensorSpec:
    """One input or output: canonical name, dtype (numpy's name) and shape; None is a dynamic axis.

    `stored` is the tensor's name in the file where that differs. `permutation` gives the axes of
    the canonical tensor in the file's order: (0, 2, 3, 1) for NCHW kept as NHWC.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    stored: str = ""
    permutation: tuple[int, ...] = ()

    @property
    def stored_name(self) -> str:
        return self.stored or self.name

    @property
    def inverse(self) -> tuple[int, ...]:
        """The permutation from the file's order back to the canonical one."""
        return tuple(sorted(range(len(self.permutation)), key=self.permutation.__getitem__))

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "stored": self.stored,
            "permutation": list(self.permutation),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TensorSpec:
        return cls(
            name=data["name"],
            dtype=data["dtype"],
            shape=tuple(data["shape"]),
            stored=data["stored"],
            permutation=tuple(data["permutation"]),
        )

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


def is_fixed_to_one(specs: Sequence[TensorSpec]) -> bool:
    """Whether the file takes one sample at a time."""
    return any(spec.shape and spec.shape[0] == 1 for spec in specs)


def digest(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One deployable file. Size and SHA-256 are derived from it, never stored instead of it."""

    path: Path
    format: Format
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    history: tuple[str, ...] = ()
    companions: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of the file itself, companions not counted."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        return digest(self.path)

    def moved(self, folder: Path) -> Artifact:
        """The same artifact with its files in another folder."""
        return replace(
            self,
            path=folder / self.path.name,
            companions=tuple(folder / path.name for path in self.companions),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; paths by name only, for the folder is the reader's to know."""
        return {
            "path": self.path.name,
            "format": str(self.format),
            "precision": self.precision,
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "history": list(self.history),
            "companions": [path.name for path in self.companions],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], folder: Path) -> Artifact:
        return cls(
            path=folder / data["path"],
            format=Format(data["format"]),
            precision=data["precision"],
            inputs=tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
            history=tuple(data["history"]),
            companions=tuple(folder / name for name in data["companions"]),
            notes=tuple(data["notes"]),
        )
