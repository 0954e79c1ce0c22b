"""Whether a trace can stand for a module: what its Python code reads from tensors, and where.

A trace keeps the operations that ran, and takes every value that Python read from a tensor (in an
`if`, with `int()` or `.item()`) for a constant. That is right as long as the value is the same for
all inputs, and torch's TracerWarning cannot tell: it also warns of every look at a shape.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.arrays import split_samples

if TYPE_CHECKING:
    from workbench.model import Model

Inputs = Mapping[str, NDArray[Any]]

# Tensor methods and functions that give Python a value.
_READS = {
    "__bool__", "__int__", "__float__", "__index__", "__contains__", "__complex__", "item",
    "tolist", "numpy", "__array__", "is_nonzero", "equal", "allclose",
}  # fmt: skip
_LONGEST = 60  # of a quoted line of code


def data_dependent_lines(model: Model) -> tuple[str, ...]:
    """The places in the user's code, `net.py:42 (if x.mean() > 0:)`, that read other values from
    tensors for other inputs: where a trace would keep what one input gave.

    Without such a place a trace is as good as the checks of its outputs. A module that reads at all
    runs on each example alone and on made-up inputs like them; and where it reads other values, it
    is traced with each too: code may know that it is traced, and go a way that holds for all.
    """
    variants = list(_variants(model.example_inputs))
    if not _reads(model, variants[0], traced=False):
        return ()  # nor can other inputs lead it another way
    return _varying(model, variants, traced=False) and _varying(model, variants, traced=True)


def _varying(model: Model, variants: list[Inputs], *, traced: bool) -> tuple[str, ...]:
    """The places that read other values for other inputs."""
    runs = []
    for inputs in variants:
        try:
            runs.append(_reads(model, inputs, traced=traced))
        except Exception:  # noqa: BLE001, S112 - made-up inputs may be ones that the model refuses
            continue
    lines = dict.fromkeys(line for run in runs for line, _ in run)
    values = {line: {tuple(v for p, v in run if p == line) for run in runs} for line in lines}
    return tuple(line for line in lines if len(values[line]) > 1)


def _reads(model: Model, inputs: Inputs, *, traced: bool) -> list[tuple[str, str]]:
    """What Python reads from tensors while the module runs, or is traced: places and values.

    Of a module that cannot be traced, what it reads as it runs.
    """
    import torch

    tensors = tuple(torch.from_numpy(inputs[name]) for name in model.input_names)
    trace: Any = torch.jit.trace
    seen: list[tuple[str, str]] = []
    with without_fast_path(), torch.inference_mode(False), torch.no_grad():
        if traced:
            try:
                with _reading(seen):
                    trace(model.module, tensors, check_trace=False, strict=False)
                return seen
            except Exception:  # noqa: BLE001 - why it cannot, its own step says
                seen.clear()
        with _reading(seen):
            model.module(*tensors)
    return seen


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Quietly, and without nn.TransformerEncoder's fast path, which a trace would take for all."""
    import torch

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _variants(examples: Inputs) -> Iterator[Inputs]:
    """Each example alone, then the first negated, made large, and zero.

    Integers, which may be indices, are turned around instead, and zeros and ones swapped.
    """
    yield from split_samples(examples)
    for factor in (-1, 10, 0):
        yield {name: _turned(array[:1], factor) for name, array in examples.items()}


def _turned(array: NDArray[Any], factor: int) -> NDArray[Any]:
    if array.dtype.kind == "f":
        return (array * factor).astype(array.dtype)
    if factor < 0 and np.isin(array, (0, 1)).all():
        return (1 - array).astype(array.dtype)
    return np.ascontiguousarray(array[..., ::-1]) if array.ndim > 1 else array


def _reading(seen: list[tuple[str, str]]) -> Any:
    from torch.overrides import TorchFunctionMode

    class RecordingReads(TorchFunctionMode):
        """Notes every value that Python gets from a tensor."""

        def __torch_function__(
            self, function: Any, _types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = function(*args, **(kwargs or {}))
            if getattr(function, "__name__", "") in _READS:
                seen.append((_user_line(), _plain(result)))
            return result

    return RecordingReads()


def _plain(value: Any) -> str:
    """A value that can be compared and hashed."""
    return value.tobytes().hex() if isinstance(value, np.ndarray) else repr(value)


def _user_line() -> str:
    """The innermost line of code outside torch and this file, with its text."""
    import torch

    ours = (str(Path(torch.__file__).parent), __file__)
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(ours):
        frame = frame.f_back
    if frame.f_globals.get("__name__") == "workbench.sources.interpreter":
        from workbench.sources.interpreter import source_line

        return source_line(frame)
    path, line = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(path, line).strip()
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return f"{Path(path).name}:{line}" + (f" ({shown})" if shown else "")
