"""LiteRT's `benchmark_model`, for `.tflite`: its words, and what it prints.

https://github.com/google-ai-edge/LiteRT (tflite/tools/benchmark): times are in microseconds, memory
in MB from the tool's start.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.arrays import concatenate
from workbench.device.runner_plan import Array, Ran
from workbench.errors import DeviceError

if TYPE_CHECKING:
    from workbench.device.bundle import Bundle
    from workbench.device.connection import Connection
    from workbench.measure.latency import Preset

NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"


@dataclass(frozen=True)
class BenchmarkJob:
    """A `.tflite` under `benchmark_model`: one sample a process, and of its times the median."""

    connection: Connection
    name: str
    bundle: Bundle
    model: str
    preset: Preset

    def time(self) -> Ran:
        """The times of one process."""
        preset = self.preset
        done = self.connection.run([
            *self._model(), *self._inputs(0),
            f"--num_runs={preset.runs}", f"--min_secs={preset.seconds:g}",
            f"--warmup_runs={preset.warmup}", "--warmup_min_secs=0",
        ])  # fmt: skip
        return parse_times(done.stdout + "\n" + done.stderr)

    def outputs(self) -> list[Array]:
        """Canonical outputs [N, ...] of the bundle's samples."""
        path = f"{self.connection.folder}/{self.name}.outputs"
        rows = []
        for sample in range(self.bundle.samples):
            once = ["--num_runs=1", "--min_secs=0", "--warmup_runs=0", "--warmup_min_secs=0"]
            self.connection.run([
                *self._model(), *self._inputs(sample), *once, f"--output_filepath={path}"
            ])  # fmt: skip
            back = self.connection.fetch(path)
            rows.append(self._split(back.read_bytes()))
            back.unlink(missing_ok=True)
        return self.bundle.canonical(concatenate(rows))

    def operators(self) -> str:
        """The type and milliseconds of each operator, in the order they ran in."""
        done = self.connection.run([
            *self._model(), *self._inputs(0), "--num_runs=5", "--enable_op_profiling=true"
        ])  # fmt: skip
        return json.dumps({"operators": operators(done.stdout)})

    def _model(self) -> list[str]:
        return [f"--graph={self.model}", f"--num_threads={self.connection.device.threads}"]

    def _inputs(self, sample: int) -> list[str]:
        """Its inputs, each from a file of its own: the tool splits its lists at commas."""
        names, shapes, values = [], [], []
        for at, (name, dtype, shape, offset) in enumerate(self.bundle.plan.tensors):
            if "," in name or ":" in name.removesuffix(":0"):
                raise DeviceError(f"benchmark_model cannot be given an input named '{name}'")
            size = math.prod(shape) * np.dtype(dtype).itemsize
            data = self.bundle.data[offset + sample * size : offset + (sample + 1) * size]
            path = self.connection.bring_bytes(f"{self.name}.{at}", data)
            names.append(name)
            shapes.append(",".join(map(str, shape)))
            values.append(f"{name}:{path}")
        return [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(values)}",
        ]

    def _split(self, data: bytes) -> list[Array]:
        """Its outputs, which it writes one after another in the file's order."""
        arrays: dict[str, Array] = {}
        at = 0
        for tensor in self.bundle.facts.outputs:
            shape = tuple(size or 1 for size in tensor.shape)
            dtype = np.dtype(tensor.dtype)
            size = math.prod(shape) * dtype.itemsize
            part = data[at : at + size]
            if len(part) < size:
                break
            arrays[tensor.name] = np.frombuffer(part, dtype).reshape(shape)
            at += size
        if at != len(data) or not arrays.keys() >= set(self.bundle.plan.output_names):
            raise DeviceError(
                "benchmark_model wrote outputs that are not whole",
                f"{len(data)} bytes, where the file's outputs have {at}",
                "use one that has --output_filepath, or the native runner",
            )
        return [arrays[name] for name in self.bundle.plan.output_names]


def benchmark_job(
    connection: Connection, name: str, bundle: Bundle, preset: Preset
) -> BenchmarkJob:
    """Bring a bundle's model. Raises DeviceError for what is no `.tflite`."""
    if bundle.plan.runtime != "litert":
        raise DeviceError(
            f"benchmark_model runs no {bundle.artifact.format} files",
            "it is LiteRT's, for .tflite",
            'set runner = "native" in the profile, or measure the .tflite alone',
        )
    return BenchmarkJob(connection, name, bundle, connection.bring(bundle.model), preset)


def parse_times(text: str) -> Ran:
    """What the tool says of a timing. Raises DeviceError where that is not there, or untrue."""
    timings = re.search(rf"Init: {NUMBER}, First inference: {NUMBER}", text)
    # The last of them is of the inferences, the one before of the warm-up.
    runs = re.findall(r"^.*\bcount=\d+ .*$", text, re.MULTILINE)
    if timings is None or not runs:
        raise DeviceError(
            "benchmark_model did not print its times",
            next((number for number in text.strip().splitlines()[-1:]), "it printed nothing")[:200],
            "use a newer one, and see that its digest in the profile is right",
        )
    middle = re.search(rf"\bmedian={NUMBER}", runs[-1])
    same = re.search(rf"\bcurr={NUMBER} ?\(all same\)", runs[-1])
    if (typical := middle or same) is None:
        raise DeviceError(
            "benchmark_model prints no median", "it is older than 2023", "use a newer one"
        )
    memory = re.search(rf"overall={NUMBER}", text)
    load, first, median = (float(number) for number in (*timings.groups(), typical.group(1)))
    if min(load, first, median) <= 0:
        raise DeviceError("benchmark_model gave times that cannot be true", runs[-1][:200])
    return Ran(
        version="benchmark_model",
        load_ns=round(load * 1e3),
        first_ns=round(first * 1e3),
        samples_ns=(round(median * 1e3),),
        peak_bytes=max(0, round(float(memory.group(1)) * 1e6)) if memory else 0,
        summary=True,
    )


def operators(text: str) -> list[dict[str, Any]]:
    """What the tool says of operators: the type and milliseconds of each, in the order they ran in.

    Raises DeviceError where it says nothing of them.
    """
    # What a delegate ran is one operator there, and in a table of its own after it.
    runs, _, inside = text.rpartition("Regular Benchmark Runs")[2].partition("Delegate internal")
    own = _run_order(inside)
    rows = [row for row in _run_order(runs) if not (own and "Delegate" in row["op"])] + own
    if not rows:
        raise DeviceError(
            "benchmark_model does not tell the time of operators",
            next((row for row in text.strip().splitlines()[-1:]), "it printed nothing")[:200],
            "use a newer one, or the native runner",
        )
    return rows


def _run_order(text: str) -> list[dict[str, Any]]:
    """The first of its tables: [node type] … [avg ms] [%] … between tabs, and maybe [Name]."""
    rows = []
    for line in text.partition("Run Order")[2].partition("Top by")[0].splitlines():
        cells = [cell.strip() for cell in line.split("\t")]
        share = next((at for at, cell in enumerate(cells) if re.fullmatch(r"[\d.]+%", cell)), 0)
        if share >= 3 and re.fullmatch(NUMBER, cells[share - 1]):
            rows.append({"op": cells[1].removeprefix("Delegate/"), "ms": float(cells[share - 1])})
    return rows
