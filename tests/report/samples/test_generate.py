"""What is written for which artifact, and why for others nothing is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.report.samples import cases
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.inspect import Facts, Tensor
from workbench.report import samples


def made(
    form: Format, dtype: str = "float32", name: str = "x", stored: str = ""
) -> tuple[Artifact, Facts]:
    spec = TensorSpec(name=name, dtype=dtype, shape=(None, 8), stored=stored)
    path = Path(f"/nowhere/model.{form}")
    artifact = Artifact(path=path, format=form, precision="float32", inputs=(spec,),
                        outputs=(spec,))  # fmt: skip
    tensor = Tensor(name=spec.stored_name, dtype=dtype, shape=(None, 8))
    facts = Facts(
        path=path, format=form, bytes=1, sha256="", inputs=(tensor,), outputs=(tensor,),
        opsets={}, operators={}, parameters=1, macs=1, precision="", takes={},
    )  # fmt: skip
    return artifact, facts


def write(folder: Path, artifact: Artifact, facts: Facts | None, **data: Any) -> Any:
    dataset = replace(cases.as_given(*artifact.inputs), **data)
    return samples.write_all(folder, {"m": (artifact, facts)}, dataset)["m"]


@pytest.mark.parametrize("form", [Format.ONNX, Format.ORT, Format.TFLITE])
def test_three_languages(tmp_path: Path, form: Format):
    written = write(tmp_path, *made(form))
    names = ("main.cpp", "Sample.kt", "Sample.swift")
    assert written.files == tuple(f"samples/m/{name}" for name in names)
    assert not written.left_out
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")) == sorted(
        [*written.files, "samples/README.md"]
    )
    assert "Left out" not in (tmp_path / "samples/README.md").read_text()


def test_swift_has_no_float16_and_no_torch(tmp_path: Path):
    half = write(tmp_path / "half", *made(Format.ONNX, "float16"))
    assert [Path(path).name for path in half.files] == ["main.cpp", "Sample.kt"]
    assert "Sample.swift: the runtime's Swift API has no float16" in half.left_out
    torch = write(tmp_path / "torch", *made(Format.TORCHSCRIPT))
    assert [Path(path).name for path in torch.files] == ["main.cpp", "Sample.kt"]
    readme = (tmp_path / "torch/samples/README.md").read_text()
    assert "- `m`: Sample.swift: libtorch has no Swift API" in readme


@pytest.mark.parametrize(
    ("form", "dtype", "name", "why"),
    [
        (Format.PT2, "float32", "x", "ExecuTorch"),
        (Format.ONNX, "float32", "a\0b", "NUL"),
        (Format.ONNX, "complex64", "x", "complex64"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, form: Format, dtype: str, name: str, why: str
):
    written = write(tmp_path, *made(form, dtype, name))
    assert written.files == ()
    assert all(why in reason for reason in written.left_out)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["README.md"]


def test_a_file_that_was_not_read_back_has_no_samples(tmp_path: Path):
    written = write(tmp_path, made(Format.ONNX)[0], None)
    assert written.left_out == ("none: the file could not be read back",)


def test_two_tensors_of_one_name_are_no_guess(tmp_path: Path):
    artifact, facts = made(Format.TFLITE)
    twice = Facts(**{**vars(facts), "inputs": facts.inputs * 2})
    assert "several tensors called 'x'" in write(tmp_path, artifact, twice).left_out[0]


def test_the_file_has_the_last_word_on_types_and_names(tmp_path: Path):
    """A canonical float32 that the file keeps as int8, under a name of the converter's."""
    artifact, facts = made(Format.TFLITE, "float32", "image", "serving_default_image:0")
    tensor = Tensor(
        name="serving_default_image:0", dtype="int8", shape=(1, 8), quantization=(0.5, -3)
    )
    kept = Facts(**{**vars(facts), "inputs": (tensor,)})
    write(tmp_path, artifact, kept)
    text = (tmp_path / "samples/m/main.cpp").read_text()
    assert '// input "serving_default_image:0": int8 [1, 8]' in text
    assert '//   the model\'s "image"' in text
    assert "//   stands for (q - -3) * 0.5" in text
    assert "quantized<int8_t>(value, 0.5, -3)" in text


def test_preprocessing_is_written_out_with_what_comes_before(tmp_path: Path):
    spec = TensorSpec(name="image", dtype="float32", shape=(None, 3, 32, 24))
    artifact, facts = made(Format.ONNX)
    tensor = Tensor(name="image", dtype="float32", shape=(None, 3, 32, 24))
    artifact = Artifact(**{**vars(artifact), "inputs": (spec,)})
    facts = Facts(**{**vars(facts), "inputs": (tensor,)})
    data = cases.described(cases.photos())
    assert data.preprocess is not None
    preprocess = replace(data.preprocess, resize=40, crop=32, channels="BGR")
    data = replace(data, preprocess=preprocess)
    samples.write_all(tmp_path, {"m": (artifact, facts)}, data)
    for name in ("main.cpp", "Sample.kt", "Sample.swift"):
        text = (tmp_path / "samples/m" / name).read_text()
        assert "resize its shorter side to 40 pixels, bilinear; then cut out" in text
        assert "3 channels a pixel (BGR)" in text
        assert "value /= 255.0" in text
        assert "0.485, 0.456, 0.406" in text
        assert "0.229, 0.224, 0.225" in text
        assert "(c * 32 + y) * 24 + x" in text
