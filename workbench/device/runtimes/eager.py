"""PyTorch: a model source as the user wrote it."""

from __future__ import annotations

import os
from typing import Any

from workbench.device.runner import Array, Inputs
from workbench.model import Model, ModelSource


class EagerSession:
    """PyTorch as the user wrote it, in inference mode."""

    def __init__(self, source: ModelSource, threads: int, examples: Inputs) -> None:
        import torch

        from workbench.sources.factory import build, in_call_order

        torch.set_num_threads(threads or os.cpu_count() or 1)  # 0 is all, as elsewhere
        module, _ = build(source)
        self.model = Model(
            module=module, example_inputs=in_call_order(module, examples), output_names=()
        )
        self.mode = torch.inference_mode

    def prepare(self, inputs: Inputs) -> Any:
        import torch

        return [torch.from_numpy(inputs[name]) for name in self.model.input_names]

    def run(self, prepared: Any) -> Any:
        with self.mode():
            return self.model.module(*prepared)

    def outputs(self, raw: Any) -> list[Array]:
        from workbench.model import flatten

        return [tensor.numpy() for _, tensor in flatten(raw)]
