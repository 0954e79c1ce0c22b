"""PyTorch without the model's classes: TorchScript archives and `.pt2` programs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from workbench.artifact import (
    Artifact,
    Format,
    TensorSpec,
    canonical_output,
    feed,
    is_fixed_to_one,
    stored_input,
)
from workbench.device.runtimes.base import Array, Inputs
from workbench.errors import DeviceError, ModelError, first_line


class ScriptSession:
    """A TorchScript archive or a `.pt2` program in inference mode.

    TorchScript can read and write files through its operators: trust an archive as you trust code.
    """

    def __init__(self, artifact: Artifact, threads: int) -> None:
        import torch

        torch.set_num_threads(threads or os.cpu_count() or 1)  # 0 is all, as elsewhere
        try:
            self.module = _open(artifact)
        except ModelError as error:
            raise DeviceError(
                f"PyTorch cannot load {artifact.path.name}", f"{error.what}: {error.why}", error.fix
            ) from error
        except Exception as error:
            raise DeviceError(
                f"PyTorch cannot load {artifact.path.name}",
                f"{type(error).__name__}: {first_line(error)}",
            ) from error
        self.artifact = artifact
        self.single = is_fixed_to_one(artifact.inputs)
        self.mode = torch.inference_mode

    def prepare(self, inputs: Inputs) -> list[list[Any]]:
        """Batches of tensors in the file's order: one, or one a sample where the batch is fixed."""
        import torch

        specs = self.artifact.inputs
        fed = feed(specs, inputs)
        tensors = [
            torch.from_numpy(np.ascontiguousarray(stored_input(spec, fed[spec.name])))
            for spec in specs
        ]
        if not self.single:
            return [tensors]
        return [[tensor[i : i + 1] for tensor in tensors] for i in range(len(tensors[0]))]

    def run(self, prepared: list[list[Any]]) -> list[Any]:
        """The program's results for each batch."""
        with self.mode():
            return [self.module(*tensors) for tensors in prepared]

    def outputs(self, raw: list[Any]) -> list[Array]:
        """The outputs as the original model has them."""
        from workbench.model import flatten

        parts = [[tensor.numpy() for _, tensor in flatten(batch)] for batch in raw]
        joined = [
            np.concatenate(same) if len(same) > 1 else same[0] for same in zip(*parts, strict=True)
        ]
        if not self.artifact.outputs:  # the file does not tell how many it gives
            return joined
        return [
            canonical_output(spec, joined[_place(spec, i)])
            for i, spec in enumerate(self.artifact.outputs)
        ]


def _place(spec: TensorSpec, i: int) -> int:
    """Which of the file's outputs a spec is: it has them in order, `#2` is the third."""
    return int(spec.stored[1:]) if spec.stored.startswith("#") else i


def _open(artifact: Artifact) -> Any:
    if artifact.format is Format.PT2:
        from workbench.sources.pt2 import open_program

        return open_program(artifact.path).module
    from workbench.sources.torchscript import open_archive

    return open_archive(artifact.path)
