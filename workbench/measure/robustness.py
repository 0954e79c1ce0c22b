"""What an artifact does with a batch, and with inputs that are wrong: measured, not assumed.

Artifacts are tried in a worker process, so that a crash of a runtime is a finding. What is called
is the runtime's bare call with the arrays that the file takes: a session's own conversions would
hide what an app meets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import concatenate
from workbench.artifact import Artifact, Format
from workbench.errors import CrashError, WorkbenchError, first_line

if TYPE_CHECKING:
    from workbench.device.profile import Device
    from workbench.progress import Progress
    from workbench.worker_pool import RenewedWorker

Array = NDArray[Any]

BATCH = 3
# Kernels sum in another order for another batch: float outputs may differ in their last digits.
EQUAL = 1e-4  # of the largest output
OPENING, CLOSING = "opening", "closing"
CASES = ("wrong shape", "wrong dtype", "missing input", "NaN inputs")
REFUSED, ACCEPTED, CRASHED, NOT_TRIED = "refused", "accepted", "crashed", "not tried"


@dataclass(frozen=True, kw_only=True)
class Batching:
    """A batch of several samples against each sample's own run.

    fixed: the only batch size that the file takes, 0 where it is open. samples: in the batch that
    ran, 0 where none did. difference: the largest, relative to the largest output. sqnr: in dB,
    infinite where they are equal. said: why it did not run.
    """

    fixed: int = 0
    samples: int = 0
    difference: float | None = None
    sqnr: float | None = None
    said: str = ""

    @property
    def equal(self) -> bool:
        """Whether a sample's outputs are its own in a batch, but for rounding."""
        return self.difference is not None and self.difference <= EQUAL


@dataclass(frozen=True, kw_only=True)
class Misuse:
    """What the runtime did with one kind of wrong input, and what it said."""

    case: str
    outcome: str
    said: str = ""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """What an artifact does with a batch and with wrong inputs."""

    batching: Batching
    misuses: tuple[Misuse, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; JSON has no infinities, so an SQNR is its text."""
        plain = asdict(self)
        if self.batching.sqnr is not None:
            plain["batching"]["sqnr"] = str(self.batching.sqnr)
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Robustness:
        """`to_json` read back."""
        batching = dict(data["batching"])
        if batching["sqnr"] is not None:
            batching["sqnr"] = float(batching["sqnr"])
        return cls(
            batching=Batching(**batching),
            misuses=tuple(Misuse(**misuse) for misuse in data["misuses"]),
        )


def robustness(
    target: Artifact, inputs: Mapping[str, Array], device: Device, worker: RenewedWorker
) -> Robustness:
    """Try an artifact with samples [N, ...], N of at least one. A crash ends a case, not the rest.

    Raises the WorkbenchError of a file that cannot be opened.
    """
    worker.call("probe", target, device, inputs, OPENING)

    def outcome(case: str) -> Any:
        """What the case gave, or the error that ended it."""
        try:
            return worker.call("probe", target, device, inputs, case)
        except WorkbenchError as error:
            return error

    batching = outcome("batch")
    if isinstance(batching, WorkbenchError):
        crashed = "it crashed: " if isinstance(batching, CrashError) else ""
        batching = Batching(said=f"{crashed}{batching.why or batching.what}")
    misuses = []
    for case in CASES:
        misuse = outcome(case)
        if isinstance(misuse, CrashError):
            misuse = Misuse(case=case, outcome=CRASHED, said=misuse.why)
        elif isinstance(misuse, WorkbenchError):
            misuse = Misuse(case=case, outcome=NOT_TRIED, said=misuse.what)
        misuses.append(misuse)
    outcome(CLOSING)
    return Robustness(batching=batching, misuses=tuple(misuses))


_open: dict[str, Any] = {}


def probe(
    target: Artifact,
    device: Device,
    inputs: Mapping[str, Array],
    case: str,
    progress: Progress,
) -> Batching | Misuse | None:
    """The worker's side: open the artifact, kept from case to case, and try one case with it."""
    from workbench.device.session import open_session

    if case == CLOSING:
        _open.clear()
        return None
    key = str(target.path)
    if key not in _open:
        _open.clear()
        _open[key] = open_session(target, 1, inputs, device)
    session = _open[key]
    if case == OPENING:
        return None
    if case == "batch":
        return _batched(target, session, inputs)
    return _misused(target, session, inputs, case)


def _batched(target: Artifact, session: Any, inputs: Mapping[str, Array]) -> Batching:
    from workbench.device.session import infer
    from workbench.parity import compare

    fixed = _fixed(target, session)
    if fixed:
        return Batching(fixed=fixed)
    # np.resize repeats samples where there are fewer.
    batch = {name: np.resize(a, (BATCH, *a.shape[1:])) for name, a in inputs.items()}
    try:
        own = [
            infer(session, {name: a[i : i + 1] for name, a in batch.items()}) for i in range(BATCH)
        ]
        together = infer(session, batch)
        alone = concatenate(own)
        parity = compare(alone, together)
    except WorkbenchError as error:
        return Batching(said=f"{error.what}: {error.why}" if error.why else error.what)
    except Exception as error:  # noqa: BLE001 - each runtime has its own
        return Batching(said=f"{type(error).__name__}: {first_line(error)}")
    largest = max((float(np.abs(a).max(initial=0)) for a in alone), default=0.0)
    difference = parity.max_abs / largest if largest else parity.max_abs
    return Batching(samples=BATCH, difference=difference, sqnr=parity.sqnr)


def _fixed(target: Artifact, session: Any) -> int:
    """The batch size that the file has fixed, 0 where it is open."""
    first = next((shape[0] for shape in _declared(target, session) if shape), None)
    return first if isinstance(first, int) and first > 0 else 0


def _declared(target: Artifact, session: Any) -> list[tuple[Any, ...]]:
    """The shapes of the inputs as the runtime reports them; no positive number, an open axis."""
    if target.format in (Format.ONNX, Format.ORT):
        return [tuple(tensor.shape) for tensor in session.session.get_inputs()]
    if target.format is Format.TFLITE:
        return [tuple(map(int, tensor["shape_signature"])) for tensor in session.input_details]
    return [spec.stored_shape for spec in target.inputs]


def _misused(target: Artifact, session: Any, inputs: Mapping[str, Array], case: str) -> Misuse:
    sample = {name: a[:1] for name, a in inputs.items()}
    arrays, call = _bare(target, session, sample)
    declared = _declared(target, session)
    if case == "NaN inputs":
        floating = next((i for i, a in enumerate(arrays) if a.dtype.kind == "f"), None)
        if floating is None:
            return Misuse(case=case, outcome=NOT_TRIED, said="its inputs are integers")
        wrong = [np.full_like(a, np.nan) if i == floating else a for i, a in enumerate(arrays)]
    elif case == "wrong shape":
        wrong = [_misshapen(arrays[0], declared[0]), *arrays[1:]]
    elif case == "wrong dtype":
        wrong = [arrays[0].astype(_other(arrays[0].dtype)), *arrays[1:]]
    else:
        wrong = arrays[:-1]
    try:
        outputs = call(wrong)
    except Exception as error:  # noqa: BLE001 - each runtime has its own
        return Misuse(case=case, outcome=REFUSED, said=f"{type(error).__name__}: {_short(error)}")
    return Misuse(case=case, outcome=ACCEPTED, said=_gave(outputs, case))


def _short(error: Exception) -> str:
    line = first_line(error)
    return line if len(line) <= 160 else f"{line[:160]}…"


def _gave(outputs: list[Array], case: str) -> str:
    finite = all(np.isfinite(a).all() for a in outputs if a.dtype.kind == "f")
    if case == "NaN inputs":
        return "numbers came out" if finite else "NaN came out"
    return "it ran, and numbers came out" if finite else "it ran, and NaN came out"


def _misshapen(array: Array, declared: tuple[Any, ...]) -> Array:
    """One more along the last axis that the file has fixed; a rank less where it has fixed none."""
    fixed = [i for i, size in enumerate(declared) if i and isinstance(size, int) and size > 0]
    if not fixed:
        return array[0] if array.ndim else array[None]
    return np.concatenate([array, array.take([0], axis=fixed[-1])], axis=fixed[-1])


def _other(dtype: np.dtype[Any]) -> type[Any]:
    """A dtype of another kind and width."""
    return np.int64 if dtype.kind == "f" else np.float32


def _bare(
    target: Artifact, session: Any, sample: Mapping[str, Array]
) -> tuple[list[Array], Callable[[list[Array]], list[Array]]]:
    """One sample's arrays as the file takes them, and the runtime's call for lists like it."""
    prepared = session.prepare(sample)
    arrays_of_sample = prepared if isinstance(prepared, dict) else prepared[0]
    if target.format in (Format.ONNX, Format.ORT):
        names = list(arrays_of_sample)

        def run(arrays: list[Array]) -> list[Array]:
            fed = dict(zip(names, arrays, strict=False))  # fewer of them: an input is missing
            return list(session.session.run(None, fed))

        return list(arrays_of_sample.values()), run
    if target.format is Format.TFLITE:

        def invoke(arrays: list[Array]) -> list[Array]:
            session.interpreter.allocate_tensors()  # a refused call may have left it half set
            for detail, array in zip(session.input_details, arrays, strict=False):
                session.interpreter.set_tensor(detail["index"], array)
            session.interpreter.invoke()
            return [session.interpreter.get_tensor(d["index"]) for d in session.output_details]

        return list(arrays_of_sample), invoke

    def forward(arrays: list[Array]) -> list[Array]:
        import torch

        from workbench.model import flatten

        with torch.inference_mode():
            outputs = session.module(*(torch.from_numpy(a) for a in arrays))
        return [tensor.numpy() for _, tensor in flatten(outputs)]

    return [tensor.numpy() for tensor in arrays_of_sample], forward
