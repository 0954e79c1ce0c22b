"""Attention masks of an ONNX graph in a range that 8 bits can hold beside the scores'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workbench.onnxgraph.rewrites import Weights, copy_model
from workbench.onnxgraph.session import run_samples
from workbench.onnxgraph.walk import producers
from workbench.tflite.lowering import LEAST, Inputs, Rewritten

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]

# A constant at or below it, added to what a Softmax takes, is a mask.
MASKING = -1000.0
# exp(-20) is 2e-9: beside the largest score, beyond float32's rounding.
ENOUGH = 20.0

# Operators that a mask goes through as it is.
MOVING = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Identity", "Concat", "Slice")


def bounded_masks(model: onnx.ModelProto, inputs: Inputs) -> Rewritten:
    """Attention masks' -10000, or -inf, as no more than it takes to make a weight nothing.

    With the mask's range, 8 bits leave nothing of the scores that it is added to. Left as it is
    where the outputs show a difference.
    """
    from workbench import parity

    bounds = dict(_bounds(model, inputs))
    if not bounds:
        return model, ""
    changed = copy_model(model)
    weights = Weights(changed.graph)
    least = min(bounds.values())
    for node in changed.graph.node:
        for index, name in enumerate(node.input):
            if name in bounds and node.op_type in ("Mul", "Where", "Add"):
                array = weights.get(name)
                assert array is not None
                node.input[index] = weights.add(f"{name}_bounded", np.maximum(array, least))
    before, after = run_samples(model, inputs), run_samples(changed, inputs)
    if not parity.compare(before, after).sqnr >= LEAST:
        return model, ""
    return changed, f"attention masks bounded at {least:.0f}, for the range of their scores"


def _bounds(model: onnx.ModelProto, inputs: Inputs) -> Iterator[tuple[str, float]]:
    """Constants that masks are made of, with what is enough in their place."""
    makers = producers(model.graph.node)
    weights = Weights(model.graph)
    pairs = []
    for node in model.graph.node:
        summed = makers.get(node.input[0]) if node.op_type == "Softmax" else None
        if summed is not None and summed.op_type == "Add":
            for mask, scores in (summed.input, reversed(summed.input)):
                pairs += [(name, scores) for name in _masking(mask, makers, weights)]
        elif summed is not None and summed.op_type == "Where":
            for mask, scores in (summed.input[1:], reversed(summed.input[1:])):
                pairs += [(mask, scores)] if _masks(weights.get(mask)) else []
    score_names = sorted({scores for _, scores in pairs if scores in makers})
    ranges = (
        dict(zip(score_names, _values(model, score_names, inputs), strict=True))
        if score_names
        else {}
    )
    for name, scores in pairs:
        if scores in ranges:
            span = float(np.ptp(ranges[scores]))
            yield name, min(-ENOUGH - span, float(ranges[scores].min()) - ENOUGH)


def _masking(name: str, makers: Mapping[str, onnx.NodeProto], weights: Weights) -> Iterator[str]:
    """Constants of large negative values that a tensor is, or is made with."""
    node = makers.get(name)
    if node is None:
        if _masks(weights.get(name)):
            yield name
    elif node.op_type in MOVING:
        for source in node.input:
            yield from _masking(source, makers, weights)
    elif node.op_type in ("Mul", "Where"):
        yield from (source for source in node.input if _masks(weights.get(source)))


def _masks(array: Array | None) -> bool:
    floats = array is not None and array.dtype.kind == "f" and array.size > 0
    return floats and array is not None and bool(array.min() <= MASKING)


def _values(model: onnx.ModelProto, names: list[str], inputs: Inputs) -> list[Array]:
    """Tensors inside a model, for real inputs."""
    import onnx

    opened = copy_model(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run_samples(opened, inputs)
