"""Float16: half the bytes, weights and arithmetic in half precision where the runtime has it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from workbench.artifact import Artifact, Format
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Float16(Step):
    """FP32 ONNX to FP16 ONNX.

    keep_io: inputs and outputs stay float32, with a conversion inside the file. Weights beyond
    float16's range, and nodes whose values come near its end on samples, stay in float32. keep:
    operators to leave in float32 besides. least: SQNR in dB that the outputs must have against the
    FP32 file; rounding alone gives 50 and more.
    """

    keep_io: bool = True
    keep: tuple[str, ...] = ()
    least: Annotated[float, Between(0)] = 30.0

    name: ClassVar[str] = "float16"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    looks_at_data: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 3
    precision: ClassVar[str] = "float16"

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.float16.onnx`.

        Raises StepError where the file does not load, or where its outputs overflow or differ.
        """

        import onnx
        from onnxruntime.transformers.float16 import (
            DEFAULT_OP_BLOCK_LIST,
            convert_float_to_float16,
        )

        from workbench import parity
        from workbench.device.session import outputs_of
        from workbench.onnxgraph import float16, rewrites, signature

        if subject.precision != "float32":
            raise StepError(
                f"the file is {subject.precision}, not float32",
                "float16 of quantized weights would make them larger",
                "put Float16 in a branch of its own",
            )
        model = onnx.load(subject.path)
        rewrites.name_nodes(model.graph)
        rewrites.settle_constants(model.graph)
        context.progress(0.1, "looking for large values")
        examples = context.dataset.examples(8, context.seed)
        nodes, notes = self._beyond(model, subject, context, examples)
        context.progress(0.4, "converting")
        try:
            converted = convert_float_to_float16(
                model,
                keep_io_types=self.keep_io,
                op_block_list=[*DEFAULT_OP_BLOCK_LIST, *self.keep],
                node_block_list=nodes,
            )
        except Exception as error:
            raise StepError(
                "onnxruntime cannot convert the graph to float16",
                f"{type(error).__name__}: {first_line(error)}",
                "name the operator that it cannot convert: --set float16.keep=OPERATOR",
            ) from error
        float16.join_conversions(converted.graph)
        path = context.folder / "model.float16.onnx"
        onnx.save(converted, path)
        onnx.checker.check_model(path)
        inputs, outputs = signature.signature(converted, (*subject.inputs, *subject.outputs))
        kept = "float32" if self.keep_io else "float16"
        artifact = replace(
            subject,
            path=path,
            precision="float16",
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, f"{self.name} keep_io={str(self.keep_io).lower()}"),
            notes=(
                *subject.notes,
                f"{_share(converted.graph):.1f} % of the weights are float16; "
                f"{kept} inputs and outputs",
                *notes,
                *_arithmetic(context),
            ),
        )
        context.progress(0.6, "comparing with the FP32 file")
        expected, rounded = (outputs_of(file, examples) for file in (subject, artifact))
        agreement = parity.compare(expected, rounded)
        if not agreement.sqnr >= self.least:
            overflow = math.isinf(agreement.sqnr)
            raise StepError(
                "the float16 file gives NaN or Inf" if overflow else "float16 loses too much",
                "values inside the network go beyond 65504"
                if overflow
                else f"SQNR {agreement.sqnr:.1f} dB against the FP32 file, at least {self.least:g} "
                "expected",
                "leave the operators that need the range in float32: --set float16.keep=Pow,Exp",
            )
        return artifact

    def _beyond(
        self,
        model: onnx.ModelProto,
        subject: Artifact,
        context: Context,
        examples: Mapping[str, NDArray[Any]],
    ) -> tuple[list[str], list[str]]:
        """The names of the nodes that stay in float32 for their range, and what to say of it."""

        from workbench.onnxgraph import float16, walk

        weights, numbers = float16.large_weights(model.graph)
        values = float16.large_values(model, subject, context.folder, examples)
        ends = {value.name for value in (*model.graph.input, *model.graph.output)} & values
        if ends and not self.keep_io:
            raise StepError(
                f"{', '.join(sorted(ends))}: values near or beyond 65504, float16's largest",
                "an input or output of the file holds them",
                "--set float16.keep_io=true",
            )
        nodes = float16.around(model.graph, weights | values)
        notes = []
        if weights:
            notes.append(f"float32 for weights beyond 65504: {', '.join(sorted(weights))}")
        if values:
            kinds = Counter(node.op_type for node in nodes)
            notes.append(f"float32 for values near or beyond 65504: {walk.describe_counts(kinds)}")
        if numbers:
            clipped = ", ".join(f"{number:.3g}" for number in numbers)
            notes.append(f"clipped to 65504: {clipped}")
        return [node.name for node in nodes], notes


def _share(graph: onnx.GraphProto) -> float:
    """How much of the weights is float16, in percent of the elements."""

    import onnx

    from workbench.onnxgraph import walk

    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for inner in walk.graphs(graph):
        for tensor in inner.initializer:
            if tensor.data_type in sizes:
                sizes[tensor.data_type] += math.prod(tensor.dims)
    return 100 * sizes[onnx.TensorProto.FLOAT16] / max(1, sum(sizes.values()))


def _arithmetic(context: Context) -> tuple[str, ...]:
    if getattr(context.device, "provider", "cpu") != "cpu" or context.device.architecture == "arm":
        return ()
    return (
        "x86: ONNX Runtime computes most operators in float32, and writes the conversions for it "
        "into .ort files: for processors with float16 ship the .onnx",
    )
