"""QuantizeDynamic: INT8 weights, activations quantized as they come; for transformers, RNNs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from workbench.artifact import Artifact, Format, stored_inputs
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.quantization.dynamic.operators import INTEGER_KERNELS, WEIGHT_INPUTS
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx

    from workbench.quantization.search.budget_search import BudgetResult

# Below LEAST dB the file counts as wrongly converted: weights that a quantizer mixed up gave 0 dB
# and less, and noise of a third of the signal is no rounding. Between it and GOOD (cosine 0.98) the
# loss is an honest one, for the table to show, and the notes say it.
LEAST, GOOD = 5.0, 14.0

PER_AXIS = 13  # the opset from which DequantizeLinear takes a scale for each row


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(Step):
    """FP32 ONNX to dynamic INT8: MatMul, Gemm, LSTM and Attention in integers, no calibration.

    Never Conv: ONNX Runtime's dynamic one is 20 to 40 times slower than float. GRU and embedding
    tables (`embeddings`) have no integer kernel; their weights are stored in INT8 and computed with
    in float. per_channel: one weight scale for each output channel; on a BERT-like encoder it takes
    nothing in speed and gains 1 to 3 dB. weights: their type; `auto` is `s8`, which runs twice as
    fast as `u8` on x86 with VNNI, and with 7 bits on x86 without it, where 8 saturate. smallest:
    weights of fewer elements stay float; below 4096 INT8 was slower for any number of rows.
    exclude: names of nodes to leave alone. max_drop: points of top-1 (of agreement with FP32 where
    there are no labels) that may be lost; layers go back to float, those with most noise first,
    until it holds on evaluation samples. Ranges of weights are not clipped: at 8 bits with a scale
    for each channel that gains nothing (docs/quantization.md).
    """

    per_channel: bool = True
    weights: Literal["auto", "s8", "u8"] = "auto"
    embeddings: bool = True
    smallest: Annotated[int, Between(0)] = 4096
    exclude: tuple[str, ...] = ()
    max_drop: Annotated[float, Between(0, 100)] | None = None

    name: ClassVar[str] = "quantize_dynamic"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 5
    precision: ClassVar[str] = "dynamic-int8"

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.dynamic-int8.onnx`.

        Raises StepError where there is nothing to quantize, or the outputs show that the file was
        converted wrongly.
        """

        import onnx

        from workbench.onnxgraph import rewrites, signature, walk
        from workbench.quantization.dynamic import weight_only
        from workbench.quantization.float_copy import keep_float

        model = onnx.load(subject.path)
        if signature.opset(model) < PER_AXIS:
            raise StepError(
                f"the file is of opset {signature.opset(model)}, dynamic INT8 needs {PER_AXIS}",
                "below it there is no scale for each row of a weight",
                f"export it at opset {PER_AXIS} or higher",
            )
        kinds = walk.operators(model.graph)
        rewrites.name_nodes(model.graph)
        _check_names(self.exclude, model.graph)
        rewrites.settle_constants(model.graph)
        rewrites.products_of_gemms(model.graph)
        whole = _elements(model.graph)
        chosen = self._chosen(model.graph)
        tables = (
            weight_only.embeddings_to_int8(model.graph, self.smallest, self.exclude)
            if self.embeddings
            else []
        )
        if not chosen and not tables:
            raise _nothing(kinds, self.smallest)
        context.progress(0.2, f"{len(chosen)} nodes")
        path = context.folder / "model.dynamic-int8.onnx"
        held: tuple[str, ...] = ()
        if self.max_drop is not None:
            held_budget = self._within(model, chosen, subject, context)
            if held_budget.candidate is None:
                path.unlink(missing_ok=True)
                return keep_float(subject, context, held_budget.notes)
            floats = held_budget.candidate
            chosen = {name: kind for name, kind in chosen.items() if name not in floats}
            held = held_budget.notes
        scheme = self._quantize(model, chosen, path, context)
        written = onnx.load(path)
        inputs, outputs = signature.signature(written, (*subject.inputs, *subject.outputs))
        artifact = replace(
            subject,
            path=path,
            precision="dynamic-int8",
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, f"{self.name} {scheme}"),
            notes=(
                *subject.notes,
                *held,
                *self._notes(written.graph, chosen, tables, whole, scheme),
            ),
        )
        context.progress(0.8, "comparing with the FP32 file")
        return replace(artifact, notes=(*artifact.notes, *_checked(artifact, subject, context)))

    def _within(
        self, model: onnx.ModelProto, chosen: dict[str, str], subject: Artifact, context: Context
    ) -> BudgetResult[tuple[str, ...]]:
        """The layers that a budget leaves in float."""
        import onnx

        from workbench.quantization.dynamic import budget

        path = context.folder / "tried.onnx"

        def written(some: dict[str, str]) -> onnx.ModelProto:
            fresh = onnx.ModelProto()
            fresh.CopyFrom(model)
            self._quantize(fresh, some, path, context)
            return onnx.load(path)

        samples = stored_inputs(subject.inputs, context.dataset.examples(budget.SAMPLES))
        ladder = budget.DynamicLadder(model, chosen, written, samples)
        try:
            assert self.max_drop is not None
            return budget.hold_budget(ladder, subject, context, self.max_drop)
        finally:
            path.unlink(missing_ok=True)

    def _chosen(self, graph: onnx.GraphProto) -> dict[str, str]:
        """The nodes to quantize, name to operator: constant weights, and enough of them."""

        from workbench.onnxgraph import walk
        from workbench.onnxgraph.rewrites import Weights

        weights = Weights(graph)
        ranks = {"MatMul": 2, "Attention": 2, "LSTM": 3, "GRU": 3}
        kinds = {}
        for node in graph.node:
            if node.op_type not in ranks or node.name in self.exclude:
                continue
            attributes = walk.attributes(node)
            arrays = [weights.get(node.input[position]) for position in WEIGHT_INPUTS[node.op_type]]
            if any(a is None or a.ndim != ranks[node.op_type] or a.dtype != "float32"
                   for a in arrays):  # fmt: skip
                continue
            # What onnxruntime's quantizer would drop without a word.
            dropped = {
                "MatMul": False,
                "LSTM": attributes.get("layout", 0) != 0,
                "GRU": False,
                "Attention": node.domain != "com.microsoft" or "qkv_hidden_sizes" in attributes
                or any(node.input[5:]),
            }[node.op_type]  # fmt: skip
            if not dropped and sum(a.size for a in arrays if a is not None) >= self.smallest:
                kinds[node.name] = node.op_type
        return kinds

    def _quantize(
        self, model: onnx.ModelProto, chosen: dict[str, str], path: Path, context: Context
    ) -> str:
        """Write the quantized model; the weights' type in words."""

        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        from workbench.onnxgraph import rewrites
        from workbench.quantization.dynamic import weight_only

        signed = self.weights != "u8"
        reduced = signed and context.device.quantization == "u8s8-reduced"
        rewrites.unshare(model.graph, {name: WEIGHT_INPUTS[kind] for name, kind in chosen.items()})
        gru = {name for name, kind in chosen.items() if kind == "GRU"}
        weight_only.grus_to_int8(model.graph, gru)
        others = {name: kind for name, kind in chosen.items() if kind in INTEGER_KERNELS}
        if others:
            prepared = context.folder / "prepared.onnx"
            onnx.save(model, prepared)
            try:
                quantize_dynamic(
                    prepared,
                    path,
                    op_types_to_quantize=sorted(set(others.values())),
                    nodes_to_quantize=sorted(others),
                    per_channel=self.per_channel,
                    reduce_range=reduced,
                    weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
                    # Shape inference does not know the types that fused operators give.
                    extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
                )
            except Exception as error:
                raise StepError(
                    "onnxruntime cannot quantize the graph",
                    f"{type(error).__name__}: {first_line(error)}",
                    "leave nodes out: --set quantize_dynamic.exclude=NAME,NAME",
                ) from error
            prepared.unlink()
            model = onnx.load(path)
        rewrites.share(model.graph)
        onnx.save(model, path)
        return f"{'s8' if signed else 'u8'}{'-reduced' if reduced else ''} weights"

    def _notes(
        self, graph: onnx.GraphProto, chosen: dict[str, str], tables: list[int], whole: int,
        scheme: str,
    ) -> tuple[str, ...]:  # fmt: skip
        from workbench.onnxgraph import walk

        stored = sum(
            math.prod(tensor.dims)
            for tensor in graph.initializer
            if tensor.data_type in (2, 3)  # UINT8, INT8
        )
        kinds = Counter(kind for kind in chosen.values() if kind in INTEGER_KERNELS)
        notes = [f"{scheme}{', per channel' if self.per_channel else ''}, ranges of activations "
                 "taken at run time"]  # fmt: skip
        if kinds:
            notes.append(f"in integers: {walk.describe_counts(kinds)}")
        only = Counter(kind for kind in chosen.values() if kind == "GRU")
        if tables:
            only["embedding table"] = len(tables)
        if only:
            notes.append(f"weights INT8, computed in float: {walk.describe_counts(only)}")
        notes.append(f"{100 * stored / max(stored, whole):.1f} % of the weights are INT8")
        return tuple(notes)


def _check_names(exclude: tuple[str, ...], graph: onnx.GraphProto) -> None:
    names = {node.name for node in graph.node}
    if unknown := [name for name in exclude if name not in names]:
        from workbench.errors import did_you_mean

        raise StepError(
            f"there is no node '{unknown[0]}' to leave alone", "", did_you_mean(unknown[0], names)
        )


def _elements(graph: onnx.GraphProto) -> int:
    """How many weights there are, in elements of float initializers."""
    return sum(math.prod(tensor.dims) for tensor in graph.initializer if tensor.data_type == 1)


def _nothing(kinds: Counter[str], smallest: int) -> StepError:
    from workbench.onnxgraph import walk

    convolutions = kinds["Conv"] + kinds["ConvTranspose"]
    return StepError(
        "there is nothing that dynamic INT8 makes smaller and not slower",
        "it takes MatMul, Gemm, LSTM, GRU, Attention and embedding tables with constant weights of "
        f"at least {smallest} elements; the graph has {walk.describe_counts(kinds)}",
        "convolutional networks want static INT8: mobile-int8"
        if convolutions
        else "use mobile-float16, or lower quantize_dynamic.smallest",
    )


def _checked(artifact: Artifact, subject: Artifact, context: Context) -> tuple[str, ...]:
    """Compare with the float file, sample by sample as an app runs it; what a user should know."""

    from workbench import parity
    from workbench.device.session import outputs_of

    examples = context.dataset.examples(8, context.seed)
    expected, outputs = (outputs_of(file, examples, each=True) for file in (subject, artifact))
    agreement = parity.check_sqnr(QuantizeDynamic.name, expected, outputs, LEAST)
    if agreement.sqnr < GOOD:
        return (f"loses much: SQNR {agreement.sqnr:.1f} dB against the FP32 file",)
    return ()
