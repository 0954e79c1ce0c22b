"""Where the nodes of a file ran: counted from one inference, not from what was asked for."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.artifact import Artifact, Format
from workbench.device import providers
from workbench.device.profile import Device
from workbench.device.runtimes.base import Inputs
from workbench.device.session import infer
from workbench.errors import DeviceError
from workbench.model import ModelSource
from workbench.progress import Progress

XNNPACK, LITERT = "XNNPACK", "LiteRT"
# Those that ONNX Runtime adds to carry tensors between a GPU and the CPU are not the model's.
COPIES = ("MemcpyFromHost", "MemcpyToHost")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What ran where.

    Attributes:
        nodes: how many by execution provider, for TFLite by `XNNPACK` and `LiteRT` (its own
            kernels).
        left: the operators, with counts, that what should accelerate the file left to the CPU's
            kernels.
        notes: what else there is to say, such as that PyTorch found no GPU.
    """

    nodes: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def find_placement(
    target: Artifact | ModelSource, inputs: Inputs, device: Device, progress: Progress
) -> Placement:
    """Where the nodes of a target run on a device, by one inference on `inputs`; a worker's job.

    Raises DeviceError where the file does not load, or the runtime does not tell.
    """
    if isinstance(target, ModelSource):
        return _torch(device)
    if target.format in (Format.ONNX, Format.ORT):
        return _onnx(target, inputs, device)
    if target.format is Format.TFLITE:
        return _tflite(target, device)
    if device.provider == "cpu":
        return Placement()
    why = f"wb runs {target.format} files on the CPU only"
    return Placement(notes=(f"ran on the CPU, not on {device.name}: {why}",))


def _torch(device: Device) -> Placement:
    import torch

    if device.provider == "cpu" or providers.torch_device(device) != "cpu":
        return Placement()
    why = f"torch {torch.__version__} knows nothing of {providers.PROVIDERS[device.provider].ort}"
    if device.provider in ("cuda", "tensorrt"):
        why = f"torch {torch.__version__} finds no CUDA here"
    return Placement(notes=(f"ran on the CPU, not on {device.name}: {why}",))


def _onnx(artifact: Artifact, inputs: Inputs, device: Device) -> Placement:
    from workbench.device.runtimes.ort import OrtSession

    with tempfile.TemporaryDirectory(prefix="wb-trace-") as folder:
        session = OrtSession(artifact, device.threads, device, Path(folder) / "trace")
        infer(session, inputs)
        events = json.loads(Path(session.session.end_profiling()).read_bytes())
    return count(events, _count_assigned(session.session), device)


def _count_assigned(session: Any) -> Counter[str]:
    """How many operators of the graph each provider took; empty where ONNX Runtime cannot say.

    It cannot for `.ort` files, nor before 1.24.
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    counts: Counter[str] = Counter()
    for part in tell() if tell is not None else ():
        counts[part.ep_name] += len(part.get_nodes())
    return counts


def count(
    events: Sequence[Mapping[str, Any]], assigned: Mapping[str, int], device: Device
) -> Placement:
    """The placement that a profile's events show: each kernel once, however often it ran.

    A provider that compiles (OpenVINO, TensorRT, CoreML) runs whole subgraphs as one kernel, which
    ONNX Runtime names after the provider: of these the operators are counted that it was assigned.
    """
    kernels: dict[tuple[str, str], tuple[str, str]] = {}
    compiled = set()
    for event in events:
        about = event.get("args") or {}
        if event.get("cat") != "Node" or "provider" not in about:
            continue
        name, operator, provider = event["name"], about["op_name"], about["provider"]
        if not name.endswith("_kernel_time") or operator in COPIES:
            continue
        kernels[name, str(about.get("node_index"))] = (provider, operator)
        if name.startswith(f"{provider}_{operator}"):
            compiled.add(provider)
    ran = Counter(provider for provider, _ in kernels.values())
    for provider in compiled:
        ran[provider] = max(ran[provider], assigned.get(provider, 0))
    order = [name for name, _ in providers.chain(device)]
    ordered = sorted(ran, key=lambda name: order.index(name) if name in order else len(order))
    left: Counter[str] = Counter()
    if device.provider != "cpu":
        left.update(
            operator for provider, operator in kernels.values() if provider == providers.CPU
        )
    notes = [
        f"{name} runs compiled subgraphs, whose operators ONNX Runtime does not tell: "
        "each counts as one node"
        for name in compiled
        if not assigned.get(name)
    ]
    asked = providers.PROVIDERS[device.provider].ort
    if asked not in ran:
        notes.append(f"no node ran on {asked}: the figures are the CPU's")
    return Placement(
        nodes={name: ran[name] for name in ordered},
        left=dict(left.most_common()),
        notes=tuple(notes),
    )


def _tflite(artifact: Artifact, device: Device) -> Placement:
    from workbench.device.runtimes.tflite import TfliteSession

    interpreter = TfliteSession(artifact, device.threads).interpreter
    try:
        operators = interpreter._get_ops_details()
    except AttributeError as error:
        raise DeviceError("this LiteRT does not list a file's operators", str(error)) from error
    return count_delegated(operators)


def count_delegated(operators: Sequence[Mapping[str, Any]]) -> Placement:
    """The placement that LiteRT's list of operators shows, once its tensors are allocated.

    A delegate stands in the list after the operators that it replaced, as an operator from its
    inputs to its outputs: it took what computes the one from the other.
    """
    model = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
    maker = {int(tensor): at for at, operator in enumerate(model) for tensor in operator["outputs"]}
    taken: set[int] = set()
    for operator in operators:
        if operator["op_name"] != "DELEGATE":
            continue
        sources = {int(tensor) for tensor in operator["inputs"]}
        waiting = [int(tensor) for tensor in operator["outputs"]]
        while waiting:
            at = maker.get(tensor := waiting.pop())
            if tensor in sources or at is None or at in taken:
                continue
            taken.add(at)
            waiting += [int(other) for other in model[at]["inputs"]]
    left = Counter(operator["op_name"] for at, operator in enumerate(model) if at not in taken)
    nodes = {XNNPACK: len(taken), LITERT: len(model) - len(taken)}
    return Placement(
        nodes={name: number for name, number in nodes.items() if number},
        left=dict(left.most_common()),
    )
