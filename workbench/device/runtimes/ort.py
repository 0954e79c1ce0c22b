"""ONNX Runtime, on `.onnx` and `.ort` files."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.arrays import concatenate, split_samples
from workbench.artifact import (
    Artifact,
    Format,
    canonical_output,
    feed,
    is_fixed_to_one,
    stored_input,
)
from workbench.device import providers
from workbench.device.conversion import match_dtype
from workbench.device.runtimes.base import Array, Inputs
from workbench.errors import DeviceError, WorkbenchError, first_line

if TYPE_CHECKING:
    import onnxruntime

    from workbench.device.profile import Device


def ort_session(
    model: Path | bytes,
    threads: int = 0,
    device: Device | None = None,
    trace: Path | None = None,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session with every optimization on, quiet; on the CPU without a device.

    Spinning is off: on shared cores it doubled two-thread latency. trace: the beginning of the name
    of the profile that `end_profiling` writes. Raises DependencyError where onnxruntime has not the
    device's provider, DeviceError where it has and the provider does not start.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace)
        # Which operators a compiling provider took: its kernels in the profile are whole subgraphs.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    source = model if isinstance(model, bytes) else str(model)
    if device is None or device.provider == "cpu":
        return onnxruntime.InferenceSession(source, options, providers=[providers.CPU])
    chain = providers.chain(device)
    lacking = providers.missing(
        device, onnxruntime.__version__, onnxruntime.get_available_providers()
    )
    if lacking is not None:
        raise lacking
    if device.provider in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN as pip installs them are in no library path
    with capture_stderr() as lines:
        # Without enable_fallback=0 it prints an error and goes on, on the CPU.
        session = onnxruntime.InferenceSession(source, options, providers=chain, enable_fallback=0)
    # A provider whose library or device is missing is left out with a line in the log, no more.
    absent = [name for name, _ in chain if name not in session.get_providers()]
    if absent:
        raise start_error(device, "\n".join(lines))
    return session


def start_error(device: Device, reason: object) -> DeviceError:
    """The error of a provider that is there and does not start, from what ONNX Runtime said."""
    lines = [_plain(line) for line in str(reason).splitlines() if line.strip()]
    # What it logs as an error tells more than the advice that follows.
    why = next((line for line in lines if "Please refer" not in line), "it does not say why")
    options = ", ".join(f"{key}={value}" for key, value in device.options.items())
    source = providers.PROVIDERS[device.provider].source
    return DeviceError(
        f"device '{device.name}': {providers.PROVIDERS[device.provider].ort} does not start"
        + (f" with {options}" if options else ""),
        why,
        f"it needs {source}; correct the options in the device's profile, or use --device cpu",
    )


def _plain(line: str) -> str:
    """A line of ONNX Runtime's log without colours, time, source file and C++ signature."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line).strip()
    line = re.sub(r"^\S+ \S+ \[[EWF]:[^\]]*\] ", "", line)
    line = re.sub(r"^/\S+:\d+ .*\) ", "", line)
    return re.sub(r"^(\[\w+\] ?:? ?)+(\d+ : \w+ : )?", "", line)[:400]


@contextmanager
def capture_stderr() -> Iterator[list[str]]:
    """The lines that native code writes to stderr meanwhile: why a provider does not start."""
    lines: list[str] = []
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()


class OrtSession:
    """ONNX Runtime on `.onnx` and `.ort` files."""

    def __init__(
        self,
        artifact: Artifact,
        threads: int,
        device: Device | None = None,
        trace: Path | None = None,
    ) -> None:
        try:
            self.session = ort_session(artifact.path, threads, device, trace)
        except WorkbenchError:
            raise
        except Exception as error:
            raise _unloadable(artifact, device, error) from error
        self.artifact = artifact
        self.single = is_fixed_to_one(artifact.inputs)
        self.types = {tensor.name: _dtype(tensor.type) for tensor in self.session.get_inputs()}
        # By name: an artifact may leave outputs of its file out, or have them in another order.
        self.names = [spec.stored_name for spec in artifact.outputs]

    def prepare(self, inputs: Inputs) -> Any:
        """The file's inputs by name; a list of single samples where its batch is fixed to one."""
        specs = self.artifact.inputs
        matched = feed(specs, inputs)
        fed = {
            spec.stored_name: match_dtype(
                stored_input(spec, matched[spec.name]), self.types.get(spec.stored_name)
            )
            for spec in specs
        }
        if not self.single or all(
            spec.shape[:1] in ((), (None,), (len(array),))
            for spec, array in zip(specs, fed.values(), strict=True)
        ):
            return fed
        return list(split_samples(fed))

    def run(self, prepared: Any) -> Any:
        """The file's outputs for what was prepared."""
        if isinstance(prepared, dict):
            return self.session.run(self.names, prepared)
        if len(prepared) == 1:
            return self.session.run(self.names, prepared[0])
        runs = [self.session.run(self.names, sample) for sample in prepared]
        return concatenate(runs)

    def outputs(self, raw: Any) -> list[Array]:
        """The outputs as the original model has them."""
        return [canonical_output(*pair) for pair in zip(self.artifact.outputs, raw, strict=True)]


def _dtype(kind: str) -> np.dtype[Any] | None:
    """The dtype of `tensor(int64)`; None of what numpy has none for."""
    word = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype({"float": "float32", "double": "float64"}.get(word, word))
    except TypeError:
        return None


def _unloadable(artifact: Artifact, device: Device | None, error: Exception) -> DeviceError:
    message = first_line(error)
    if device is None or device.provider == "cpu":
        return DeviceError(
            f"ONNX Runtime cannot load {artifact.path.name}", f"{type(error).__name__}: {message}"
        )
    # Providers put whole C++ signatures in front of what they say.
    why = message.rpartition("] ")[2] if len(message) > 200 else message
    fix = "see 'wb inspect' for its operators, and measure it with --device cpu"
    if artifact.format is Format.ORT:
        fix = (
            "an .ort file holds what ONNX Runtime fused for the CPU (FusedConv and others), which "
            "other providers need not take: measure the .onnx file there"
        )
    return DeviceError(
        f"ONNX Runtime cannot load {artifact.path.name} on "
        f"{providers.PROVIDERS[device.provider].ort}",
        f"{type(error).__name__}: {why[:400]}",
        fix,
    )
