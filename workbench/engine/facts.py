"""What a run knows of its model before any step runs.

A worker finds it out once; the cache keeps it, as `workbench.codec` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A model as it was given.

    Attributes:
        fingerprint: SHA-256 of its weights, structure and sources; of an ONNX file, the file's.
        bytes: of all parameters and buffers; of an ONNX file, the file's size.
        parameters: how many; None for an ONNX file.
        notes: for the report.
        classes: the size of the first output [N, classes]; None where it has another shape.
        mixes_samples: whether a sample's outputs depend on the others of its batch.
        depends: the files that it was read from.
        seconds: what reading an ONNX file took.
    """

    fingerprint: str
    bytes: int = 0
    parameters: int | None = None
    notes: tuple[str, ...] = ()
    classes: int | None = None
    mixes_samples: bool = False
    depends: tuple[str, ...] = ()
    seconds: float = 0.0
