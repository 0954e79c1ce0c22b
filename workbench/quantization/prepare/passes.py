"""A float graph in the form that quantization works on: the same function, fewer operators.

Each rewrite is a small function that changes a model in place and returns how often, 0 where it
left the model as it was. It stands where the outputs for real inputs keep 90 dB, and is taken back
where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import StepError, first_line
from workbench.onnxgraph.view import Array, Given, Inputs, Target, inferred
from workbench.quantization.prepare.activations import hard_sigmoids, hard_swishes
from workbench.quantization.prepare.alignment import channels
from workbench.quantization.prepare.constants import (
    at_opset,
    constants,
    defaults,
    identities,
    inside,
    names,
)
from workbench.quantization.prepare.folding import (
    batch_norms,
    lone_batch_norms,
    plain_gemms,
    products_as_gemms,
    scales_and_shifts,
)
from workbench.quantization.prepare.shapes import shape_arithmetic
from workbench.quantization.prepare.spatial import changes_of_shape, pads, spatial_means
from workbench.quantization.prepare.trial import outputs, tried
from workbench.quantization.prepare.weights import own_weights, zero_biases

if TYPE_CHECKING:
    import onnx

Rewrite = Callable[["onnx.ModelProto", Given], int]

# The least SQNR between the rewritten graph's outputs and the file's, in dB: rounding in float32.
LEAST = 90.0

# What the notes call each rewrite, in the order in which they are done.
REWRITES: tuple[tuple[Rewrite, str], ...] = (
    (defaults, "weights that were inputs too made constants"),
    (names, "nodes named"),
    (constants, "constants made initializers"),
    (identities, "Identity, Dropout or idle Transpose removed"),
    (shape_arithmetic, "shapes made constants"),
    (hard_swishes, "hard-swish written for the target"),
    (hard_sigmoids, "hard sigmoid written for the target"),
    (products_as_gemms, "MatMul written as Gemm"),
    (plain_gemms, "alpha and beta folded into Gemm"),
    (own_weights, "shared weights copied for each node"),
    (zero_biases, "zero biases added"),
    (batch_norms, "BatchNormalization folded"),
    (scales_and_shifts, "Mul, Div, Add or Sub by constants folded"),
    (lone_batch_norms, "BatchNormalization after no convolution written as Mul and Add"),
    (pads, "Pad folded"),
    (spatial_means, "ReduceMean written as GlobalAveragePool"),
    (changes_of_shape, "Reshape, Flatten or Transpose merged with the next"),
    (names, "new nodes named"),
    (channels, "depthwise channels padded to a multiple of 16"),
)

QUANTIZED = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits",
    "QAttention", "QGemm", "GatherBlockQuantized",
)  # fmt: skip


@dataclass(frozen=True)
class PreparedModel:
    """The float graph to quantize, with the original's inputs, outputs and function.

    notes: for the user, what was rewritten and how often, and what was left.
    """

    model: onnx.ModelProto
    notes: tuple[str, ...]


def prepare_model(
    model: onnx.ModelProto, inputs: Inputs, *, target: Target = "ort"
) -> PreparedModel:
    """The model rewritten for quantization; `model` itself stays as it is.

    inputs: real ones [N, ...] by name, of which the first three are used. target: whose kernels
    will run the result.

    Raises StepError where the opset is below 13 and cannot be raised, and where ONNX Runtime does
    not run the model on these inputs.
    """
    model = type(model).FromString(model.SerializeToString())
    try:
        batches, expected = tried(model, inputs)
    except Exception as error:
        raise StepError(
            "ONNX Runtime cannot run the model on the given inputs", first_line(error)[:300],
            "give samples of the names, types and shapes that the model takes",
        ) from error  # fmt: skip
    raised, note = at_opset(model)
    notes = [note] if note else []
    if note:
        lost = _lost(raised.SerializeToString(), batches, expected)
        if lost:
            raise StepError(
                f"the model cannot be prepared for INT8: {note}, and then {lost}",
                "onnx's version converter does not keep this model's meaning",
                "export the model anew at opset 13 or higher",
            )
    model = raised
    given = Given(batches, target)
    del model.graph.value_info[:]
    stands = model.SerializeToString()
    for rewrite, words in REWRITES:
        count = rewrite(model, given)
        if not count:
            continue
        candidate = model.SerializeToString()
        lost = _lost(candidate, batches, expected)
        if lost:
            notes.append(f"left as it was: {words} ({count}), for then {lost}")
            model.ParseFromString(stands)
            continue
        stands = candidate
        notes.append(f"{count} {words}")
    outer = [f"{node.op_type} {node.name}" for node in model.graph.node if inside(node)]
    if outer:
        notes.append(f"left in float, with what is inside: {', '.join(outer)}")
    model.graph.value_info.extend(inferred(model))
    return PreparedModel(model, tuple(notes))


def already_quantized(model: onnx.ModelProto) -> str | None:
    """A model's quantized operators, `12 QLinearConv, 1 QGemm`; None where there are none."""
    from workbench.onnxgraph.rewrites import listed, operators

    found = operators(model.graph)
    for name in list(found):
        kind = name.split(":")[-1]
        if kind not in QUANTIZED and not kind.startswith("QLinear"):
            del found[name]
    return listed(found) or None


def _lost(model: bytes, batches: Sequence[Inputs], expected: list[Array]) -> str:
    """What a rewritten model no longer does as the original; '' if nothing."""
    from workbench import parity

    try:
        found = parity.compare(expected, outputs(model, batches))
    except Exception as error:  # noqa: BLE001 - whatever the runtime says, the rewrite is at fault
        return f"it does not run: {first_line(error)[:200]}"
    return "" if found.sqnr >= LEAST else f"the outputs keep {found.sqnr:.1f} dB alone"
