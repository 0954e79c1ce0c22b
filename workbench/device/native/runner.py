"""The runner for boards that have Python with the runtimes: `python3 runner.py PLAN`.

One file on its own, for Python 3.9 and newer: it is copied to a device. What it is asked and gives
is said in `workbench/device/runner_plan.py`; the runner in C does the same.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

CODES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
    "bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip
ONE = ("runtime", "model", "inputs", "samples", "threads", "warmup", "runs", "seconds", "limit",
       "library", "provider", "outputs", "profile")  # fmt: skip
LISTS = {"input": (4, 20), "output": (1, 1), "option": (2, 2)}  # words, from and to


class Refused(Exception):  # noqa: N818 - it is an answer
    """What the plan asks cannot be done; its text is the answer."""


def read(path: str) -> dict[str, Any]:
    """The plan's words by key. Raises Refused for one that is not whole."""
    plan: dict[str, Any] = {"input": [], "output": [], "option": []}
    with open(path, encoding="ascii") as file:  # noqa: PTH123 - one file, kept small
        text = file.read()
    if re.search("%(?![0-9A-Fa-f]{2})|%00", text):
        raise Refused("the plan has a word that is not percent-encoded")
    lines = [[unquote(word) for word in line.split()] for line in text.split("\n") if line]
    if not lines or lines[0] != ["wb", "1"]:
        raise Refused("it is no plan of version 1")
    for line in lines[1:]:
        key, *words = line or [""]
        if key in LISTS and LISTS[key][0] <= len(words) <= LISTS[key][1]:
            plan[key].append(words)
        elif key in ONE and len(words) == 1:
            plan[key] = words[0]
        else:
            raise Refused(f"the plan has an unknown line: {' '.join(line)[:80]}")
    missing = [key for key in ONE[:9] if key not in plan]
    if missing:
        raise Refused(f"the plan does not say {missing[0]}")
    if not 0 <= float(plan["seconds"]) < 1e6:
        raise Refused("the plan's seconds are no number")
    if not plan["input"] or not plan["output"]:
        raise Refused("the plan has no inputs or outputs")
    return plan


def arrays(plan: dict[str, Any]) -> list[tuple[str, Any]]:
    """Each input's name and its samples [samples, ...]. Raises Refused where the file is short."""
    import numpy as np

    data = Path(plan["inputs"]).read_bytes()
    count = int(plan["samples"])
    if count < 1:
        raise Refused("the plan has no samples")
    inputs = []
    for name, dtype, rank, *numbers in plan["input"]:
        if dtype not in CODES or len(numbers) != int(rank) + 1:
            raise Refused(f"input {name} is not declared as inputs are")
        *shape, offset = map(int, numbers)
        each = np.dtype(dtype).itemsize
        for size in shape:
            each *= size
        if min([offset, *shape]) < 0 or offset + count * each > len(data):
            raise Refused(f"the inputs end before those of {name} do")
        array = np.frombuffer(data, dtype, count * each // np.dtype(dtype).itemsize, offset)
        inputs.append((name, array.reshape(count, *shape)))
    return inputs


class Onnx:
    """ONNX Runtime, opened as the workbench opens it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        import onnxruntime

        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(plan["threads"])
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.profile = plan.get("profile", "")
        if self.profile:
            options.enable_profiling = True
            options.profile_file_prefix = self.profile
        providers: list[Any] = ["CPUExecutionProvider"]
        if plan.get("provider"):
            name = f"{plan['provider'].capitalize()}ExecutionProvider"
            if name not in onnxruntime.get_available_providers():
                raise Refused(f"onnxruntime {self.version} has no {name}")
            providers.insert(0, (name, dict(plan["option"])))
        self.open: Any = lambda: onnxruntime.InferenceSession(plan["model"], options, providers)
        self.planned_outputs = plan["output"]

    def load(self, inputs: list[tuple[str, Any]]) -> None:
        """Open the model for the plan's inputs."""
        self.session: Any = self.open()
        takes = {tensor.name for tensor in self.session.get_inputs()}
        unknown = [name for name, _ in inputs if name not in takes]
        if unknown:
            raise Refused(f"the model has no input {unknown[0]}")
        self.names = [name for (name,) in self.planned_outputs]

    def sample(self, inputs: list[tuple[str, Any]], at: int) -> Any:
        """One sample, as `run` takes it."""
        return {name: array[at] for name, array in inputs}

    def run(self, sample: Any) -> Any:
        """One inference."""
        return self.session.run(self.names, sample)

    def outputs(self, raw: Any) -> list[Any]:
        """What the last inference gave, in the plan's order."""
        return list(raw)

    def end(self) -> None:
        """Write the profile of operators, where the plan asks for one."""
        if self.profile:
            os.replace(self.session.end_profiling(), self.profile)  # noqa: PTH105


class Tflite:
    """LiteRT, or the TensorFlow Lite runtime that came before it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        try:
            interpreters = importlib.import_module("ai_edge_litert.interpreter")
        except ImportError:
            interpreters = importlib.import_module("tflite_runtime.interpreter")
        package = importlib.import_module(interpreters.__name__.partition(".")[0])
        self.version = str(getattr(package, "__version__", "unknown"))
        if plan.get("profile"):
            raise Refused("LiteRT's Python package does not tell the time of operators")
        threads = int(plan["threads"]) or None
        self.open: Any = lambda: interpreters.Interpreter(plan["model"], num_threads=threads)
        self.planned_outputs = plan["output"]

    def load(self, inputs: list[tuple[str, Any]]) -> None:
        """Open the model for the plan's inputs."""
        self.model = self.open()
        names = [name for name, _ in inputs]
        taken = self._details("input", names)
        for detail, (name, array) in zip(taken, inputs):  # noqa: B905 - Python 3.9
            if detail["dtype"] != array.dtype:
                raise Refused(f"input {name} is not {array.dtype}")
            if list(detail["shape"]) != list(array.shape[1:]):
                # Strictly: an axis that the file fixes may not be another.
                self.model.resize_tensor_input(detail["index"], array.shape[1:], strict=True)
        self.model.allocate_tensors()
        self.inputs = [detail["index"] for detail in taken]
        for detail in self.model.get_input_details():
            if detail["index"] not in self.inputs:
                raise Refused(f"the plan leaves out the model's input {detail['name']}")
        names = [name for (name,) in self.planned_outputs]
        self.output_indices = [detail["index"] for detail in self._details("output", names)]

    def _details(self, kind: str, names: list[str]) -> list[dict[str, Any]]:
        """The model's tensors by the file's names for them, or else by its signature's."""
        details = {
            detail["name"]: detail for detail in getattr(self.model, f"get_{kind}_details")()
        }
        signatures = list(self.model.get_signature_list())
        if signatures and not details.keys() >= set(names):
            signature = self.model.get_signature_runner(signatures[0])
            details = {**getattr(signature, f"get_{kind}_details")(), **details}
        missing = [name for name in names if name not in details]
        if missing:
            raise Refused(f"the model has no {kind} {missing[0]}")
        return [details[name] for name in names]

    def sample(self, inputs: list[tuple[str, Any]], at: int) -> Any:
        """One sample, as `run` takes it."""
        return [array[at] for _, array in inputs]

    def run(self, sample: Any) -> Any:
        """One inference."""
        for index, array in zip(self.inputs, sample):  # noqa: B905 - Python 3.9
            self.model.set_tensor(index, array)
        self.model.invoke()
        return [self.model.get_tensor(index) for index in self.output_indices]

    def outputs(self, raw: Any) -> list[Any]:
        """What the last inference gave, in the plan's order."""
        return list(raw)

    def end(self) -> None:
        """It has nothing to write."""


def record(array: Any) -> bytes:
    """An output as the results file has it."""
    import numpy as np

    if not isinstance(array, (np.ndarray, np.generic)):
        raise Refused("an output is no tensor")
    array = np.asarray(array, order="C")  # ascontiguousarray makes a scalar an array of one
    if str(array.dtype) not in CODES:
        raise Refused(f"an output is {array.dtype}, which has no record")
    head = struct.pack("<4sII", b"WBO1", CODES[str(array.dtype)], array.ndim)
    shape = struct.pack(f"<{array.ndim}q", *array.shape)
    return bytes(head + shape + struct.pack("<Q", array.nbytes) + array.tobytes())


def memory(field: str) -> int:
    """Bytes that /proc/self/status tells, 0 where it does not."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def work(path: str) -> dict[str, Any]:
    """Do what the plan says; the times, bytes and version."""
    plan = read(path)
    signal.alarm(max(1, int(plan["limit"])))
    inputs = arrays(plan)
    try:
        runtime: Any = {"onnxruntime": Onnx, "litert": Tflite}[plan["runtime"]](plan)
    except KeyError:
        raise Refused(f"there is no runtime {plan['runtime']}") from None
    except ImportError as error:
        raise Refused(f"this device's python3 has no {plan['runtime']}: {error}") from error
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory("VmRSS")
    clock = time.perf_counter_ns
    began = clock()
    runtime.load(inputs)
    answer: dict[str, Any] = {
        "wb": 1, "runtime": plan["runtime"], "version": runtime.version,
        "load_ns": clock() - began, "first_ns": 0, "samples_ns": [],
    }  # fmt: skip
    if plan.get("outputs"):
        with open(plan["outputs"], "wb") as file:  # noqa: PTH123
            for at in range(int(plan["samples"])):
                raw = runtime.run(runtime.sample(inputs, at))
                for array in runtime.outputs(raw):
                    file.write(record(array))
    if int(plan["runs"]):
        sample = runtime.sample(inputs, 0)
        began = clock()
        runtime.run(sample)
        answer["first_ns"] = clock() - began
        for _ in range(int(plan["warmup"])):
            runtime.run(sample)
        until = clock() + int(float(plan["seconds"]) * 1e9)
        times = answer["samples_ns"]
        while len(times) < int(plan["runs"]) or clock() < until:
            began = clock()
            runtime.run(sample)
            times.append(clock() - began)
    answer["peak_bytes"] = max(0, memory("VmHWM") - before)
    runtime.end()
    return answer


def main() -> int:
    # Libraries print where they like: the answer has a descriptor of its own.
    """Read the plan that is named, and do it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    code = 0
    try:
        if len(sys.argv) != 2:
            raise Refused("usage: runner.py PLAN")
        answer = work(sys.argv[1])
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is the answer
        text = str(error) if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
        answer, code = {"wb": 1, "error": text[:1000]}, 3
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
