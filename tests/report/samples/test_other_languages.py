"""The Kotlin and Swift samples: parsed whole, and the Kotlin ones compiled where that can be."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import toolchains
from tests.report.samples import cases
from tests.report.samples.test_cpp import NAMES, strange
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.dataset.facts import DatasetFacts
from workbench.inspect import Facts, Tensor
from workbench.report import samples

KINDS = ("int64", "int32", "int8", "uint8", "bool", "float32", "int64")

tree_sitter = pytest.importorskip("tree_sitter", reason="tree-sitter is not installed")


def made(
    folder: Path,
    form: Format,
    inputs: list[tuple[TensorSpec, Tensor]],
    output: Tensor,
    **data: Any,
) -> Path:
    """Samples of an artifact with these inputs as model and file have them, and one output."""
    path = folder / f"model.{form}"
    artifact = Artifact(
        path=path, format=form, precision="float32", inputs=tuple(spec for spec, _ in inputs),
        outputs=(TensorSpec(name="output", dtype="float32", shape=(1, 10), stored=output.name),),
    )  # fmt: skip
    facts = Facts(
        path=path, format=form, bytes=1, sha256="", inputs=tuple(tensor for _, tensor in inputs),
        outputs=(output,), opsets={}, operators={}, parameters=1, macs=1, precision="", takes={},
    )  # fmt: skip
    dataset = DatasetFacts(name="photos", inputs=tuple(spec for spec, _ in inputs), **data)
    written = samples.write_all(folder, {path.name: (artifact, facts)}, dataset)
    assert not written[path.name].left_out or form is Format.TORCHSCRIPT
    return folder / "samples" / path.name


def image(form: Format, dtype: str, quantization: tuple[float, int] | None) -> tuple:
    """An image input: NCHW in the model, NHWC in a TFLite file."""
    if form is not Format.TFLITE:
        spec = TensorSpec(name="image", dtype="float32", shape=(None, 3, 32, 24))
        return spec, Tensor(name="image", dtype=dtype, shape=(None, 3, 32, 24))
    spec = TensorSpec(
        name="image", dtype="float32", shape=(None, 3, 32, 24), stored="serving_default_image:0",
        permutation=(0, 2, 3, 1),
    )  # fmt: skip
    return spec, Tensor(name=spec.stored, dtype=dtype, shape=(1, 32, 24, 3),
                        quantization=quantization)  # fmt: skip


def folders(place: Path) -> Iterator[Path]:
    """Samples of every runtime: of images, of a quantized file, of tensors with strange names."""
    described = cases.described(cases.photos())
    photos = {"preprocess": described.preprocess, "raw": described.raw}
    quantized = (0.0123, -3)
    plain = Tensor(name="out", dtype="float32", shape=(1, 10))
    for number, (form, dtype, pair, output) in enumerate((
        (Format.ONNX, "float32", None, plain),
        (Format.TFLITE, "float32", None, plain),
        (Format.TFLITE, "int8", quantized, Tensor(name="out", dtype="int8", shape=(1, 10),
                                                  quantization=quantized)),
        (Format.TFLITE, "uint8", quantized, Tensor(name="out", dtype="uint8", shape=(1, 10),
                                                   quantization=quantized)),
        (Format.TORCHSCRIPT, "float32", None, plain),
    )):  # fmt: skip
        folder = place / str(number)
        folder.mkdir()
        yield made(folder, form, [image(form, dtype, pair)], output, **photos)
    artifact = strange(place / "strange.onnx")
    given = [TensorSpec(name=s.name, dtype=s.dtype, shape=(None, 2, 5)) for s in artifact.inputs]
    yield cases.written(place / "strange", artifact, cases.as_given(*given))
    ids = [
        (TensorSpec(name=name, dtype=dtype, shape=(None, None), stored=f"{name}:0"),
         Tensor(name=f"{name}:0", dtype=dtype, shape=(None, None)))
        for name, dtype in zip(NAMES, KINDS, strict=True)
    ]  # fmt: skip
    folder = place / "ids"
    folder.mkdir()
    yield made(folder, Format.TFLITE, ids, plain)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(folders(tmp_path_factory.mktemp("samples")))


def mistakes(text: str, language: object) -> list[str]:
    """The lines where a parser of the language finds no sense."""
    parser = tree_sitter.Parser(tree_sitter.Language(language))
    tree = parser.parse(text.encode())
    lines, found, nodes = text.splitlines(), [], [tree.root_node]
    while nodes:
        node = nodes.pop()
        if node.is_error or node.is_missing:
            found.append(lines[node.start_point[0]])
        nodes += node.children
    return found


def test_kotlin_parses(written: list[Path]):
    grammar = pytest.importorskip("tree_sitter_kotlin")
    assert mistakes("fun f( { }", grammar.language())
    for folder in written:
        assert not mistakes((folder / "Sample.kt").read_text(), grammar.language()), folder


def test_swift_parses(written: list[Path]):
    grammar = pytest.importorskip("tree_sitter_swift")
    assert mistakes("func f( { }", grammar.language())
    parsed = [folder / "Sample.swift" for folder in written if (folder / "Sample.swift").is_file()]
    assert len(parsed) >= 5
    for path in parsed:
        assert not mistakes(path.read_text(), grammar.language()), path


@pytest.mark.process
def test_kotlin_compiles_against_onnx_runtime(written: list[Path], tmp_path: Path):
    compiler, classes = toolchains.compiler("kotlinc"), toolchains.classes()
    sources = [
        f / "Sample.kt" for f in written if "ai.onnxruntime" in (f / "Sample.kt").read_text()
    ]
    assert sources
    for number, source in enumerate(sources):
        command = [compiler, str(source), "-cp", str(classes), "-d", str(tmp_path / str(number))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
