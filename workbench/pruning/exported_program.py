"""A module as a `.pt2` file, which torch alone loads; checked against the module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import parity
from workbench.arrays import slice_batch
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import StepError, first_line
from workbench.model import Model, ModelSource

if TYPE_CHECKING:
    import torch

ALIKE = 80.0  # dB between the module's outputs and the file's: rounding


def save_program(
    model: Model, path: Path, history: tuple[str, ...], notes: tuple[str, ...]
) -> Artifact:
    """Write a module with its batch open, or for one sample at a time where torch cannot.

    Raises StepError where torch cannot export it, or the file's outputs are others.
    """
    import torch

    first_error: Exception | None = None
    for batch in (None, 1) if model.batch is None else (1,):
        try:
            with torch.no_grad():
                torch.export.save(_export(model, batch), path)
            _check(model, path)
        except StepError:
            raise
        except Exception as error:  # noqa: BLE001 - torch.export raises all kinds
            first_error = first_error or error
            path.unlink(missing_ok=True)
            continue
        fixed = ("takes one sample at a time: torch exports it so alone",) if batch else ()
        return _artifact(model, path, batch, history, (*notes, *fixed))
    raise StepError(
        "the model cannot be written as a .pt2",
        f"{type(first_error).__name__}: {first_line(first_error) if first_error else ''}",
        "write its decisions on data with torch.where or torch.cond",
    )


def _export(model: Model, batch: int | None) -> torch.export.ExportedProgram:
    import torch

    arrays = [torch.from_numpy(array) for array in model.example_inputs.values()]
    examples = tuple(array[: batch or max(2, min(len(array), 4))] for array in arrays)
    if batch is None and any(len(array) < 2 for array in arrays):
        examples = tuple(torch.cat([array, array]) for array in arrays)  # 1 would be a constant
    open_batch = torch.export.Dim("batch")
    shapes: Any = None if batch else tuple({0: open_batch} for _ in examples)
    return torch.export.export(model.module.eval(), examples, dynamic_shapes=shapes)


def _check(model: Model, path: Path) -> None:
    from workbench.sources.live import load_module

    inputs = slice_batch(model.example_inputs, 0, 2)
    loaded = load_module(ModelSource(spec=str(path)), inputs)
    sqnr = parity.compare(model(inputs), loaded(inputs)).sqnr
    if not sqnr > ALIKE:
        raise StepError("the .pt2 file has other outputs than the module", f"{sqnr:.1f} dB of SQNR")


def _artifact(
    model: Model, path: Path, batch: int | None, history: tuple[str, ...], notes: tuple[str, ...]
) -> Artifact:
    def specs(arrays: list[tuple[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]))
            for name, array in arrays
        )

    inputs = slice_batch(model.example_inputs, 0, 1)
    outputs = list(zip(model.output_names, model(inputs), strict=True))
    return Artifact(
        path=path,
        format=Format.PT2,
        precision="float32",
        inputs=specs(list(inputs.items())),
        outputs=specs(outputs),
        history=history,
        notes=notes,
    )
