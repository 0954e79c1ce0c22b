"""Export: a torch module to ONNX at a mobile-compatible opset, checked against the module."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from workbench.arrays import batch_size
from workbench.artifact import Artifact, Format
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.recipe import Context, Step
from workbench.sources import torchscript

if TYPE_CHECKING:
    from workbench.model import Model

# From here on torch.export's exporter writes what it is asked for; below, it silently writes 18.
DYNAMO_FROM = 18
# The other exporter, the one that takes scripts, writes no higher opset.
SCRIPTED_UP_TO = 20


@dataclass(frozen=True, kw_only=True)
class Export(Step):
    """PyTorch to ONNX. The file's opset is read back, and its outputs compared with the module's.

    opset: of the default operator set. dynamic_batch: leave the first axis open. rtol, atol:
    allowed difference of every output element, |difference| <= atol + rtol * |expected|; atol of
    outputs whose largest is 1, and in proportion of larger ones.
    """

    opset: Annotated[int, Between(13, 21)] = 17
    dynamic_batch: bool = True
    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "export"
    takes: ClassVar[tuple[Format, ...]] = (Format.TORCH, Format.PT2)
    gives: ClassVar[Format] = Format.ONNX
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 3

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Model, context: Context) -> Artifact:
        """Write `model.onnx`. Raises StepError where torch cannot export, or outputs differ.

        A trace keeps one way through the code. Where the data decides, or the trace's outputs are
        wrong, the module is compiled as a script instead, which keeps both ways as If and Loop.
        """

        from workbench.sources import tracing

        context.progress(0.05, "looking for decisions on data")
        subject = torchscript.to_python_module(subject)
        places = tracing.data_dependent_lines(subject) or torchscript.tracing_obstacles(subject)
        context.progress(0.1, f"opset {self.opset}")
        if places:
            return self._of_decisions(subject, context, places)
        artifact = self._made(subject, context)
        try:
            self._check(subject, artifact, context)
        except StepError:
            if self.opset > SCRIPTED_UP_TO:
                raise
            with contextlib.suppress(StepError):  # the trace's error says more of the model
                artifact = self._made(subject, context, "a trace's outputs are wrong")
                self._check(subject, artifact, context)
                return artifact
            raise
        return artifact

    def _of_decisions(self, subject: Model, context: Context, places: tuple[str, ...]) -> Artifact:
        """Export a module whose code decides by its data at some places: as a script, or not."""
        what = f"the model decides by its data at {places[0]}"
        if self.opset >= DYNAMO_FROM:
            # This exporter refuses what it would lose, and takes torch.cond for what it is.
            with contextlib.suppress(StepError):
                artifact = self._made(subject, context)
                self._check(subject, artifact, context)
                return artifact
        if self.opset > SCRIPTED_UP_TO:
            raise StepError(
                what,
                f"from opset {SCRIPTED_UP_TO + 1} on torch exports no script, to keep both ways",
                f"--set export.opset={SCRIPTED_UP_TO} or lower, or write it with torch.where",
            )
        try:
            artifact = self._made(subject, context, what)
            self._check(subject, artifact, context)
        except StepError as error:
            why = f"{error.what}: {error.why}" if error.why else error.what
            raise StepError(
                f"the model decides by its data at {', '.join(places)}",
                f"a trace would keep one way for all inputs, and as a script: {why}",
                "write the decision with torch.where, or so that torch.jit.script takes it",
            ) from error
        return artifact

    def _made(self, subject: Model, context: Context, scripted: str = "") -> Artifact:
        """Export, and read back. scripted: why it goes as a script, empty for a trace."""
        import onnx

        from workbench.onnxgraph import signature

        path = context.folder / "model.onnx"
        try:
            self._export(subject, path, scripted=bool(scripted))
            model = onnx.load(path)
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            path.unlink(missing_ok=True)
            raise StepError(
                f"PyTorch cannot export the model at opset {self.opset}",
                f"{type(error).__name__}: {_reason(error)}",
                "try --set export.opset=18 (another exporter) or export.dynamic_batch=false",
            ) from error
        written = signature.opset(model)
        if written != self.opset:
            raise StepError(
                f"the exporter wrote opset {written}, not {self.opset}",
                "the model has operators that this exporter cannot write at that opset",
                f"ask for it: --set export.opset={max(written, DYNAMO_FROM)}",
            )
        inputs, outputs = signature.signature(model)
        notes = [f"opset {written}"]
        if scripted:
            notes.append(f"scripted, not traced: {scripted}")
        if self.dynamic_batch and not self._open_batch(subject):
            notes.append("the batch is fixed to 1: the model takes one sample at a time")
        return Artifact(
            path=path,
            format=Format.ONNX,
            precision="float32",
            inputs=inputs,
            outputs=outputs,
            history=(f"{self.name} opset={self.opset}",),
            notes=tuple(notes),
        )

    def _check(self, subject: Model, artifact: Artifact, context: Context) -> None:
        """The outputs of every example alone, and of several at once where the batch is open."""
        from workbench import parity
        from workbench.device.session import infer, open_session

        context.progress(0.7, "comparing with PyTorch")
        session = open_session(artifact, threads=0)
        examples = subject.example_inputs
        count = batch_size(examples)
        slices = [slice(index, index + 1) for index in range(count)]
        if self._open_batch(subject):
            slices.insert(1, slice(0, 3))
        for part in slices:
            some = {name: array[part] for name, array in examples.items()}
            try:
                outputs = infer(session, some)
            except Exception as error:
                raise StepError(
                    f"the exported file does not run with {part.stop - part.start} samples",
                    _reason(error),
                    "--set export.dynamic_batch=false fixes the batch to 1",
                ) from error
            parity.check("export", subject(some), outputs, self.rtol, self.atol)

    def _open_batch(self, subject: Model) -> bool:
        """Whether the file is to take any number of samples: not where the model takes but one."""
        return self.dynamic_batch and subject.batch is None

    def _export(self, subject: Model, path: Path, *, scripted: bool) -> None:
        import torch

        # Two samples where the batch is open: torch.export takes a size of 1 for a constant.
        open_batch = self._open_batch(subject)
        count = 2 if open_batch else 1
        names = list(subject.input_names)
        examples = tuple(torch.from_numpy(subject.example_inputs[name][:count]) for name in names)
        options: dict[str, Any] = {
            "opset_version": self.opset,
            "input_names": names,
            "output_names": list(subject.output_names),
        }
        if self.opset >= DYNAMO_FROM and not scripted:
            if open_batch:
                batch = torch.export.Dim("batch", min=1)
                options["dynamic_shapes"] = tuple({0: batch} for _ in examples)
            options |= {"dynamo": True, "external_data": False, "verbose": False}
        else:
            if open_batch:
                every = [*names, *subject.output_names]
                options["dynamic_axes"] = {name: {0: "batch"} for name in every}
            options["dynamo"] = False
        # nn.TransformerEncoder's fused fast path has no ONNX counterpart; its plain path does.
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.inference_mode(False), torch.no_grad():
                module = torchscript.to_script(subject.module) if scripted else subject.module
                torch.onnx.export(module, examples, str(path), **options)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _reason(error: Exception) -> str:
    """The first line of a message, short."""
    return first_line(error)[:300] or "no message"
