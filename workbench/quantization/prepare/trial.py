"""A graph run on real inputs: what a rewrite must not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.onnxgraph.session import working_session
from workbench.onnxgraph.view import Array, Inputs

if TYPE_CHECKING:
    import onnx

# The batches on which a rewrite is tried where the model takes any. A single sample shows what was
# made for one alone, and two sizes above it what was made for either.
SIZES = (1, 3)


def batches(model: onnx.ModelProto, inputs: Inputs) -> list[dict[str, Array]]:
    """Inputs for the runs of a trial: the first samples, as many as the model takes at once.

    Of a model that takes any number, batches of 1 and of 3; samples come again where they are few.
    """
    fixed = {
        value.type.tensor_type.shape.dim[0].dim_value
        for value in model.graph.input
        if value.name in inputs and value.type.tensor_type.shape.dim
    } - {0}
    sizes = (max(fixed),) if fixed else SIZES
    return [
        {name: array[np.arange(size) % len(array)] for name, array in inputs.items()}
        for size in sizes
    ]


def run_graph(
    model: onnx.ModelProto | bytes, batches: Sequence[Inputs], wanted: Sequence[str] | None = None
) -> list[list[Array]]:
    """By batch, a model's outputs or the tensors `wanted`, in ONNX Runtime as the graph is."""
    found = _session(model, wanted or ())
    names = list(wanted) if wanted is not None else None
    return [found.run(names, dict(batch)) for batch in batches]


def outputs(model: onnx.ModelProto | bytes, batches: Sequence[Inputs]) -> list[Array]:
    """A model's outputs for each batch, one after the other."""
    return [array for found in run_graph(model, batches) for array in found]


def tried(model: onnx.ModelProto, inputs: Inputs) -> tuple[list[dict[str, Array]], list[Array]]:
    """The batches that a model runs with, and its outputs for them.

    Raises what the runtime raises where it does not even run with the first.
    """
    some = batches(model, inputs)
    session = _session(model, ())
    found = list(session.run(None, some[0]))
    for number, batch in enumerate(some[1:], 1):
        try:
            found += session.run(None, batch)
        except Exception:  # noqa: BLE001 - it takes no more samples at once than that
            return some[:number], found
    return some, found


def _session(model: onnx.ModelProto | bytes, wanted: Sequence[str]) -> Any:
    import onnx

    if wanted and not isinstance(model, bytes):
        names = {value.name for value in model.graph.output}
        opened = type(model).FromString(model.SerializeToString())
        opened.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in wanted if name not in names
        )
        model = opened
    # As it is written: the runtime's own rewrites would hide what ours do, and take longer.
    return working_session(model, optimized=False)
