"""Artifacts in their runtimes, behind one `Session`.

A session takes and gives canonical arrays (the model's names, order and layout), whatever the file
keeps inside: layout and integer inputs and outputs are converted by the session.
"""

from __future__ import annotations

from workbench.arrays import concatenate, split_samples
from workbench.artifact import Artifact, Format
from workbench.device.profile import Device
from workbench.device.runtimes.base import Array, Inputs, Session
from workbench.errors import DeviceError, StepError, first_line
from workbench.model import ModelSource


def infer(session: Session, inputs: Inputs) -> list[Array]:
    """Canonical outputs for canonical inputs."""
    return session.outputs(session.run(session.prepare(inputs)))


def infer_each(session: Session, inputs: Inputs) -> list[Array]:
    """`infer`, one sample at a time as an app runs a model: ranges taken at run time, and
    branches on the data, may not be those of a batch.
    """
    return concatenate([infer(session, sample) for sample in split_samples(inputs)])


def open_session(
    target: Artifact | ModelSource,
    threads: int,
    examples: Inputs | None = None,
    device: Device | None = None,
) -> Session:
    """A session on an artifact, or on a model source (PyTorch eager).

    threads: of the runtime, 0 for all. device: whose execution provider runs it, the CPU without.
    Raises DeviceError where the runtime refuses the file.
    """
    if isinstance(target, ModelSource):
        from workbench.device.runtimes.eager import EagerSession

        return EagerSession(target, threads, examples or {}, device)
    if target.format in (Format.ONNX, Format.ORT):
        from workbench.device.runtimes.ort import OrtSession

        return OrtSession(target, threads, device)
    if target.format is Format.TFLITE:
        from workbench.device.runtimes.tflite import TfliteSession

        return TfliteSession(target, threads)
    if target.format in (Format.TORCHSCRIPT, Format.PT2):
        from workbench.device.runtimes.script import ScriptSession

        return ScriptSession(target, threads)
    raise DeviceError(f"there is no runtime here for {target.format} files")


def outputs_of(artifact: Artifact, inputs: Inputs, *, each: bool = False) -> list[Array]:
    """Canonical outputs [N, ...] of a file that a step just made, on the CPU.

    each: the samples one at a time, as an app runs them. Raises StepError where the runtime refuses
    the file, or fails on it.
    """
    try:
        session = open_session(artifact, threads=0)
        return infer_each(session, inputs) if each else infer(session, inputs)
    except Exception as error:
        raise StepError(
            f"{artifact.path.name}, just made, does not run",
            first_line(error)[:300],
            "the conversion is at fault: report it with the run's manifest",
        ) from error
