"""ToTorchScript: a torch module to an archive that runs without its Python code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from workbench.arrays import batch_size
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.errors import StepError, first_line
from workbench.options import Between, validate
from workbench.recipe import Context, Step

if TYPE_CHECKING:
    from workbench.model import Model


@dataclass(frozen=True, kw_only=True)
class ToTorchScript(Step):
    """PyTorch to TorchScript, which `torch.jit.load` and LibTorch run without the model's classes.

    method: `trace` records what runs for one input, `script` compiles the code; `auto` traces where
    the code decides nothing by the data, and scripts where it does or the trace proves wrong.
    freeze: make weights constants and fold what can be folded. rtol, atol: allowed difference of
    every output element, on other samples than were traced.
    """

    method: Literal["auto", "trace", "script"] = "auto"
    freeze: bool = True
    rtol: Annotated[float, Between(0, 1)] = 1e-3
    atol: Annotated[float, Between(0)] = 1e-5

    name: ClassVar[str] = "to_torchscript"
    takes: ClassVar[tuple[Format, ...]] = (Format.TORCH, Format.PT2)
    gives: ClassVar[Format] = Format.TORCHSCRIPT
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    seconds: ClassVar[float] = 3

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Model, context: Context) -> Artifact:
        """Write `model.pt`.

        Raises StepError where neither a trace nor a script gives the module's outputs.
        """

        from workbench.sources import tracing

        context.progress(0.05, "looking for decisions on data")
        places = tracing.data_dependent_lines(subject)
        failed: dict[str, str] = {}  # by method, what it failed of first
        if places:
            failed["trace"] = f"a trace keeps one way of {', '.join(places)} for all inputs"
        methods = self._methods(subject, places)
        # A file that takes any batch first, however it is made.
        for method, open_batch in [(m, True) for m in methods] + [(m, False) for m in methods]:
            context.progress(0.3, method)
            try:
                artifact = self._written(subject, context, method, open_batch=open_batch)
            except Exception as error:  # noqa: BLE001 - torch's compilers raise all kinds
                failed.setdefault(method, f"{method}: {_reason(error)}")
                continue
            notes = [*artifact.notes]
            if method == "script" and self.method == "auto" and "trace" in failed:
                notes[0] = f"scripted, not traced: {failed['trace']}"
            elif method == "trace" and places:
                notes.append(f"asked for, and UNSAFE: {failed['trace']}")
            if not open_batch:
                notes.append(f"takes one sample at a time, for with several: {failed[method]}")
            return replace(artifact, notes=tuple(notes))
        raise StepError(
            "the model cannot become TorchScript",
            "; ".join(failed.values()),
            "write decisions on data with torch.where, or so that torch.jit.script takes the code",
        )

    def _methods(self, subject: Model, places: tuple[str, ...]) -> tuple[str, ...]:
        import torch

        if isinstance(subject.module, torch.jit.ScriptModule):
            return ("script",)  # it is one: kept as it is
        if self.method != "auto":
            return (self.method,)
        return ("script",) if places else ("trace", "script")

    def _written(
        self, subject: Model, context: Context, method: str, *, open_batch: bool
    ) -> Artifact:
        """The archive in its file, checked. Raises whatever torch does, and StepError."""

        from workbench.sources import tracing

        with tracing.without_fast_path():
            module = _compiled(subject, method, 2 if open_batch else 1)
            notes = ["traced" if method == "trace" else "scripted"]
            if self.freeze:
                module, note = self._frozen(module, subject)
                notes.append(note)
            path = context.folder / "model.pt"
            module.save(str(path))
        inputs, outputs = _signature(subject, open_batch)
        artifact = Artifact(
            path=path,
            format=Format.TORCHSCRIPT,
            precision=_precision(subject),
            inputs=inputs,
            outputs=outputs,
            history=(f"{self.name} method={method}",),
            notes=tuple(notes),
        )
        context.progress(0.7, "comparing with PyTorch")
        self._check(subject, artifact, open_batch)
        return artifact

    def _frozen(self, module: Any, subject: Model) -> tuple[Any, str]:
        """The module frozen where freezing keeps its outputs, else as it is; and a note of it."""
        import torch

        from workbench import parity
        from workbench.model import flatten

        sample = {name: array[:1] for name, array in subject.example_inputs.items()}
        try:
            frozen = torch.jit.freeze(module.eval())
            with torch.inference_mode():
                results = frozen(*(torch.from_numpy(sample[name]) for name in subject.input_names))
            outputs = [tensor.numpy() for _, tensor in flatten(results)]
            parity.check("freeze", subject(sample), outputs, self.rtol, self.atol)
        except Exception as error:  # noqa: BLE001 - an archive that is not frozen is as right
            return module, f"not frozen: {_reason(error)}"
        return frozen, "frozen"

    def _check(self, subject: Model, artifact: Artifact, open_batch: bool) -> None:
        """The file's outputs on every example alone, and on several at once where it takes them."""
        from workbench import parity
        from workbench.device.session import infer, open_session

        session = open_session(artifact, threads=0)
        examples = subject.example_inputs
        count = batch_size(examples)
        slices = [slice(index, index + 1) for index in range(count)]
        if open_batch:
            slices.insert(0, slice(0, 3))
        for part in slices:
            some = {name: array[part] for name, array in examples.items()}
            parity.check(self.name, subject(some), infer(session, some), self.rtol, self.atol)


def _compiled(subject: Model, method: str, count: int) -> Any:
    """The module scripted, or traced with so many samples."""
    import torch

    if method == "script":
        return torch.jit.script(subject.module)
    inputs = (subject.example_inputs[name][:count] for name in subject.input_names)
    examples = tuple(torch.from_numpy(array) for array in inputs)
    with torch.no_grad():
        # Not strict: a dict of outputs is allowed. Checked here, on other inputs than these.
        trace: Any = torch.jit.trace
        return trace(subject.module, examples, check_trace=False, strict=False)


def _signature(
    subject: Model, open_batch: bool
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs; an axis that another number of samples changes is open."""
    examples = subject.example_inputs
    first, three = ({k: v[:n] for k, v in examples.items()} for n in (1, 3))
    batch = None if open_batch else 1
    inputs = tuple(
        TensorSpec(name=name, dtype=str(array.dtype), shape=(batch, *array.shape[1:]))
        for name, array in examples.items()
    )
    single = subject(first)
    several = subject(three) if open_batch else single
    outputs = tuple(
        TensorSpec(
            name=name,
            dtype=str(a.dtype),
            shape=tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)),
        )
        for name, a, b in zip(subject.output_names, single, several, strict=True)
    )
    return inputs, outputs


def _precision(subject: Model) -> str:
    tensors = (t for t in subject.module.state_dict().values() if t.is_floating_point())
    return next((str(tensor.dtype).removeprefix("torch.") for tensor in tensors), "float32")


def _reason(error: Exception) -> str:
    """An error in a line, short; the interpreter's has a page of code before what it was."""
    if isinstance(error, StepError):
        return f"{error.what}: {error.why}" if error.why else error.what
    lines = [line.strip() for line in str(error).splitlines() if "Error: " in line]
    return lines[-1][:200] if lines else f"{type(error).__name__}: {first_line(error)[:200]}"
