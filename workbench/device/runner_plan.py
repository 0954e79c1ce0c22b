"""What a runner on a device is asked for and gives: a plan in, a line of JSON and outputs back.

The runners (`native/`, in C and in Python) know nothing but these three files:

- the plan, lines of words; a word is percent-encoded UTF-8, so that a name may hold anything;
- the inputs, raw little-endian arrays one after another, all samples of one input together;
- the outputs, a record for each output of each sample: "WBO1", the dtype (as ONNX numbers them)
  and the rank as uint32, the shape as int64, the number of bytes as uint64, the bytes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import batch_size
from workbench.errors import DeviceError

Array = NDArray[Any]

# onnx.TensorProto.DataType, by numpy's names.
DTYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7,
    "bool": 9, "float16": 10, "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip
NAMES = {code: name for name, code in DTYPES.items()}
MAGIC = b"WBO1"
RANK = 16  # no tensor here has more axes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One process of a runner. Paths are the device's.

    Attributes:
        runtime: `onnxruntime` or `litert`.
        library: its shared one, '' for the Python runner.
        provider, options: an execution provider of ONNX Runtime before its CPU, '' for none.
        tensors: of one sample each, in the file's own names, with the bytes where its samples begin
            in `inputs`.
        output_names: in order.
        outputs: where they go, for all `samples`; '' for a timing, which runs the first sample
            `warmup` times, then until `runs` and `seconds` are reached.
        profile: where the time of each operator is written.
        limit: seconds after which it ends itself.
    """

    runtime: str
    library: str
    model: str
    inputs: str
    tensors: tuple[tuple[str, str, tuple[int, ...], int], ...]  # name, dtype, shape, offset
    output_names: tuple[str, ...]
    samples: int = 1
    threads: int = 1
    provider: str = ""
    options: tuple[tuple[str, str], ...] = ()
    outputs: str = ""
    warmup: int = 0
    runs: int = 0
    seconds: float = 0.0
    profile: str = ""
    limit: int = 600

    def text(self) -> str:
        """The plan's file."""
        lines: list[tuple[object, ...]] = [
            ("wb", 1),
            ("runtime", self.runtime),
            ("model", self.model),
            ("inputs", self.inputs),
            ("samples", self.samples),
            ("threads", self.threads),
            ("warmup", self.warmup),
            ("runs", self.runs),
            ("seconds", f"{self.seconds:.3f}"),
            ("limit", self.limit),
        ]
        for key in ("library", "provider", "outputs", "profile"):
            if value := getattr(self, key):
                lines.append((key, value))
        lines += [("option", *pair) for pair in self.options]
        for name, dtype, shape, offset in self.tensors:
            lines.append(("input", name, dtype, len(shape), *shape, offset))
        lines += [("output", name) for name in self.output_names]
        return "".join(
            " ".join(quote(str(word), safe="/._-") for word in line) + "\n" for line in lines
        )


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a runner's process said of itself: nanoseconds, bytes, and its runtime's version.

    Attributes:
        summary: the samples are their median alone, of a tool that tells no more.
    """

    version: str
    load_ns: int
    first_ns: int
    samples_ns: tuple[int, ...]
    peak_bytes: int
    summary: bool = False


def lay_out(
    inputs: Mapping[str, Array], samples: int | None = None
) -> tuple[bytes, tuple[tuple[str, str, tuple[int, ...], int], ...]]:
    """Inputs by the file's names as the bytes and tensors of a plan.

    Of arrays [samples, ...] each sample is a batch of one; `samples` says how many there are where
    a sample has more along its first axis. Raises DeviceError for a dtype that no runner takes.
    """
    count = samples or batch_size(inputs)
    parts, tensors, offset = [], [], 0
    for name, array in inputs.items():
        if str(array.dtype) not in DTYPES:
            raise DeviceError(f"input '{name}' is {array.dtype}, which runners do not take")
        shape = (array.shape[0] // count, *array.shape[1:]) if array.ndim else ()
        tensors.append((name, str(array.dtype), shape, offset))
        raw = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        data = raw.tobytes()
        parts += [data, b"\0" * (-len(data) % 64)]  # aligned, for whoever maps the file
        offset += len(data) + len(parts[-1])
    return b"".join(parts), tuple(tensors)


def parse_answer(stdout: str, runner: str) -> Ran:
    """A runner's line of JSON. Raises DeviceError where it is not whole, or cannot be true."""
    line = stdout.strip().rpartition("\n")[2]
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("wb") != 1:
        quoted = line if len(line) <= 80 else f"{line[:80]}…"
        raise DeviceError(
            f"{runner} did not answer as a runner does",
            f"its last line is {quoted!r}" if line else "it printed nothing",
            "build it anew with 'wb devices build-runner', and check the profile's runner",
        )
    if "error" in data:
        raise DeviceError(f"{runner} refused", str(data["error"])[:400])
    try:
        ran = Ran(
            version=str(data["version"])[:40],
            load_ns=_whole(data["load_ns"]),
            first_ns=_whole(data["first_ns"]),
            samples_ns=tuple(map(_whole, data["samples_ns"])),
            peak_bytes=_whole(data["peak_bytes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _untrue(runner, f"{type(error).__name__}: {error}") from error
    numbers = (ran.load_ns, *ran.samples_ns, ran.peak_bytes)
    if min(numbers) < 0 or 0 in ran.samples_ns or (ran.samples_ns and ran.first_ns <= 0):
        raise _untrue(runner, "a time is zero or negative: its clock went back, or it did not run")
    return ran


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is no whole number")
    return value


def _untrue(runner: str, why: str) -> DeviceError:
    return DeviceError(f"{runner} gave figures that cannot be true", why, "measure again")


def outputs_of(path: Path, samples: int, names: Sequence[str], runner: str) -> list[Array]:
    """The outputs that a runner wrote, joined over the samples: [samples, ...] each.

    Raises DeviceError where the file is not whole, or says what cannot be true.
    """
    data = path.read_bytes()
    rows: list[list[Array]] = [[] for _ in names]
    at = 0
    try:
        for _ in range(samples):
            for row in rows:
                array, at = _record(data, at)
                row.append(array)
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes too many")
        return [np.concatenate(row) if row[0].ndim else np.stack(row) for row in rows]
    except (ValueError, struct.error) as error:
        raise DeviceError(
            f"{runner} wrote outputs that are not whole", str(error), "measure again"
        ) from error


def _record(data: bytes, at: int) -> tuple[Array, int]:
    magic, code, rank = struct.unpack_from("<4sII", data, at)
    if magic != MAGIC or code not in NAMES or rank > RANK:
        raise ValueError(f"no record begins at byte {at}")
    shape = struct.unpack_from(f"<{rank}q", data, at + 12)
    (count,) = struct.unpack_from("<Q", data, at + 12 + 8 * rank)
    begin = at + 20 + 8 * rank
    dtype = np.dtype(NAMES[code])
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != count:
        raise ValueError(f"{count} bytes are no {dtype} of shape {shape}")
    if begin + count > len(data):
        raise ValueError(f"it ends {begin + count - len(data)} bytes early")
    array = np.frombuffer(data, dtype.newbyteorder("<"), count // dtype.itemsize, begin)
    return array.astype(dtype).reshape(shape), begin + count
