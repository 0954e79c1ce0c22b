"""FixShapes: every axis a number, for runtimes without dynamic shapes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from workbench.artifact import Artifact, Format, TensorSpec, feed
from workbench.errors import StepError, first_line
from workbench.onnxgraph.ort_tools import tool
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    import onnx


MOST_NAMED = 5  # of the values whose shape stays unknown


@dataclass(frozen=True, kw_only=True)
class FixShapes(Step):
    """ONNX to an equal ONNX for one sample of the dataset's shape: NNAPI, CoreML, QNN want it.

    The batch becomes 1, every other open axis what the dataset's samples have there. rtol, atol:
    allowed difference of every output element on real samples.
    """

    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "fix_shapes"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 2

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.onnx`.

        Raises StepError where the file's shapes contradict the samples', or the outputs differ.
        """

        import onnx

        from workbench import parity
        from workbench.device.session import outputs_of
        from workbench.onnxgraph import signature

        utils = tool("onnx_model_utils")
        model = onnx.load(subject.path)
        samples = {spec.name: spec.shape for spec in context.dataset.inputs}
        stored = feed(subject.inputs, samples)
        shapes = {spec.stored_name: _fixed(spec, stored[spec.name]) for spec in subject.inputs}
        fixed = [
            f"{name} {'x'.join(map(str, shape))}"
            for name, shape in shapes.items()
            if list(shape) != _declared(model.graph, name)
        ]
        for spec in subject.inputs:
            shape = shapes[spec.stored_name]
            try:
                utils.make_input_shape_fixed(model.graph, spec.stored_name, list(shape))
            except ValueError as error:
                raise StepError(
                    f"input {spec} cannot become {'x'.join(map(str, shape))}",
                    first_line(error),
                    "check the dataset's shapes, or export with export.dynamic_batch=false",
                ) from error
        # What was inferred with open axes would stand in the way of numbers.
        del model.graph.value_info[:]
        utils.fix_output_shapes(model)
        model, unknown = _inferred(model)
        path = context.folder / "model.onnx"
        onnx.save(model, path)
        onnx.checker.check_model(path, full_check=False)
        inputs, outputs = signature.signature(model, (*subject.inputs, *subject.outputs))
        notes = [f"shapes fixed: {', '.join(fixed)}" if fixed else "its inputs were fixed already"]
        if unknown:
            more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
            notes.append(f"no static shape: {', '.join(unknown[:MOST_NAMED])}{more}")
        else:
            notes.append("every value has a static shape")
        artifact = replace(
            subject,
            path=path,
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, self.name),
            notes=(*subject.notes, *notes),
        )
        context.progress(0.6, "comparing on real samples")
        examples = context.dataset.examples(4, context.seed)
        expected, fixed_outputs = (
            outputs_of(file, examples, each=True) for file in (subject, artifact)
        )
        parity.check(self.name, expected, fixed_outputs, self.rtol, self.atol)
        return artifact


def _fixed(spec: TensorSpec, sample: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape that an input gets in the file: one sample, with its axes in the file's order.

    Raises StepError where the samples have another rank.
    """
    if len(sample) != len(spec.shape):
        raise StepError(
            f"input {spec} has {len(spec.shape)} axes, the samples have {len(sample)}",
            "",
            "check the dataset's shapes",
        )
    sizes = [1, *(size or 1 for size in sample[1:])] if sample else []
    return tuple(sizes[axis] for axis in spec.permutation) or tuple(sizes)


def _declared(graph: onnx.GraphProto, name: str) -> list[int | None]:
    value = next(value for value in graph.input if value.name == name)
    return [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]


def _inferred(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """The model with the shape of every value, and the names of those whose shape stays unknown.

    onnx's own inference first; where fused operators stop it, onnxruntime's symbolic one, which
    knows them and may give up on others.
    """
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    unknown = _unknown(inferred)
    if unknown:
        try:
            symbolic = tool("symbolic_shape_infer").SymbolicShapeInference
            other = symbolic.infer_shapes(inferred, auto_merge=True)
        except Exception:  # noqa: BLE001 - it asserts on what it does not know; then the first stands
            other = None
        if other is not None and len(_unknown(other)) < len(unknown):
            inferred, unknown = other, _unknown(other)
    return inferred, unknown


def _unknown(model: onnx.ModelProto) -> list[str]:
    """The values of the main graph without a number for every axis."""
    is_fixed_size_tensor = tool("onnx_model_utils").is_fixed_size_tensor
    graph = model.graph
    shaped = {
        value.name
        for value in (*graph.value_info, *graph.output, *graph.input)
        if is_fixed_size_tensor(value)
    }
    return [name for node in graph.node for name in node.output if name and name not in shaped]
