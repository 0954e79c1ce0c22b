"""Export: a torch module to ONNX at a mobile-compatible opset, checked against the module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from workbench.artifact import Artifact, Format
from workbench.errors import StepError, first_line
from workbench.options import Between, validate

if TYPE_CHECKING:
    from workbench.model import Model
    from workbench.recipe import Context

# From here on torch.export's exporter writes what it is asked for; below, it silently writes 18.
DYNAMO_FROM = 18


@dataclass(frozen=True, kw_only=True)
class Export:
    """PyTorch to ONNX. The file's opset is read back, and its outputs compared with the module's.

    opset: of the default operator set. dynamic_batch: leave the first axis open. rtol, atol:
    allowed difference of every output element, |difference| <= atol + rtol * |expected|.
    """

    opset: Annotated[int, Between(13, 21)] = 17
    dynamic_batch: bool = True
    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "export"
    takes: ClassVar[tuple[Format, ...]] = (Format.TORCH,)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 3

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Model, context: Context) -> Artifact:
        """Write `model.onnx`. Raises StepError where torch cannot export, or outputs differ."""
        import onnx

        from workbench import graph
        from workbench.device.runner import infer, open_session
        from workbench.measure import parity

        path = context.folder / "model.onnx"
        context.progress(0.1, f"opset {self.opset}")
        try:
            self._export(subject, path)
        except StepError:
            raise
        except Exception as error:
            raise StepError(
                f"PyTorch cannot export the model at opset {self.opset}",
                f"{type(error).__name__}: {_reason(error)}",
                "try --set export.opset=18 (another exporter) or export.dynamic_batch=false",
            ) from error
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        written = graph.opset(model)
        if written != self.opset:
            raise StepError(
                f"the exporter wrote opset {written}, not {self.opset}",
                "the model has operators that this exporter cannot write at that opset",
                f"ask for it: --set export.opset={max(written, DYNAMO_FROM)}",
            )
        inputs, outputs = graph.signature(model)
        artifact = Artifact(
            path=path,
            format=Format.ONNX,
            precision="float32",
            inputs=inputs,
            outputs=outputs,
            history=(f"{self.name} opset={self.opset}",),
            notes=(f"opset {written}",),
        )
        context.progress(0.7, "comparing with PyTorch")
        session = open_session(artifact, threads=0)
        for count in (1, 3) if self.dynamic_batch else (1,):
            some = {name: array[:count] for name, array in subject.example_inputs.items()}
            try:
                found = infer(session, some)
            except Exception as error:
                raise StepError(
                    f"the exported file does not run with {count} samples",
                    _reason(error),
                    "--set export.dynamic_batch=false fixes the batch to 1",
                ) from error
            parity.check("export", subject(some), found, self.rtol, self.atol)
        return artifact

    def _export(self, subject: Model, path: Path) -> None:
        import torch

        # Two samples where the batch is open: torch.export takes a size of 1 for a constant.
        count = 2 if self.dynamic_batch else 1
        names = list(subject.input_names)
        given = tuple(torch.from_numpy(subject.example_inputs[name][:count]) for name in names)
        options: dict[str, Any] = {
            "opset_version": self.opset,
            "input_names": names,
            "output_names": list(subject.output_names),
        }
        if self.opset >= DYNAMO_FROM:
            if self.dynamic_batch:
                batch = torch.export.Dim("batch", min=1)
                options["dynamic_shapes"] = tuple({0: batch} for _ in given)
            options |= {"dynamo": True, "external_data": False, "verbose": False}
        else:
            if self.dynamic_batch:
                every = [*names, *subject.output_names]
                options["dynamic_axes"] = {name: {0: "batch"} for name in every}
            options["dynamo"] = False
        # nn.TransformerEncoder's fused fast path has no ONNX counterpart; its plain path does.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.inference_mode(False), torch.no_grad():
                torch.onnx.export(subject.module, given, str(path), **options)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _reason(error: Exception) -> str:
    """The first line of a message, short."""
    return first_line(error)[:300] or "no message"
