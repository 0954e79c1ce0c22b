"""ONNX Runtime for the workbench's own work: what a graph gives, not how fast."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.arrays import concatenate, split_samples

if TYPE_CHECKING:
    import onnx
    import onnxruntime


def working_session(
    model: onnx.ModelProto | bytes | Path,
    *,
    optimized: bool = True,
    arena: bool = True,
    threads: int = 0,
) -> onnxruntime.InferenceSession:
    """A quiet session on the CPU. Raises what ONNX Runtime raises on a model that it refuses.

    optimized: False runs the graph as it is written. arena: whether memory that a sample took is
    kept for the next. threads: 0 for this process's share of the cores, as OMP_NUM_THREADS tells
    it to all libraries but this one, or for all of them.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or _share()
    # Threads that spin while they wait would take the cores from processes side by side.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = arena
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(model, Path):
        source: str | bytes = str(model)
    else:
        source = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_samples(
    model: onnx.ModelProto | bytes | Path, inputs: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """A model's outputs [N, ...] for inputs as the file takes them, one sample at a time."""
    session = working_session(model)
    return concatenate(session.run(None, sample) for sample in split_samples(inputs))


def _share() -> int:
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdecimal() else 0
