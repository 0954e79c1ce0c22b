"""ToOrt: ONNX to ONNX Runtime's mobile format, with the operators that a reduced build needs."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from workbench.artifact import Artifact, Format
from workbench.errors import StepError
from workbench.onnxgraph.ort_tools import tool
from workbench.options import validate
from workbench.recipe import Context, Step


@dataclass(frozen=True, kw_only=True)
class ToOrt(Step):
    """ONNX to `.ort`, with `required_operators.config` beside it.

    style: `fixed` saves the graph fully optimized; `runtime` saves what execution providers such
    as NNAPI and CoreML can still take, and optimizes when it is loaded. target_platform: `arm`
    or `amd64` chooses optimizations that this platform alone has.
    """

    style: Literal["fixed", "runtime"] = "fixed"
    target_platform: Literal["arm", "amd64"] | None = None
    type_reduction: bool = False

    name: ClassVar[str] = "to_ort"
    takes: ClassVar[tuple[Format, ...]] = (Format.ONNX,)
    gives: ClassVar[Format] = Format.ORT
    needs_data: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")
    seconds: ClassVar[float] = 2

    def __post_init__(self) -> None:
        validate(self)

    def run(self, subject: Artifact, context: Context) -> Artifact:
        """Write `<name>.ort` and its operators' config.

        Raises StepError where the converter fails, or the file's outputs differ from its input's.
        """
        from workbench import parity
        from workbench.device.session import infer, open_session

        converter = tool("convert_onnx_models_to_ort")
        # The converter writes beside its input too, so it gets a copy in a folder of its own.
        source = context.folder / "source" / subject.path.name
        source.parent.mkdir()
        shutil.copyfile(subject.path, source)
        try:
            converter.convert_onnx_models_to_ort(
                source,
                output_dir=context.folder,
                optimization_styles=[converter.OptimizationStyle[self.style.capitalize()]],
                target_platform=self.target_platform,
                enable_type_reduction=self.type_reduction,
            )
        except Exception as error:
            raise StepError("ONNX Runtime cannot convert the model to .ort", str(error)) from error
        context.progress(0.5, "comparing with the ONNX file")
        files = sorted(context.folder.glob("*.ort"))
        configs = sorted(context.folder.glob("*.config"))
        if not files or not configs:
            raise StepError("the converter wrote no .ort file, or no operators' config")
        path = files[0].rename(context.folder / f"{subject.path.stem}.ort")
        kind = "required_operators_and_types" if self.type_reduction else "required_operators"
        config = configs[0].rename(context.folder / f"{kind}.config")
        # The converter names its input by the path of a folder that is gone.
        text = config.read_text(encoding="utf-8").replace(f"{context.folder.resolve()}/", "")
        config.write_text(text, encoding="utf-8")
        usability = (*self._layout(text, context), *_usability(source))
        shutil.rmtree(source.parent)
        artifact = replace(
            subject,
            path=path,
            format=Format.ORT,
            companions=(config,),
            history=(*subject.history, f"{self.name} style={self.style}"),
            notes=(*subject.notes, *usability),
        )
        examples = context.dataset.examples(4, context.seed)
        before = infer(open_session(subject, threads=0), examples)
        after = infer(open_session(artifact, threads=0), examples)
        if subject.precision == "float32":
            parity.check(self.name, before, after, rtol=1e-3, atol=1e-5)
        else:
            # Fused differently, a sum may round to the next step; more than that is wrong.
            parity.check_sqnr(self.name, before, after, least=30)
        return artifact

    def _layout(self, operators: str, context: Context) -> tuple[str, ...]:
        """What float convolutions lose on x86, said there. operators: the file's, as config."""
        floats = re.search(r"\b(Fused)?Conv\b", operators)
        if self.target_platform == "amd64" or context.device.architecture != "x86" or not floats:
            return ()
        return (
            "on x86 ONNX Runtime lays float convolutions out in blocks (NCHWc), which a file for "
            "phones cannot hold: here they run slower than in the ONNX file, on ARM they do not; "
            "for x86 set to_ort.target_platform=amd64",
        )


def _usability(path: Path) -> tuple[str, ...]:
    """What onnxruntime's checker says of NNAPI and CoreML: a line for each of their forms."""
    import onnx

    from workbench.inspect import mobile

    try:
        verdicts = mobile.verdicts(onnx.load(path))
    except Exception as error:  # noqa: BLE001 - a checker that fails must not cost the artifact
        return (f"NNAPI and CoreML not checked: {type(error).__name__}",)
    return tuple(f"{provider}: {verdict}" for provider, verdict in verdicts.items())
