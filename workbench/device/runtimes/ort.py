"""ONNX Runtime, on `.onnx` and `.ort` files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.artifact import Artifact, feed, is_fixed_to_one
from workbench.device.runner import Array, Inputs
from workbench.errors import DeviceError, first_line

if TYPE_CHECKING:
    import onnxruntime


def ort_session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU with every optimization on, quiet.

    Spinning is off: on shared cores it doubled two-thread latency.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OrtSession:
    """ONNX Runtime on `.onnx` and `.ort` files."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        try:
            self.session = ort_session(artifact.path, threads)
        except Exception as error:
            raise DeviceError(
                f"ONNX Runtime cannot load {artifact.path.name}",
                f"{type(error).__name__}: {first_line(error)}",
            ) from error
        self.artifact = artifact
        self.single = is_fixed_to_one(artifact.inputs)

    def prepare(self, inputs: Inputs) -> Any:
        fed = feed(self.artifact.inputs, inputs)
        if not self.single:
            return fed
        return [{k: v[i : i + 1] for k, v in fed.items()} for i in range(_length(fed))]

    def run(self, prepared: Any) -> Any:
        if isinstance(prepared, dict):
            return self.session.run(None, prepared)
        if len(prepared) == 1:
            return self.session.run(None, prepared[0])
        runs = [self.session.run(None, one) for one in prepared]
        return [np.concatenate(parts) for parts in zip(*runs, strict=True)]

    def outputs(self, raw: Any) -> list[Array]:
        return list(raw)


def _length(fed: Inputs) -> int:
    return len(next(iter(fed.values())))
