from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import nets
from workbench.errors import ModelError
from workbench.model import Model, ModelSource
from workbench.sources.live import in_call_order, load_module
from workbench.sources.user_factory import build

HEAD = "import torch\nfrom torch import nn\n"


def source(folder: Path, body: str, **more: object) -> ModelSource:
    """A factory file whose function `build` has that body."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / "network.py").write_text(f"{HEAD}\ndef build():\n{lines}\n", encoding="utf-8")
    return ModelSource(spec="network.py:build", folder=folder, **more)  # type: ignore[arg-type]


def loaded(folder: Path, body: str, **examples: np.ndarray) -> Model:
    return load_module(source(folder, body), examples or {"x": nets.normal(4, 8)})


def test_a_factorys_module_is_tried_on_the_samples(tmp_path: Path) -> None:
    model = loaded(tmp_path, "return nn.Linear(8, 3).eval()")
    assert model.output_names == ("output",)
    assert model(model.example_inputs)[0].shape == (4, 3)
    assert model.notes == ("no --weights given: the weights are whatever the factory set",)


def test_weights_are_put_in_and_nothing_is_said(tmp_path: Path) -> None:
    state = {"weight": torch.full((3, 8), 0.5), "bias": torch.arange(3.0)}
    torch.save(state, tmp_path / "weights.pt")
    origin = source(tmp_path, "return nn.Linear(8, 3).eval()", weights=tmp_path / "weights.pt")
    model = load_module(origin, {"x": np.ones((2, 8), np.float32)})
    np.testing.assert_allclose(model(model.example_inputs)[0], [[4, 5, 6]] * 2)
    assert model.notes == ()


def test_a_bare_factory_gives_the_same_weights_in_every_process(tmp_path: Path) -> None:
    origin = source(tmp_path, "return nn.Linear(8, 3)")
    torch.manual_seed(99)
    first, _ = build(origin)
    torch.manual_seed(1)
    second, _ = build(origin)
    assert torch.equal(first.weight, second.weight)  # type: ignore[arg-type]
    other, _ = build(source(tmp_path, "return nn.Linear(8, 3)", seed=1))
    assert not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]


def test_training_mode_is_left_and_said(tmp_path: Path) -> None:
    body = "return nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.9)).train()"
    model = loaded(tmp_path, body)
    assert not any(part.training for part in model.module.modules())
    assert any("training mode" in note for note in model.notes)
    first, second = model(model.example_inputs), model(model.example_inputs)
    np.testing.assert_array_equal(first[0], second[0])


def test_one_part_left_in_training_mode_is_found(tmp_path: Path) -> None:
    body = "m = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.9)).eval()\nm[1].train()\nreturn m"
    model = loaded(tmp_path, body)
    assert any("training mode" in note for note in model.notes)
    assert not model.module[1].training  # type: ignore[index]


@pytest.mark.parametrize(
    ("body", "kind"), [("return {'weight': 1}", "dict"), ("pass", "NoneType"),
                       ("return nn.Linear", "type")],
)  # fmt: skip
def test_what_is_not_a_module_is_refused_by_its_type(body: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"gave a {kind}") as caught:
        loaded(tmp_path, body)
    assert "torch.nn.Module" in caught.value.fix


def test_a_factory_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"network\.py:build failed") as caught:
        loaded(tmp_path, "raise LookupError('no such width')")
    assert caught.value.why == "LookupError: no such width"


@pytest.mark.parametrize(
    ("spec", "said"),
    [("absent.py:build", "no file"), ("network.py:biuld", "has no 'biuld'"),
     ("network.py", "names no function"), ("no_such_package_at_all:build", "no module"),
     ("network.py:torch", "is a module, not a function")],
)  # fmt: skip
def test_a_factory_that_is_not_there_is_the_models_error(
    spec: str, said: str, tmp_path: Path
) -> None:
    source(tmp_path, "return nn.Linear(8, 3)")
    with pytest.raises(ModelError, match=said):
        build(ModelSource(spec=spec, folder=tmp_path))


def test_a_file_that_fails_when_imported_is_the_models_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import torch\n1 / 0\n")
    with pytest.raises(ModelError, match="fails when imported") as caught:
        build(ModelSource(spec="broken.py:build", folder=tmp_path))
    assert "ZeroDivisionError" in caught.value.why


def test_samples_that_do_not_fit_are_named_with_their_shapes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not take .*pixels \(4, 3, 5, 5\)") as caught:
        loaded(tmp_path, "return nn.Linear(8, 3)", pixels=nets.normal(4, 3, 5, 5))
    assert "RuntimeError" in caught.value.why
    assert "preprocess" in caught.value.fix


def test_too_many_inputs_are_the_models_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not take"):
        loaded(tmp_path, "return nn.Linear(8, 3)", x=nets.normal(4, 8), y=nets.normal(4, 8))


def test_an_output_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    class_ = "class Log(nn.Module):\n  def forward(self, x): return x.log()\nreturn Log()"
    with pytest.raises(ModelError, match="'output' contains NaN or Inf for real samples"):
        loaded(tmp_path, class_)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    body = "m = nn.Linear(8, 3)\nnn.init.constant_(m.bias, float('nan'))\nreturn m"
    with pytest.raises(ModelError, match="weights contain NaN or Inf: bias"):
        loaded(tmp_path, body)


def test_no_tensors_at_all_are_refused(tmp_path: Path) -> None:
    class_ = "class Nothing(nn.Module):\n  def forward(self, x): return []\nreturn Nothing()"
    with pytest.raises(ModelError, match="returns no tensors"):
        loaded(tmp_path, class_)


@pytest.mark.parametrize(
    ("result", "names"),
    [("{'scores': x, 'boxes': x}", ("scores", "boxes")), ("(x, x)", ("output_0", "output_1")),
     ("{'only': x}", ("only",)), ("({'a': x}, {'a': x})", ("a", "output_1"))],
)  # fmt: skip
def test_outputs_are_named_after_a_dicts_keys(
    result: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    class_ = f"class Many(nn.Module):\n  def forward(self, x): return {result}\nreturn Many()"
    assert loaded(tmp_path, class_).output_names == names


def test_inputs_are_ordered_by_forwards_names() -> None:
    module = nets.build(nets.TwoInputs)
    examples = {"apple": nets.normal(2, 5), "zebra": nets.normal(2, 3, 8, 8)}
    assert list(in_call_order(module, examples)) == ["zebra", "apple"]


def test_names_that_forward_does_not_know_keep_the_datasets_order() -> None:
    module = nets.build(nets.TwoInputs)
    examples = {"b": nets.normal(2, 3, 8, 8), "a": nets.normal(2, 5)}
    assert list(in_call_order(module, examples)) == ["b", "a"]


def test_inputs_swapped_in_the_dataset_reach_the_right_parameters(tmp_path: Path) -> None:
    class_ = "class D(nn.Module):\n  def forward(self, b, a): return 2 * b - a\nreturn D()"
    a, b = nets.normal(4, 3), nets.normal(4, 3, seed=1)
    model = loaded(tmp_path, class_, a=a, b=b)
    np.testing.assert_allclose(model({"a": a, "b": b})[0], 2 * b - a, rtol=1e-6)


# A checkpoint that carries what its network was built with.

WIDE = "return nn.Linear(8, width)"


def checkpoint(folder: Path, config: object, key: str = "config", width: int = 5) -> Path:
    state = nn_state(width)
    torch.save({"state_dict": state, key: config, "epoch": 3}, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def nn_state(width: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((width, 8), 0.5), "bias": torch.arange(float(width))}


def with_config(
    folder: Path, parameters: str, body: str, config: object, key: str = "config"
) -> Model:
    text = f"{HEAD}\ndef build({parameters}):\n    {body}\n"
    (folder / "network.py").write_text(text, encoding="utf-8")
    weights = checkpoint(folder, config, key)
    source = ModelSource(spec="network.py:build", folder=folder, weights=weights)
    return load_module(source, {"x": np.ones((2, 8), np.float32)})


@pytest.mark.parametrize("key", ["config", "hyper_parameters"])
@pytest.mark.parametrize(
    ("parameters", "body"),
    [("width, depth=1", WIDE), ("*, width, depth", WIDE), ("width=2, **others", WIDE),
     ("config", "return nn.Linear(8, config['width'])"),
     ("cfg=None", "return nn.Linear(8, cfg['width'])")],
)  # fmt: skip
def test_a_checkpoints_config_reaches_the_factory(
    parameters: str, body: str, key: str, tmp_path: Path
) -> None:
    model = with_config(tmp_path, parameters, body, {"width": 5, "depth": 2}, key)
    np.testing.assert_allclose(model(model.example_inputs)[0], [[4, 5, 6, 7, 8]] * 2)
    assert any("width=5, depth=2" in note for note in model.notes)


def test_a_factory_without_parameters_is_called_without_and_it_is_said(tmp_path: Path) -> None:
    model = with_config(tmp_path, "", "return nn.Linear(8, 5).eval()", {"width": 5})
    assert model.notes == (
        "network.py:build takes no arguments: the checkpoint's config was not given to it",
    )


def test_keys_that_the_factory_does_not_take_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"build does not take lr, epochs") as caught:
        with_config(tmp_path, "width, depth=1", WIDE, {"width": 5, "lr": 0.1, "epochs": 3})
    assert "the factory takes width, depth" in caught.value.why
    assert "**kwargs" in caught.value.fix


def test_what_the_factory_needs_and_the_config_has_not_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"build needs width"):
        with_config(tmp_path, "width, depth", WIDE, {"depth": 5})
    with pytest.raises(ModelError, match=r"does not take wdith and needs width"):
        with_config(tmp_path, "width", WIDE, {"wdith": 5})


def test_a_factory_with_parameters_and_no_config_says_where_they_could_come_from(
    tmp_path: Path,
) -> None:
    (tmp_path / "network.py").write_text(f"{HEAD}\ndef build(width): {WIDE}\n")
    torch.save(nn_state(5), tmp_path / "weights.pt")
    for weights in (None, tmp_path / "weights.pt"):
        with pytest.raises(ModelError, match=r"network\.py:build needs width") as caught:
            build(ModelSource(spec="network.py:build", folder=tmp_path, weights=weights))
        assert "config" in caught.value.why


def test_a_class_is_a_factory_too(tmp_path: Path) -> None:
    lines = ["class Net(nn.Linear):", "    def __init__(self, width: int) -> None:",
             "        super().__init__(8, width)"]  # fmt: skip
    (tmp_path / "network.py").write_text(HEAD + "\n".join(lines) + "\n")
    source = ModelSource(
        spec="network.py:Net", folder=tmp_path, weights=checkpoint(tmp_path, {"width": 5})
    )
    module, _ = build(source)
    assert module.out_features == 5
