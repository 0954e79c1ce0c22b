from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import nets
from workbench.errors import ModelError
from workbench.jobs.description import describe_model
from workbench.model import Model, ModelSource
from workbench.sources import packages
from workbench.sources.loading import check_files, load, source_files
from workbench.steps import Export

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),
]
TEXT = {
    "input_ids": np.random.default_rng(0).integers(0, 100, (8, 12)),
    "attention_mask": (np.arange(12) < np.arange(3, 11)[:, None]).astype(np.int64),
}
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs transformers: pip install 'mobile-workbench[hf]'")
    return packages.import_package("transformers")


@pytest.fixture(scope="module")
def folder(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bert (three classes), vit and gpt2, each as save_pretrained writes it."""
    models = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    bert = transformers.BertConfig(vocab_size=100, num_labels=3, **SIZES)
    transformers.BertForSequenceClassification(bert).save_pretrained(models / "bert")
    vit = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=5, **SIZES)
    transformers.ViTForImageClassification(vit).save_pretrained(models / "vit")
    gpt = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    transformers.GPT2LMHeadModel(gpt).save_pretrained(models / "gpt2")
    return models


def loaded(folder: Path, name: str, examples: Any = TEXT, **more: Any) -> Model:
    source = ModelSource(spec=f"hf:{name}", folder=folder, **more)
    model = load(source, examples, folder)
    assert isinstance(model, Model)
    return model


def copied(folder: Path, target: Path, **config: Any) -> Path:
    """The bert folder, its config changed; None takes a key out."""
    shutil.copytree(folder / "bert", target)
    original = json.loads((target / "config.json").read_text())
    original = {key: value for key, value in (original | config).items() if value is not None}
    (target / "config.json").write_text(json.dumps(original))
    return target


def test_outputs_are_transformers_own_and_named(folder: Path, transformers: Any) -> None:
    model = loaded(folder, "./bert")
    assert (model.input_names, model.output_names) == (tuple(TEXT), ("logits",))
    assert "task: text-classification" in model.notes
    own = transformers.BertForSequenceClassification.from_pretrained(folder / "bert").eval()
    with torch.inference_mode():
        expected = own(**{key: torch.from_numpy(value) for key, value in TEXT.items()}).logits
    np.testing.assert_allclose(model(TEXT)[0], expected, rtol=1e-5, atol=1e-6)


def test_inputs_go_by_name_whatever_their_order(folder: Path) -> None:
    turned = dict(reversed(TEXT.items()))
    output = loaded(folder, "./bert", turned)(turned)[0]
    np.testing.assert_allclose(output, loaded(folder, "./bert")(TEXT)[0], rtol=1e-6)


def test_a_single_input_goes_to_the_models_main_one(folder: Path) -> None:
    model = loaded(folder, "vit", {"photo": nets.normal(4, 3, 32, 32)})
    assert model.output_names == ("logits",)
    assert "input 'photo' goes to pixel_values" in model.notes


def test_caches_are_left_out(folder: Path) -> None:
    assert loaded(folder, "./gpt2", {"input_ids": TEXT["input_ids"]}).output_names == ("logits",)


@pytest.mark.parametrize("opset", [17, pytest.param(18, marks=pytest.mark.process)])
def test_it_is_exported_with_equal_outputs(opset: int, folder: Path, tmp_path: Path) -> None:
    model = loaded(folder, "./bert")
    exported = Export(opset=opset).run(model, nets.context(tmp_path, nets.dataset_of(**TEXT)))
    some = {key: value[3:6] for key, value in TEXT.items()}
    output = nets.run_onnx(exported.path, *some.values())[0]
    np.testing.assert_allclose(output, model(some)[0], rtol=1e-3, atol=1e-5)


def test_unknown_inputs_are_named_with_those_it_takes(folder: Path) -> None:
    with pytest.raises(ModelError, match="takes no ids, mask") as caught:
        loaded(folder, "./bert", dict(zip(("ids", "mask"), TEXT.values(), strict=True)))
    assert "BertForSequenceClassification takes input_ids, attention_mask" in caught.value.why


def test_an_unknown_task_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ModelError, match="no task 'text-clasification'") as caught:
        loaded(folder, "./bert", task="text-clasification")
    assert "did you mean 'text-classification'?" in caught.value.fix


def test_weights_are_never_made_up(folder: Path) -> None:
    with pytest.raises(ModelError, match="has no weights for cls") as caught:
        loaded(folder, "./bert", task="fill-mask")
    assert "at random" in caught.value.why


def test_a_config_without_architecture_needs_the_task(folder: Path, tmp_path: Path) -> None:
    copied(folder, tmp_path / "bare", architectures=None)
    with pytest.raises(ModelError, match="does not say what it is for") as caught:
        loaded(tmp_path, "./bare")
    assert "--task: image-classification" in caught.value.fix
    model = loaded(tmp_path, "./bare", task="text-classification")
    np.testing.assert_allclose(model(TEXT)[0], loaded(folder, "./bert")(TEXT)[0], rtol=1e-6)


def test_a_config_takes_the_users_weights(folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "bare")
    (bare / "model.safetensors").rename(tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(tmp_path, "./bare")
    model = loaded(tmp_path, "./bare", weights=tmp_path / "mine.safetensors")
    np.testing.assert_allclose(model(TEXT)[0], loaded(folder, "./bert")(TEXT)[0], rtol=1e-6)


def test_code_of_the_models_own_is_never_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    auto = {"AutoConfig": "evil.Config",
            "AutoModelForSequenceClassification": "evil.Model"}  # fmt: skip
    bare = copied(folder, tmp_path / "bare", model_type="evil", auto_map=auto)
    (bare / "evil.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    with pytest.raises(ModelError, match="needs code of its own"):
        loaded(tmp_path, "./bare", task="text-classification")
    assert not trap.exists()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_pickled_weights_do_not_run(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    bare = copied(folder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    torch.save({"x": Payload(trap)}, bare / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(tmp_path, "./bare")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [("./absent", "there is no folder"), ("./bert@main", "has no revisions"),
     (".", "has no config.json"), ("a/b/c", "does not understand"), ("", "does not understand"),
     ("a b", "does not understand"), ("~nobody-here/x", "there is no folder")],
)  # fmt: skip
def test_names_that_are_none_are_refused(name: str, said: str, folder: Path) -> None:
    with pytest.raises(ModelError, match=said):
        loaded(folder, name)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_damaged_files_are_the_models_error(name: str, folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "bare")
    content = (bare / name).read_bytes()
    (bare / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        loaded(tmp_path, "./bare")


def test_a_hub_that_does_not_answer_is_said_at_once(
    transformers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "*")
    started = time.monotonic()
    with pytest.raises(ModelError, match="hf:no-one/nothing@abc cannot be loaded") as caught:
        loaded(tmp_path, "no-one/nothing@abc")
    assert time.monotonic() - started < 15
    assert "cannot be reached" in caught.value.why
    assert "hf:./folder" in caught.value.fix


def test_the_folders_files_are_the_sources(folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "bare")
    source = ModelSource(spec="hf:./bare", folder=tmp_path)
    assert source.name == "bare"
    assert [path.name for path in source_files(source)] == ["config.json", "model.safetensors"]
    digest = hashlib.sha256((bare / "model.safetensors").read_bytes()).hexdigest()
    check_files(ModelSource(spec="hf:./bare", folder=tmp_path, sha256=digest))
    with pytest.raises(ModelError, match="not the file expected"):
        check_files(ModelSource(spec="hf:./bare", folder=tmp_path, sha256="0" * 64))


def test_other_weights_are_another_model_to_the_cache(
    folder: Path, tmp_path: Path, transformers: Any
) -> None:
    from workbench.artifact import TensorSpec

    bare = copied(folder, tmp_path / "bare")
    source = ModelSource(spec="hf:./bare", folder=tmp_path)
    data = tuple(TensorSpec(name=n, dtype="int64", shape=(None, 12)) for n in TEXT)
    first, _ = describe_model(source, data, tmp_path, lambda *_: None)
    assert {str(bare / "config.json"), str(bare / "model.safetensors")} <= set(first.depends)
    torch.manual_seed(1)
    config = transformers.BertConfig(vocab_size=100, num_labels=3, **SIZES)
    transformers.BertForSequenceClassification(config).save_pretrained(bare)
    from workbench.jobs.loaded import load_model

    load_model.cache_clear()
    second, _ = describe_model(source, data, tmp_path, lambda *_: None)
    assert second.fingerprint != first.fingerprint
