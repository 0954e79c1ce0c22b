from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests import nets
from workbench.artifact import Artifact, Format
from workbench.device.session import infer, open_session
from workbench.errors import RecipeError, StepError
from workbench.onnxgraph.ort_tools import tool
from workbench.steps import QuantizeStatic, ToOrt


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return nets.exported(tmp_path_factory.mktemp("onnx"), nets.build(), nets.images())


@pytest.fixture(scope="module")
def int8_file(float_file: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    context = nets.context(tmp_path_factory.mktemp("int8"), nets.images())
    # On CPUs without VNNI 8-bit weights would saturate, and differently in the two files.
    scheme = "u8s8" if nets.EXACT else "u8s8-reduced"
    return QuantizeStatic(scheme=scheme).run(float_file, context)


def outputs(artifact: Artifact, count: int = 5) -> np.ndarray:
    return infer(open_session(artifact, 1), {"image": nets.normal(count, 3, 32, 32, seed=7)})[0]


@pytest.mark.parametrize("style", ["fixed", "runtime"])
def test_a_float_file_loads_and_gives_the_same_outputs(
    style: str, float_file: Artifact, tmp_path: Path
) -> None:
    content = float_file.path.read_bytes()
    made = ToOrt(style=style).run(float_file, nets.context(tmp_path, nets.images()))  # type: ignore[arg-type]
    assert made.path == tmp_path / "model.ort"
    assert made.path.read_bytes()[4:8] == b"ORTM"
    assert (made.format, made.precision) == (Format.ORT, "float32")
    assert made.history[-1] == f"to_ort style={style}"
    np.testing.assert_allclose(outputs(made), outputs(float_file), rtol=1e-3, atol=1e-5)
    assert float_file.path.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"model.ort", "required_operators.config"}


@pytest.mark.parametrize("style", ["fixed", "runtime"])
def test_an_int8_file_stays_int8(style: str, int8_file: Artifact, tmp_path: Path) -> None:
    made = ToOrt(style=style).run(int8_file, nets.context(tmp_path, nets.images()))  # type: ignore[arg-type]
    assert made.precision == "int8"
    assert nets.decibels(outputs(int8_file), outputs(made)) > 30
    operators = made.companions[0].read_text(encoding="utf-8")
    assert re.search(r"\bQLinearConv\b", operators)
    # Only `runtime` keeps the convolutions that an execution provider could take.
    assert bool(re.search(r"\bConv\b", operators)) == (style == "runtime")


def test_the_config_names_the_operators_for_a_reduced_build(
    float_file: Artifact, tmp_path: Path
) -> None:
    made = ToOrt().run(float_file, nets.context(tmp_path, nets.images()))
    (config,) = made.companions
    lines = [line for line in config.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    listed = {word for line in lines for word in re.split(r"[;,]", line)}
    assert listed & {"Conv", "FusedConv"}
    assert "Gemm" in listed


def test_type_reduction_writes_the_types_too(float_file: Artifact, tmp_path: Path) -> None:
    made = ToOrt(type_reduction=True).run(float_file, nets.context(tmp_path, nets.images()))
    (config,) = made.companions
    assert config.name == "required_operators_and_types.config"
    assert '"float"' in config.read_text(encoding="utf-8")
    np.testing.assert_allclose(outputs(made), outputs(float_file), rtol=1e-3, atol=1e-5)


def test_notes_tell_what_nnapi_and_coreml_would_take(float_file: Artifact, tmp_path: Path) -> None:
    made = ToOrt().run(float_file, nets.context(tmp_path, nets.images()))
    for provider in ("NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"):
        (line,) = [note for note in made.notes if note.startswith(provider)]
        assert re.fullmatch(
            rf"{provider}: (yes|no|maybe)( with fixed shapes)? \(\d+/\d+ nodes, \d+ partitions?\)",
            line,
        )
    assert set(float_file.notes) <= set(made.notes)


@pytest.mark.parametrize("platform", ["arm", "amd64"])
def test_a_target_platform_is_kept_apart_but_equal(
    platform: str, int8_file: Artifact, tmp_path: Path
) -> None:
    step = ToOrt(target_platform=platform)  # type: ignore[arg-type]
    made = step.run(int8_file, nets.context(tmp_path, nets.images()))
    assert nets.decibels(outputs(int8_file), outputs(made)) > 30


def test_a_file_of_fixed_batch_converts(tmp_path: Path) -> None:
    data = nets.images()
    fixed = nets.exported(tmp_path / "onnx", nets.build(), data, dynamic_batch=False)
    made = ToOrt().run(fixed, nets.context(tmp_path / "ort", data))
    np.testing.assert_allclose(outputs(made), outputs(fixed), rtol=1e-3, atol=1e-5)


def test_a_file_that_is_not_onnx_is_an_error_of_the_step(
    float_file: Artifact, tmp_path: Path
) -> None:
    from dataclasses import replace

    broken = tmp_path / "broken.onnx"
    broken.write_bytes(float_file.path.read_bytes()[:300])
    subject = replace(float_file, path=broken)
    with pytest.raises(StepError, match=r"cannot convert the model to \.ort"):
        ToOrt().run(subject, nets.context(tmp_path / "ort", nets.images()))


def test_a_conversion_that_changed_the_outputs_is_caught(
    float_file: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converter = tool("convert_onnx_models_to_ort")
    other = nets.exported(tmp_path / "other", nets.build(seed=1), nets.images())
    real = converter.convert_onnx_models_to_ort

    def convert(source: Path, **options: object) -> None:
        source.write_bytes(other.path.read_bytes())
        real(source, **options)

    monkeypatch.setattr(converter, "convert_onnx_models_to_ort", convert)
    with pytest.raises(StepError, match="to_ort: the outputs differ"):
        ToOrt().run(float_file, nets.context(tmp_path / "ort", nets.images()))


@pytest.mark.parametrize("suffix", [".ort", ".config"])
def test_a_conversion_that_left_a_file_out_is_caught(
    float_file: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    converter = tool("convert_onnx_models_to_ort")
    real = converter.convert_onnx_models_to_ort

    def convert(source: Path, output_dir: Path, **options: object) -> None:
        real(source, output_dir=output_dir, **options)
        for path in output_dir.glob(f"*{suffix}"):
            path.unlink()

    monkeypatch.setattr(converter, "convert_onnx_models_to_ort", convert)
    with pytest.raises(StepError, match=r"wrote no \.ort file, or no operators' config"):
        ToOrt().run(float_file, nets.context(tmp_path / "ort", nets.images()))


@pytest.mark.parametrize(
    "options", [{"style": "Fixed"}, {"target_platform": "x86"}, {"type_reduction": None}]
)
def test_wrong_options_are_refused_at_construction(options: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        ToOrt(**options)  # type: ignore[arg-type]
