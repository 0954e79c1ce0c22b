"""A graph run on real inputs: what a rewrite must not change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workbench.onnxgraph.rewrites import expose
from workbench.onnxgraph.session import working_session
from workbench.onnxgraph.view import Array, Inputs

if TYPE_CHECKING:
    import onnx

# The batches on which a rewrite is tried where the model takes any. A single sample shows what was
# made for one alone, and two sizes above it what was made for either.
SIZES = (1, 3)


def choose_batches(model: onnx.ModelProto, inputs: Inputs) -> list[dict[str, Array]]:
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
    model: onnx.ModelProto | bytes, batches: Sequence[Inputs], tensors: Sequence[str] | None = None
) -> list[list[Array]]:
    """By batch, a model's outputs or some of its `tensors`, in ONNX Runtime as the graph is.

    As it is written: the runtime's own rewrites would hide what ours do, and take longer.
    """
    if tensors is not None and not isinstance(model, bytes):
        model = expose(model, tensors)
    session = working_session(model, optimized=False)
    names = None if tensors is None else list(tensors)
    return [session.run(names, dict(batch)) for batch in batches]


def run_reference(
    model: onnx.ModelProto, inputs: Inputs
) -> tuple[list[dict[str, Array]], list[Array]]:
    """The batches that a model runs with, and its outputs for them, one batch after the other.

    Raises what the runtime raises where it does not even run with the first.
    """
    batches = choose_batches(model, inputs)
    session = working_session(model, optimized=False)
    outputs: list[Array] = []
    for number, batch in enumerate(batches):
        try:
            outputs += session.run(None, batch)
        except Exception:
            if number == 0:
                raise
            return batches[:number], outputs  # it takes no more samples at once than that
    return batches, outputs
