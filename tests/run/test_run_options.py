"""What --model, --weights and --task of the command line come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import nets
from workbench.artifact import TensorSpec
from workbench.engine.request import Request
from workbench.errors import InputError, ModelError
from workbench.run.run_options import RunOptions, budget_settings, steps_beyond_budget

DATA = ["image:1x3x32x32"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def request(model: str, inputs: list[str] = DATA, **more: Any) -> Request:
    options = RunOptions(recipe="mobile-int8", model=model, inputs=tuple(inputs), **more)
    return options.resolve()[0]


@pytest.mark.parametrize("name", ["net.tflite", "net.ort"])
def test_files_of_one_runtime_are_sent_to_profile_and_compare(name: str, here: Path) -> None:
    (here / name).write_bytes(b"anything")
    with pytest.raises(
        ModelError, match="can be profiled and compared, not re-quantized"
    ) as caught:
        request(name)
    assert caught.value.fix == f"wb profile {name}, or wb compare {name} OTHER"


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2", "net.pt"])
def test_files_with_weights_take_no_others(name: str, here: Path) -> None:
    with pytest.raises(ModelError, match="has its own weights"):
        request(name, weights=here / "weights.pt")


def test_a_program_needs_no_samples_where_it_names_its_shapes(here: Path) -> None:
    program = torch.export.export(nets.build(), (torch.randn(1, 3, 32, 32),))
    torch.export.save(program, here / "net.pt2")
    found = request("net.pt2", [])
    assert found.data == (TensorSpec(name="image", dtype="float32", shape=(None, 3, 32, 32)),)


def test_an_archive_of_torchscript_needs_samples_or_shapes(here: Path) -> None:
    torch.jit.trace(nets.build(), torch.randn(1, 3, 32, 32)).save("net.pt")
    with pytest.raises(InputError, match="without --data") as caught:
        request("net.pt", [])
    assert "--input NAME:SHAPE" in caught.value.fix
    assert request("net.pt").source.kind == "torchscript"


def test_what_a_file_really_is_is_said_before_any_work(here: Path) -> None:
    torch.save(nets.build().state_dict(), "weights.pt")
    with pytest.raises(ModelError, match=r"weights\.pt is weights saved with torch\.save"):
        request("weights.pt")
    torch.save(nets.build(), "module.pt")
    with pytest.raises(ModelError, match=r"module\.pt is a pickle of more than tensors"):
        request("module.pt")
    (here / "text.pt2").write_text("hello, world\n")
    with pytest.raises(ModelError, match=r"text\.pt2 is a text file"):
        request("text.pt2")


def test_a_task_is_for_models_of_transformers(here: Path) -> None:
    assert request("hf:org/name", task="fill-mask").source.task == "fill-mask"
    with pytest.raises(ModelError, match="--task is for hf: models"):
        request("net.py:build", task="fill-mask")


def test_what_is_no_model_is_answered_with_all_kinds(here: Path) -> None:
    with pytest.raises(ModelError, match=r"does not understand 'net\.bin'") as caught:
        request("net.bin")
    for kind in ("file.py:factory", "hf:org/name", "timm:name", "torchvision:name", ".pt2"):
        assert kind in caught.value.fix


def test_max_drop_goes_to_every_step_that_takes_it(here: Path) -> None:
    torch.jit.trace(nets.build(), torch.randn(1, 3, 32, 32)).save("net.pt")
    found = request("net.pt", max_drop=0.5)
    steps = [one.step for one in found.recipe.located() if hasattr(one.step, "max_drop")]
    assert len(steps) >= 2
    assert {step.max_drop for step in steps} == {0.5}
    # In the settings too, by which a worker makes the recipe again.
    assert "ort.quantize.max_drop=0.5" in found.settings
    assert all("max_drop" not in setting for setting in request("net.pt").settings)


def test_what_a_budget_does_not_reach_is_named() -> None:
    from workbench.recipe import load

    assert steps_beyond_budget(load("mobile-int8")) == []
    assert steps_beyond_budget(load("mobile-dynamic-int8")) == ["tflite.to_tflite"]


def test_max_drop_is_refused_where_no_step_takes_it_and_out_of_bounds(here: Path) -> None:
    from workbench.errors import RecipeError
    from workbench.recipe import load

    with pytest.raises(RecipeError, match="torchscript takes no --max-drop"):
        budget_settings(load("torchscript"), 0.5)
    torch.jit.trace(nets.build(), torch.randn(1, 3, 32, 32)).save("net.pt")
    with pytest.raises(RecipeError, match=r"max_drop cannot be '-1.0'"):
        request("net.pt", max_drop=-1.0)
