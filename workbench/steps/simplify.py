"""Simplify: constants folded and dead nodes removed by onnxsim, checked on real samples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from workbench.artifact import Artifact, Format
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.recipe import Context, Step


@dataclass(frozen=True, kw_only=True)
class Simplify(Step):
    """ONNX to a smaller, equal ONNX.

    rtol, atol: allowed difference of every output element on real samples. onnxsim's own `ok` is
    not asked: with its default of no checks it is always true.
    """

    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "simplify"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxsim", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 2

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `model.onnx`. Raises StepError where onnxsim fails or the outputs differ."""
        import onnx
        import onnxsim

        from workbench import parity
        from workbench.device.session import infer, open_session
        from workbench.onnxgraph import signature

        model = onnx.load(subject.path)
        before = sum(signature.operators(model).values())
        try:
            simplified, _ = onnxsim.simplify(model)
        except Exception as error:
            raise StepError(
                "onnxsim cannot simplify the graph",
                first_line(error),
                "leave Simplify out: 'wb new' copies a recipe for editing",
            ) from error
        after = sum(signature.operators(simplified).values())
        path = context.folder / "model.onnx"
        onnx.save(simplified, path)
        onnx.checker.check_model(path, full_check=True)
        inputs, outputs = signature.signature(simplified, (*subject.inputs, *subject.outputs))
        artifact = replace(
            subject,
            path=path,
            inputs=inputs,
            outputs=outputs,
            companions=(),
            history=(*subject.history, self.name),
            notes=(*subject.notes, f"{before} nodes simplified to {after}"),
        )
        context.progress(0.7, "comparing on real samples")
        examples = context.dataset.examples(4, context.seed)
        parity.check(
            self.name,
            infer(open_session(subject, threads=0), examples),
            infer(open_session(artifact, threads=0), examples),
            self.rtol,
            self.atol,
        )
        return artifact
