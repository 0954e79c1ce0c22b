"""A float graph in the form that quantization works on: the same function, fewer operators.

Each rewrite is a small function that changes a model in place and returns how often, 0 where it
left the model as it was. It stands where the outputs for real inputs keep 90 dB, and is taken back
where they do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import StepError, first_line
from workbench.onnxgraph.rewrites import copy_model
from workbench.onnxgraph.shapes import infer_values
from workbench.onnxgraph.view import Array, Inputs, RewriteContext, Target
from workbench.onnxgraph.walk import bodies
from workbench.quantization.prepare.activations import rewrite_hard_sigmoid, rewrite_hard_swish
from workbench.quantization.prepare.alignment import align_for_target
from workbench.quantization.prepare.constants import (
    fold_constants,
    name_all_nodes,
    raise_opset,
    remove_default_inputs,
    remove_identities,
)
from workbench.quantization.prepare.folding import (
    fold_batch_norms,
    fold_gemm_factors,
    fold_scales_and_shifts,
    matmul_to_gemm,
    split_lone_batch_norms,
)
from workbench.quantization.prepare.graph_runs import run_graph, run_reference
from workbench.quantization.prepare.node_rewrites import Rewrite
from workbench.quantization.prepare.shapes import fold_shape_arithmetic
from workbench.quantization.prepare.spatial import (
    fold_pads,
    mean_to_global_pool,
    merge_shape_changes,
)
from workbench.quantization.prepare.weights import add_zero_biases, copy_shared_weights

if TYPE_CHECKING:
    import onnx

# The least SQNR between the rewritten graph's outputs and the file's, in dB: rounding in float32.
LEAST = 90.0

# What the notes call each rewrite, in the order in which they are done.
REWRITES: tuple[tuple[Rewrite, str], ...] = (
    (remove_default_inputs, "weights that were inputs too made constants"),
    (name_all_nodes, "nodes named"),
    (fold_constants, "constants made initializers"),
    (remove_identities, "Identity, Dropout or idle Transpose removed"),
    (fold_shape_arithmetic, "shapes made constants"),
    (rewrite_hard_swish, "hard-swish written for the target"),
    (rewrite_hard_sigmoid, "hard sigmoid written for the target"),
    (matmul_to_gemm, "MatMul written as Gemm"),
    (fold_gemm_factors, "alpha and beta folded into Gemm"),
    (copy_shared_weights, "shared weights copied for each node"),
    (add_zero_biases, "zero biases added"),
    (fold_batch_norms, "BatchNormalization folded"),
    (fold_scales_and_shifts, "Mul, Div, Add or Sub by constants folded"),
    (split_lone_batch_norms, "BatchNormalization after no convolution written as Mul and Add"),
    (fold_pads, "Pad folded"),
    (mean_to_global_pool, "ReduceMean written as GlobalAveragePool"),
    (merge_shape_changes, "Reshape, Flatten or Transpose merged with the next"),
    (name_all_nodes, "new nodes named"),
    (align_for_target, "depthwise channels padded to a multiple of 16"),
)

QUANTIZED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits",
    "QAttention", "QGemm", "GatherBlockQuantized",
)  # fmt: skip


@dataclass(frozen=True)
class PreparedModel:
    """The float graph to quantize, with the original's inputs, outputs and function.

    Attributes:
        notes: for the user, what was rewritten and how often, and what was left.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...]


def prepare_model(
    model: onnx.ModelProto, inputs: Inputs, *, target: Target = "ort"
) -> PreparedModel:
    """The model rewritten for quantization; `model` itself stays as it is.

    Raises StepError where the opset is below 13 and cannot be raised, and where ONNX Runtime does
    not run the model on these inputs.

    Args:
        inputs: real ones [N, ...] by name, of which the first three are used.
        target: whose kernels will run the result.
    """
    model = copy_model(model)
    try:
        batches, expected = run_reference(model, inputs)
    except Exception as error:
        raise StepError(
            "ONNX Runtime cannot run the model on the given inputs", first_line(error)[:300],
            "give samples of the names, types and shapes that the model takes",
        ) from error  # fmt: skip
    model, note = raise_opset(model)
    notes = [note] if note else []
    if note and (loss := _describe_loss(model.SerializeToString(), batches, expected)):
        raise StepError(
            f"the model cannot be prepared for INT8: {note}, and then {loss}",
            "onnx's version converter does not keep this model's meaning",
            "export the model anew at opset 13 or higher",
        )
    context = RewriteContext(batches, target)
    del model.graph.value_info[:]
    accepted = model.SerializeToString()
    for rewrite, words in REWRITES:
        count = rewrite(model, context)
        if not count:
            continue
        candidate = model.SerializeToString()
        if loss := _describe_loss(candidate, batches, expected):
            notes.append(f"left as it was: {words} ({count}), for then {loss}")
            model.ParseFromString(accepted)
            continue
        accepted = candidate
        notes.append(f"{count} {words}")
    outer = [f"{node.op_type} {node.name}" for node in model.graph.node if bodies(node)]
    if outer:
        notes.append(f"left in float, with what is inside: {', '.join(outer)}")
    model.graph.value_info.extend(infer_values(model))
    return PreparedModel(model, tuple(notes))


def already_quantized(model: onnx.ModelProto) -> str | None:
    """A model's quantized operators, `12 QLinearConv, 1 QGemm`; None where there are none."""
    from workbench.onnxgraph.walk import describe_counts, operators

    counts = operators(model.graph)
    for name in list(counts):
        operator = name.split(":")[-1]
        if operator not in QUANTIZED and not operator.startswith("QLinear"):
            del counts[name]
    return describe_counts(counts) or None


def _describe_loss(model: bytes, batches: Sequence[Inputs], expected: list[Array]) -> str:
    """What a rewritten model no longer does as the original; '' if nothing."""
    from workbench import parity

    try:
        outputs = [output for batch in run_graph(model, batches) for output in batch]
        sqnr = parity.compare(expected, outputs).sqnr
    except Exception as error:  # noqa: BLE001 - whatever the runtime says, the rewrite is at fault
        return f"it does not run: {first_line(error)[:200]}"
    return "" if sqnr >= LEAST else f"the outputs keep {sqnr:.1f} dB alone"
