"""Devices that are this machine: files in a folder, the Python runner, and faults on request."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workbench.device.profile import Device, Library, Limits
from workbench.device.transport.base import Done
from workbench.device.transport.local import LocalTransport
from workbench.inspect import artifacts as files
from workbench.inspect import read
from workbench.measure.device_run import Assignment, DeviceRun, Watch
from workbench.measure.latency import Preset

BRIEF = Preset("brief", processes=3, warmup=1, runs=3, seconds=0.0)


class Far(LocalTransport):
    """This machine as a device elsewhere. `before` is asked before each command of the runner, with
    its number from 0; what it raises the transport raises, what it returns is the answer.
    """

    def __init__(self, name: str = "far") -> None:
        super().__init__(name)
        self.before: Callable[[int], Done | None] = lambda _number: None
        self.processes: list[Sequence[str]] = []
        self.reconnects = 0
        self.resumed = 0

    def run(self, argv: Sequence[str], timeout: float = 60) -> Done:
        if any(str(word).endswith((".plan", ".plan.copy")) for word in argv):
            self.processes.append(argv)
            answer = self.before(len(self.processes) - 1)
            if answer is not None:
                return answer
        return super().run(argv, timeout)

    def reconnect(self) -> None:
        self.reconnects += 1

    def resume(self) -> None:
        self.resumed += 1
        super().resume()


def device(folder: Path, name: str = "far", **changes) -> Device:
    """A device that keeps its files in a folder and runs them with this Python."""
    known = {
        "transport": "adb", "serial": name, "runner": "python", "folder": str(folder / name),
        "libraries": {"python": Library(path=sys.executable, pushed=False)},
        "limits": Limits(retries=2),
    }  # fmt: skip
    return Device(name=name, **{**known, **changes})


def linear(path: Path, scale: float = 1.0, classes: int = 4) -> Path:
    """y = x W, so that outputs are known."""
    weights = (np.arange(8 * classes, dtype=np.float32).reshape(8, classes) % 5 - 2) * scale
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes]),
    ]
    graph = helper.make_graph(
        [node], "linear", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")]
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def wanted(
    paths: Sequence[Path], samples: int = 6, preset: Preset = BRIEF, **changes
) -> Assignment:
    """The files on seeded samples."""
    artifacts = {path.name: files.open_artifact(path) for path in paths}
    inputs = {"x": np.random.default_rng(0).standard_normal((samples, 8)).astype(np.float32)}
    known = {
        "targets": artifacts,
        "facts": {label: read(one.path) for label, one in artifacts.items()},
        "timed": {label: {"x": inputs["x"][:1]} for label in artifacts},
        "samples": dict.fromkeys(artifacts, inputs),
        "preset": preset,
    }
    return Assignment(**{**known, **changes})


class Recorder:
    """What a measurement tells."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.saved: list[int] = []
        self.slept: list[float] = []
        self.stop = threading.Event()

    def watch(self) -> Watch:
        watch = Watch(
            progress=lambda _fraction, _note: None,
            message=self.messages.append,
            finished=lambda rounds: self.saved.append(len(rounds)),
            stop=self.stop,
        )
        recorder = self

        class Quick(Watch):
            def sleep(self, seconds: float) -> None:
                recorder.slept.append(seconds)
                super().sleep(0)

        return Quick(**vars(watch))


def found(one: Device) -> DeviceRun:
    return DeviceRun(device=one)
