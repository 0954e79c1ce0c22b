from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests import nets
from workbench.errors import RecipeError, StepError
from workbench.steps import Export

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

OPSETS = [pytest.param(o, marks=[pytest.mark.process] if o >= 18 else []) for o in range(13, 22)]


def declared_opset(path: Path) -> int:
    versions = {one.domain: one.version for one in onnx.load(path).opset_import}
    return versions[""]


@pytest.mark.parametrize("opset", OPSETS)
def test_the_file_has_the_opset_asked_for_and_takes_any_batch(opset: int, tmp_path: Path) -> None:
    module, data = nets.build(), nets.images()
    made = nets.exported(tmp_path, module, data, opset=opset)
    assert declared_opset(made.path) == opset
    assert f"opset {opset}" in made.notes
    assert made.inputs[0].shape == (None, 3, 32, 32)
    for count in (1, 5):
        some = nets.normal(count, 3, 32, 32, seed=count)
        (found,) = nets.run_onnx(made.path, some)
        np.testing.assert_allclose(found, nets.run_torch(module, some), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("opset", [17, pytest.param(19, marks=pytest.mark.process)])
def test_a_batch_that_is_not_dynamic_is_fixed_to_one(opset: int, tmp_path: Path) -> None:
    module, data = nets.build(), nets.images()
    made = nets.exported(tmp_path, module, data, opset=opset, dynamic_batch=False)
    (given,) = onnx.load(made.path).graph.input
    assert [axis.dim_value for axis in given.type.tensor_type.shape.dim] == [1, 3, 32, 32]
    assert made.inputs[0].shape == (1, 3, 32, 32)
    some = nets.normal(1, 3, 32, 32, seed=9)
    (found,) = nets.run_onnx(made.path, some)
    np.testing.assert_allclose(found, nets.run_torch(module, some), rtol=1e-3, atol=1e-5)
    with pytest.raises(Exception, match="Got: 5 Expected: 1"):
        nets.run_onnx(made.path, nets.normal(5, 3, 32, 32))


@pytest.mark.parametrize("opset", [17, pytest.param(18, marks=pytest.mark.process)])
def test_two_inputs_keep_the_call_order_and_their_names(opset: int, tmp_path: Path) -> None:
    module = nets.build(nets.TwoInputs)
    data = nets.dataset_of(zebra=nets.normal(8, 3, 16, 24), apple=nets.normal(8, 5, seed=1))
    made = nets.exported(tmp_path, module, data, opset=opset)
    assert [spec.name for spec in made.inputs] == ["zebra", "apple"]
    given = nets.normal(5, 3, 16, 24, seed=2), nets.normal(5, 5, seed=3)
    (found,) = nets.run_onnx(made.path, *given)
    np.testing.assert_allclose(found, nets.run_torch(module, *given), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("opset", [14, pytest.param(20, marks=pytest.mark.process)])
def test_several_outputs_carry_their_names(opset: int, tmp_path: Path) -> None:
    module, data = nets.build(nets.Outputs), nets.dataset_of(x=nets.normal(8, 8))
    made = nets.exported(tmp_path, module, data, ("scores", "embedding"), opset=opset)
    assert [(spec.name, spec.shape) for spec in made.outputs] == [
        ("scores", (None, 4)),
        ("embedding", (None, 6)),
    ]
    some = nets.normal(3, 8, seed=4)
    wanted = nets.run_torch(module, some)
    scores, embedding = nets.run_onnx(made.path, some)
    np.testing.assert_allclose(scores, wanted["scores"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(embedding, wanted["embedding"], rtol=1e-3, atol=1e-5)


def test_a_network_that_is_random_in_eval_mode_is_refused(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    with pytest.raises(StepError, match="outputs differ") as caught:
        nets.exported(tmp_path, nets.build(nets.Noisy), data)
    assert "randomness" in caught.value.fix


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


@pytest.mark.parametrize("opset", [13, 17, pytest.param(20, marks=pytest.mark.process)])
def test_a_decision_on_data_is_kept_as_if(opset: int, tmp_path: Path) -> None:
    # All samples go one way, so that a trace of it would pass every check of outputs.
    data = nets.dataset_of(x=np.abs(nets.normal(8, 8)))
    made = nets.exported(tmp_path, nets.build(nets.Branching), data, opset=opset)
    assert "If" in operators(made.path)
    (note,) = [note for note in made.notes if note.startswith("scripted, not traced")]
    assert "nets.py:" in note
    assert "if x.mean() > 0:" in note
    for sign in (1, -1):
        x = sign * np.abs(nets.normal(3, 8, seed=5))
        found = nets.run_onnx(made.path, x)[0]
        np.testing.assert_allclose(found, x * (2 if sign > 0 else -3), rtol=1e-6)


def test_a_number_read_from_the_data_is_kept(tmp_path: Path) -> None:
    made = nets.exported(tmp_path, nets.build(nets.Scaled), nets.dataset_of(x=nets.normal(8, 8)))
    x = nets.normal(2, 8, seed=3)
    np.testing.assert_allclose(nets.run_onnx(made.path, x)[0], x / x.max(), rtol=1e-5)


def test_a_decision_that_no_script_keeps_is_an_error_with_its_line(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    with pytest.raises(StepError, match=r"decides by its data at nets\.py:\d+ \(if ") as caught:
        nets.exported(tmp_path, nets.build(nets.Unscriptable), data)
    assert "as a script: PyTorch cannot export" in caught.value.why
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.process
def test_torchs_own_condition_is_exported_where_its_exporter_is_asked(tmp_path: Path) -> None:
    made = nets.exported(
        tmp_path, nets.build(nets.Conditional), nets.dataset_of(x=nets.normal(8, 8)), opset=18
    )
    assert "If" in operators(made.path)
    for sign, factor in ((1, 2), (-1, -3)):
        x = sign * np.abs(nets.normal(3, 8, seed=5))
        np.testing.assert_allclose(nets.run_onnx(made.path, x)[0], factor * x, rtol=1e-6)


@pytest.mark.process
def test_a_decision_at_an_opset_without_scripts_names_the_highest_with(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    with pytest.raises(StepError, match="decides by its data") as caught:
        nets.exported(tmp_path, nets.build(nets.Branching), data, opset=21)
    assert "export.opset=20" in caught.value.fix


def test_a_batch_that_tracing_fixed_is_open_in_a_script(tmp_path: Path) -> None:
    module, data = nets.build(nets.BakedBatch), nets.dataset_of(x=nets.normal(8, 8))
    made = nets.exported(tmp_path, module, data)
    assert any(note.startswith("scripted") for note in made.notes)
    for count in (1, 5):
        x = nets.normal(count, 8, seed=count)
        np.testing.assert_allclose(
            nets.run_onnx(made.path, x)[0], nets.run_torch(module, x), rtol=1e-6
        )


def test_a_look_at_shapes_and_constants_needs_no_script(tmp_path: Path) -> None:
    data = nets.dataset_of(x=nets.normal(8, 8))
    made = nets.exported(tmp_path, nets.build(nets.Constants), data)
    assert made.notes == ("opset 17",)


@pytest.mark.parametrize(
    ("kind", "opset", "said"),
    [
        (nets.Unexportable, 17, "svd"),
        pytest.param(nets.Unexportable, 18, "", marks=pytest.mark.process),
    ],
)
def test_what_torch_cannot_export_is_an_error_of_the_step(
    kind: type, opset: int, said: str, tmp_path: Path
) -> None:
    data = nets.dataset_of(x=nets.normal(8, 4, 6))
    with pytest.raises(StepError, match=f"cannot export the model at opset {opset}") as caught:
        nets.exported(tmp_path, nets.build(kind), data, opset=opset)
    assert said in caught.value.why
    assert len(caught.value.why) < 400
    assert not list(tmp_path.glob("*.onnx"))
    # The exporter prints a graph through C's buffer, which would empty itself after the summary.
    ctypes.CDLL(None).fflush(None)


def test_an_exporter_that_wrote_another_opset_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    real = torch.onnx.export

    def other(*given: object, **options: object) -> None:
        real(*given, **{**options, "opset_version": 15})  # type: ignore[arg-type]

    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(StepError, match="wrote opset 15, not 17"):
        nets.exported(tmp_path, nets.build(nets.Mlp), nets.dataset_of(x=nets.normal(8, 8)))


def test_the_tolerance_decides(tmp_path: Path) -> None:
    module, data = nets.build(), nets.images()
    with pytest.raises(StepError, match="outputs differ"):
        nets.exported(tmp_path / "strict", module, data, rtol=0.0, atol=0.0)
    assert nets.exported(tmp_path / "loose", module, data, rtol=0.0, atol=0.1).path.is_file()


@pytest.mark.parametrize(
    "options",
    [{"opset": 12}, {"opset": 22}, {"opset": 17.5}, {"opset": True}, {"dynamic_batch": 1},
     {"rtol": -1e-9}, {"rtol": 1.5}, {"atol": -1.0}, {"atol": float("nan")}],
)  # fmt: skip
def test_options_out_of_range_are_refused_at_construction(options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(RecipeError, match=name):
        Export(**options)  # type: ignore[arg-type]


def test_a_transformer_encoder_is_exported_by_its_plain_path(tmp_path: Path) -> None:
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    dataset = nets.dataset_of(x=nets.normal(8, 5, 8))
    made = nets.exported(tmp_path, encoder, dataset)
    assert torch.backends.mha.get_fastpath_enabled() is before
    x = nets.normal(3, 5, 8, seed=1)
    expected = nets.run_torch(encoder, x).numpy()
    np.testing.assert_allclose(nets.run_onnx(made.path, x)[0], expected, rtol=1e-3, atol=1e-4)
