"""The ONNX graph as onnx2tf takes it: the same function in operators that TFLite has.

Each rewrite is small, and what it gives is compared with the file it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from workbench.errors import StepError, first_line
from workbench.onnxgraph.rewrites import name_nodes, rename_tensors
from workbench.onnxgraph.session import run_samples
from workbench.tflite.attention_masks import bounded_masks
from workbench.tflite.branches import both_branches
from workbench.tflite.gelu import native_gelu
from workbench.tflite.lowering import (
    LEAST,
    Inputs,
    Rewritten,
    counts_apart,
    embeddings,
    fixed_shapes,
    layer_norms,
    products,
    settled,
    simplified,
    tokens,
)
from workbench.tflite.pool_padding import padded_pools
from workbench.tflite.unrolled_rnn import unrolled

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
Rewrite = Callable[["onnx.ModelProto", Inputs], Rewritten]


def prepare_graph(
    path: Path, inputs: Inputs, wide: bool = False
) -> tuple[onnx.ModelProto, list[Array], list[str]]:
    """The file's graph for a batch of 1, its outputs for `inputs` [N, …], and what was rewritten.

    wide: for activations of 16 bits.

    Raises StepError where a rewrite fails or changes the outputs, and for operators that have no
    counterpart.
    """
    import onnx

    from workbench import parity

    model = onnx.load(path)
    try:
        expected = run_samples(model, inputs)
    except Exception as error:
        raise StepError(
            "ONNX Runtime cannot run the file on the dataset's samples", first_line(error),
            "give samples of the shapes that the model takes",
        ) from error  # fmt: skip
    notes = []
    for rewrite in REWRITES:
        if rewrite is embeddings and not wide:
            continue
        name = rewrite.__name__.replace("_", " ")
        try:
            model, note = rewrite(model, inputs)
        except StepError:
            raise
        except Exception as error:
            raise StepError(
                f"the graph cannot be prepared for TFLite ({name})",
                f"{type(error).__name__}: {first_line(error)}",
                "the branches for ONNX Runtime stand",
            ) from error
        rewritten = run_samples(model, inputs)
        parity.check_sqnr(f"prepared for TFLite ({name})", expected, rewritten, LEAST)
        if note:
            notes.append(note)
    _refuse(model)
    return model, expected, notes


def name_plainly(model: onnx.ModelProto, inputs: Inputs) -> None:
    """Inputs and outputs as `wb_input_0`, `wb_output_0` …: onnx2tf and Keras change other names.

    The inputs get the order that they are given in, the nodes names that may be TensorFlow's.
    """
    import onnx

    name_nodes(model.graph)
    for node in model.graph.node:
        node.name = re.sub(r"[^A-Za-z0-9./]", "_", node.name).lstrip("._/") or node.op_type
    name_nodes(model.graph)

    inputs_by_name = {value.name: value.SerializeToString() for value in model.graph.input}
    copies = [onnx.ValueInfoProto.FromString(inputs_by_name[name]) for name in inputs]
    del model.graph.input[:]
    model.graph.input.extend(copies)
    for side in ("input", "output"):
        for number, value in enumerate(getattr(model.graph, side)):
            new = f"wb_{side}_{number}"
            rename_tensors(model.graph, {value.name: new})
            value.name = new


def _refuse(model: onnx.ModelProto) -> None:
    """Operators known to have no counterpart, before anything is tried with them."""
    reasons = {"Erf": "TFLite has Erf only within Gelu", "Loop": "loops", "Scan": "loops"}
    for node in model.graph.node:
        if node.op_type in reasons:
            raise StepError(
                f"operator {node.op_type} ({node.name}) has no TFLite counterpart",
                reasons[node.op_type],
                "the branches for ONNX Runtime take it",
            )


REWRITES: tuple[Rewrite, ...] = (
    fixed_shapes, both_branches, simplified, settled, unrolled, native_gelu, products,
    embeddings, layer_norms, padded_pools, tokens, bounded_masks, simplified, counts_apart,
)  # fmt: skip
