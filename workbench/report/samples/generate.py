"""Writing the samples of a run: templates filled with one artifact's own tensors.

Each runtime's calls are what its documentation shows: ONNX Runtime's C++ and Java API
(onnxruntime.ai/docs/api) and onnxruntime-objc's headers as Swift imports them; TensorFlow Lite's
C API (tensorflow/lite/c/c_api.h), `org.tensorflow.lite.Interpreter`, which LiteRT keeps, and
TensorFlowLiteSwift; libtorch's `torch/script.h` and `org.pytorch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.artifact import Format
from workbench.errors import first_line
from workbench.report.samples import escapes
from workbench.report.samples.tensors import SampleTensor, UnclearError, sample_tensors

if TYPE_CHECKING:
    from jinja2 import Environment

    from workbench.artifact import Artifact
    from workbench.dataset.facts import DatasetFacts
    from workbench.inspect.facts import Facts

FOLDER = "samples"
_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Language:
    """A language that samples are written in.

    Attributes:
        file: the name of a sample's file.
        escape: gives a text as a string literal.
    """

    file: str
    name: str
    escape: Callable[[str], str]


LANGUAGES = (
    Language("main.cpp", "C++", escapes.cpp),
    Language("Sample.kt", "Kotlin", escapes.kotlin),
    Language("Sample.swift", "Swift", escapes.swift),
)

_REAL = {"float32", "float64"}
_WHOLE = {"int8", "uint8", "int16", "int32", "int64"}
# What each API can be given and asked for, by template. onnxruntime-objc has no other types
# (ort_enums.h), TensorFlow Lite's and PyTorch's for Android neither.
TYPES = {
    ("ort", "C++"): _REAL | {"float16", "bool", "uint16", "uint32", "uint64"} | _WHOLE,
    ("ort", "Kotlin"): _REAL | {"float16", "bool"} | _WHOLE,
    ("ort", "Swift"): {"float32", "int8", "uint8", "int32", "uint32", "int64", "uint64"},
    ("tflite", "C++"): _REAL | {"bool", "uint32", "uint64"} | _WHOLE,
    ("tflite", "Kotlin"): {"float32", "bool", "int8", "uint8", "int32", "int64"},
    ("tflite", "Swift"): {"float32", "bool", "int8", "uint8", "int16", "int32", "int64"},
    ("torchscript", "C++"): _REAL | {"bool"} | _WHOLE,
    ("torchscript", "Kotlin"): _REAL | {"int8", "uint8", "int32", "int64"},
    ("torchscript", "Swift"): set(),
}  # fmt: skip
# The class of java.nio that ONNX Runtime's Java API takes an element type from.
BUFFERS = {
    "float32": "FloatBuffer", "float64": "DoubleBuffer", "float16": "ShortBuffer",
    "int8": "ByteBuffer", "uint8": "ByteBuffer", "bool": "ByteBuffer", "int16": "ShortBuffer",
    "int32": "IntBuffer", "int64": "LongBuffer",
}  # fmt: skip
_TEMPLATE = {Format.ONNX: "ort", Format.ORT: "ort", Format.TFLITE: "tflite",
             Format.TORCHSCRIPT: "torchscript"}  # fmt: skip


@dataclass(frozen=True)
class WrittenSamples:
    """An artifact's samples.

    Attributes:
        files: relative to the run folder.
        left_out: why a language has none, a sentence each.
    """

    files: tuple[str, ...]
    left_out: tuple[str, ...]


def write_all(
    run: Path, artifacts: Mapping[str, tuple[Artifact, Facts | None]], dataset: DatasetFacts
) -> dict[str, WrittenSamples]:
    """Write `samples/<artifact>/` for each artifact, by its file's name in the run folder.

    The files go below `run`; a README beside them says how they are built, and which could not be
    written.
    """
    environment = _environment()
    written = {}
    for name, (artifact, facts) in artifacts.items():
        written[name] = _write(run, name, artifact, facts, dataset, environment)
    if artifacts:
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        readme = environment.get_template("README.md.j2").render(
            dataset=dataset.name if dataset.raw else "",
            left_out={
                name: samples.left_out for name, samples in written.items() if samples.left_out
            },
        )
        (folder / "README.md").write_text(readme, encoding="utf-8")
    return written


def _write(
    run: Path,
    name: str,
    artifact: Artifact,
    facts: Facts | None,
    dataset: DatasetFacts,
    environment: Environment,
) -> WrittenSamples:
    kind = _TEMPLATE.get(artifact.format)
    if kind is None:
        return WrittenSamples((), (_no_runtime(artifact.format),))
    if facts is None:
        return WrittenSamples((), ("none: the file could not be read back",))
    try:
        inputs, outputs = sample_tensors(artifact, facts, dataset)
    except UnclearError as error:
        return WrittenSamples((), (f"none: {error}",))
    except Exception as error:  # noqa: BLE001 - a fault here must not cost what was made
        return WrittenSamples(
            (), (f"none: unexpected {type(error).__name__}: {first_line(error)}",)
        )
    files, left_out = [], []
    for language in LANGUAGES:
        why = _unsupported(kind, language, (*inputs, *outputs))
        if why:
            left_out.append(why)
            continue
        suffix = Path(language.file).suffix
        text = environment.get_template(f"{kind}{suffix}.j2").render(
            file=name, inputs=inputs, outputs=outputs, literal=language.escape,
            dataset=dataset.name if dataset.raw else "",
        )  # fmt: skip
        path = Path(FOLDER) / name / language.file
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(text, encoding="utf-8")
        files.append(path.as_posix())
    return WrittenSamples(tuple(files), tuple(left_out))


def _unsupported(kind: str, language: Language, tensors: tuple[SampleTensor, ...]) -> str:
    """Why there is no honest code for this file in a language; '' where there is."""
    supported = TYPES[kind, language.name]
    if not supported:
        return (
            f"{language.file}: libtorch has no Swift API; build main.cpp into an Objective-C++ "
            "class and call that from Swift"
        )
    unsupported = sorted({tensor.dtype for tensor in tensors} - supported)
    if unsupported:
        return f"{language.file}: the runtime's {language.name} API has no {', '.join(unsupported)}"
    return ""


def _no_runtime(form: Format) -> str:
    if form is Format.PT2:
        return (
            "none: PyTorch runs .pt2 programs in Python; convert them for ExecuTorch to ship them"
        )
    return f"none: there is no runtime for {form} files outside of Python"


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - code, not HTML: each language has its own escapes
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        line_statement_prefix=None,
    )
    environment.filters["comment"] = escapes.comment
    environment.filters["buffer"] = BUFFERS.__getitem__
    return environment
