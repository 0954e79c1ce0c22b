"""The formats table: where each artifact runs, how large and fast it is, and what it requires.

Sizes, speeds and requirements are the file's own. The words on portability are what the runtimes
document:

- ONNX Runtime reads every opset up to the newest of its release, and its release notes name that
  one (onnxruntime.ai/docs/reference/compatibility.html); `ORT` below has the first release of each.
- `.ort` files are read by the release that wrote them and by later ones, and reduced builds need
  the operators named beside them (onnxruntime.ai/docs/performance/model-optimizations/
  ort-format-models.html; docs/reference/operators/reduced-operator-config-file.html).
- TFLite files run in LiteRT, bundled with the app or from Google Play services; Flex operators
  need TensorFlow's (ai.google.dev/edge/litert; .../models/ops_select).
- TorchScript is run by libtorch; `.pt2` programs by PyTorch in Python (docs.pytorch.org).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.report import words

if TYPE_CHECKING:
    from workbench.inspect.facts import Facts
    from workbench.report.data import Block, Row

NOT_MEASURED = "not measured"

# The first ONNX Runtime release that implements an opset, and one that reads an IR version.
ORT_OPSET = {
    7: "1.0", 8: "1.0", 9: "1.0", 10: "1.0", 11: "1.0", 12: "1.3", 13: "1.7", 14: "1.8", 15: "1.9",
    16: "1.12", 17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23",
}  # fmt: skip
ORT_IR = {3: "1.0", 4: "1.0", 5: "1.0", 6: "1.3", 7: "1.7", 8: "1.12", 9: "1.15", 10: "1.18",
          11: "1.23"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One artifact. `speed` is against PyTorch eager, with its interval."""

    label: str
    file: str
    portability: str
    size: str
    speed: str
    requires: tuple[str, ...]


def entries(block: Block, versions: Mapping[str, str]) -> tuple[Entry, ...]:
    """An entry for every artifact of the run, failed rows without a file left out.

    versions: of the packages that made and ran the files.
    """
    return tuple(_entry(block, row, versions) for row in block.rows if row.path)


def _entry(block: Block, row: Row, versions: Mapping[str, str]) -> Entry:
    figures = block.figures[row.key]
    speed = words.faster(figures.than_eager) if figures.than_eager else NOT_MEASURED
    return Entry(
        label=row.label,
        file=row.path,
        portability=portability(row, versions),
        size=words.size(figures.bytes),
        speed=f"SLOWER {speed}" if words.slower(figures.than_eager) else speed,
        requires=tuple(requirements(row)),
    )


def portability(row: Row, versions: Mapping[str, str]) -> str:
    """Where the file runs."""
    if row.format == "onnx":
        return (
            f"ONNX Runtime {_onnx_runtime(row, versions)} on Android, iOS, Linux, macOS, Windows "
            "and in browsers; other ONNX runtimes that have its operators"
        )
    if row.format == "ort":
        wrote = versions.get("onnxruntime", "")
        return (
            f"ONNX Runtime {wrote or 'of the version that wrote it'} or newer, full or mobile "
            "packages; reduced builds made with the operators' configuration beside it"
        )
    if row.format == "tflite":
        return (
            "LiteRT (TensorFlow Lite) on Android, iOS, Linux, macOS and Windows, bundled or from "
            "Google Play services; XNNPACK on CPUs, other delegates where the phone has them"
        )
    if row.format == "torchscript":
        return (
            "libtorch or PyTorch without the model's classes, on servers and desktops; PyTorch "
            "Mobile, which gets no more releases, on Android"
        )
    if row.format == "pt2":
        return "PyTorch in Python, of the version that wrote it or newer; ExecuTorch once converted"
    return "the runtime that reads its format"


def _onnx_runtime(row: Row, versions: Mapping[str, str]) -> str:
    """The least version of ONNX Runtime, from the opset and the IR version in the file."""
    checks, ran = row.checks, versions.get("onnxruntime", "")
    if checks is not None and checks.facts is not None and not _own(checks.facts):
        opset, ir = ORT_OPSET.get(opset_of(checks.facts) or 0), ORT_IR.get(checks.ir)
        if opset and ir:
            return f"{max(opset, ir, key=_release)} or newer"
    return f"{ran}, which ran it here, or newer" if ran else "(version not measured)"


def _own(facts: Facts) -> bool:
    """Whether ONNX Runtime's own operators are in the file, which no opset dates."""
    return any(name.startswith("com.microsoft") for name in facts.operators)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def opset_of(facts: Facts) -> int | None:
    """The version of ONNX's own operator set, None in other formats."""
    return facts.opsets.get("ai.onnx", facts.opsets.get(""))


def requirements(row: Row) -> Iterator[str]:
    """What the file asks of a runtime and an app, read from the file itself."""
    checks = row.checks
    if checks is None or checks.facts is None:
        yield NOT_MEASURED
        return
    facts = checks.facts
    opset = opset_of(facts)
    if opset is not None and row.format == "onnx":
        yield f"opset {opset}" + (f", IR {checks.ir}" if checks.ir else "")
    yield from _operators(facts)
    yield from _tensors(facts)
    if row.head:
        yield f"{row.head} is in the file: its output is not the original's"
    if row.format == "ort":
        yield "of a reduced build, the operators in the .config file beside it"


def _operators(facts: Facts) -> Iterator[str]:
    """Operators that not every build of the runtime has."""
    domains: dict[str, list[str]] = {}
    for name in sorted(facts.operators):
        domain, colon, operator = name.rpartition(":")
        # PyTorch's own stand behind two colons: aten::conv2d, of which every build has all.
        if colon and not domain.endswith(":"):
            domains.setdefault(domain, []).append(operator)
    for domain, names in domains.items():
        if domain == "CUSTOM":  # TFLite's
            flex = [name for name in names if name.startswith("Flex")]
            own = [name for name in names if name not in flex]
            if flex:
                yield f"TensorFlow's operators (Flex): {few(flex)}"
            if own:
                yield f"custom operators: {few(own)}"
        else:
            yield f"{domain} operators: {few(names)}"


def _tensors(facts: Facts) -> Iterator[str]:
    """What inputs and outputs take and give, where it is not float32 of any batch."""
    for what, tensors in (("input", facts.inputs), ("output", facts.outputs)):
        kinds: dict[str, list[str]] = {}
        for tensor in tensors:
            kind = f"quantized {tensor.dtype}" if tensor.quantization else tensor.dtype
            kinds.setdefault(kind, []).append(tensor.name)
        for kind, names in kinds.items():
            if kind != "float32":
                which = "" if len(names) == len(tensors) else f" {few(names)}"
                yield f"{kind} {what}{'s' if len(names) > 1 else ''}{which}"
    fixed = [t.shape[0] for t in facts.inputs if t.ranked and t.shape and t.shape[0] is not None]
    if fixed:
        yield (
            "one sample at a time: its batch is fixed to 1"
            if fixed[0] == 1
            else (f"batches of {fixed[0]}")
        )
    if any(None in t.shape[1:] for t in facts.inputs if t.ranked):
        yield "axes open beside the batch, which NNAPI and CoreML do not take"


def few(names: list[str], most: int = 6) -> str:
    """Names in a line: each once, and how many there are beyond `most`."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - most} more" if len(unique) > most else ""
    return ", ".join(unique[:most]) + more
