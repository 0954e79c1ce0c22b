"""PyTorch: a model source as the user wrote it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from workbench.arrays import concatenate
from workbench.device.providers import torch_device
from workbench.device.runtimes.base import Array, Inputs
from workbench.model import ModelSource, flatten
from workbench.sources.live import build, takes_batches

if TYPE_CHECKING:
    from workbench.device.profile import Device


class EagerSession:
    """PyTorch as the user wrote it, in inference mode; on the device's GPU where torch has it."""

    def __init__(
        self, source: ModelSource, threads: int, examples: Inputs, device: Device | None = None
    ) -> None:
        import torch

        torch.set_num_threads(threads or os.cpu_count() or 1)  # 0 is all, as elsewhere
        self.model, _ = build(source, examples)
        # An archive does not say whether it was traced with one sample only: several will show.
        self.single = None if source.kind == "torchscript" else self.model.batch == 1
        self.mode = torch.inference_mode
        self.device = torch_device(device)
        if device is not None and self.device != "cpu":
            # As exact as ONNX Runtime there, whose default and whose option this is.
            tf32 = device.options.get("use_tf32", "1") in ("1", "True", "true")
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            self.model.module.to(self.device)

    def prepare(self, inputs: Inputs) -> list[list[Any]]:
        """Batches of tensors in call order: one, or one a sample where the model takes no more."""
        import torch

        tensors = [torch.from_numpy(inputs[name]) for name in self.model.input_names]
        count = len(tensors[0])
        if count > 1 and self.single is None:
            self.single = not takes_batches(self._whole, inputs)
        if count == 1 or not self.single:
            return [tensors]
        return [[tensor[i : i + 1] for tensor in tensors] for i in range(count)]

    def run(self, prepared: list[list[Any]]) -> list[Any]:
        """The module's results for each batch."""
        with self.mode():
            if self.device == "cpu":
                return [self.model.module(*tensors) for tensors in prepared]
            # With the copies there and back, which ONNX Runtime's run has too; the way back waits
            # until the GPU is done.
            results = (
                self.model.module(*(batch.to(self.device) for batch in some)) for some in prepared
            )
            return [[tensor.cpu() for _, tensor in flatten(batch)] for batch in results]

    def outputs(self, raw: list[Any]) -> list[Array]:
        """The results' tensors in the order the module gives them, batches joined."""
        parts = [[tensor.numpy() for _, tensor in flatten(batch)] for batch in raw]
        if len(parts) == 1:
            return parts[0]
        return concatenate(parts)

    def _whole(self, inputs: Inputs) -> list[Array]:
        import torch

        tensors = [torch.from_numpy(inputs[name]) for name in self.model.input_names]
        return self.outputs(self.run([tensors]))
