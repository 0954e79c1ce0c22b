from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests import nets
from workbench.errors import ModelError
from workbench.sources import weights

State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    return nets.build(nets.Mlp, seed=5).state_dict()


def saved(folder: Path, content: Any, name: str = "weights.pt", **options: Any) -> Path:
    torch.save(content, folder / name, **options)
    return folder / name


def fitted(path: Path) -> State:
    module = nets.build(nets.Mlp)
    weights.fit(module, weights.read(path), path)
    return module.state_dict()


def same(state: State, other: State) -> bool:
    return state.keys() == other.keys() and all(
        torch.equal(state[key], other[key]) for key in state
    )


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin", "weights"])
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_read_in_both_of_torchs_formats(
    name: str, zipped: bool, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path, state, name, _use_new_zipfile_serialization=zipped)
    assert same(fitted(path), state)


def test_safetensors_are_read(state: State, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    assert same(fitted(path), state)


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "weights", "model_ema",
            "ema_state_dict", "state_dict_ema"],
)  # fmt: skip
def test_a_checkpoint_is_read_under_its_usual_keys(key: str, state: State, tmp_path: Path) -> None:
    checkpoint = {"epoch": 3, "optimizer": {"lr": 0.1}, key: state}
    assert same(fitted(saved(tmp_path, checkpoint)), state)


def test_averaged_weights_come_before_the_last_ones(state: State, tmp_path: Path) -> None:
    last = {key: tensor + 1 for key, tensor in state.items()}
    path = saved(tmp_path, {"state_dict": last, "model_ema": {"state_dict": state}})
    assert same(fitted(path), state)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.",
               "module.model."],
)  # fmt: skip
def test_wrappers_prefixes_are_taken_off(prefix: str, state: State, tmp_path: Path) -> None:
    wrapped = OrderedDict((prefix + key, tensor) for key, tensor in state.items())
    assert same(fitted(saved(tmp_path, wrapped)), state)


def test_a_prefix_that_is_the_models_own_stays(tmp_path: Path) -> None:
    module = torch.nn.ModuleDict({"module": nets.build(nets.Mlp)})
    expected = {key: tensor + 1 for key, tensor in module.state_dict().items()}
    weights.fit(module, dict(expected), tmp_path / "weights.pt")
    assert same(module.state_dict(), expected)


def test_an_averaged_models_counter_is_no_parameter(state: State, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nets.build(nets.Mlp, seed=5))
    assert same(fitted(saved(tmp_path, averaged.state_dict())), state)


def test_missing_unexpected_and_wrongly_shaped_keys_are_named(state: State, tmp_path: Path) -> None:
    state.pop("layers.0.bias")
    state["layers.2.weight"] = torch.zeros(5, 16)
    state["extra.scale"] = torch.zeros(1)
    with pytest.raises(ModelError, match=r"weights\.pt does not fit") as caught:
        fitted(saved(tmp_path, state))
    assert "missing: layers.0.bias" in caught.value.why
    assert "unexpected: extra.scale" in caught.value.why
    assert "layers.2.weight has shape (5, 16), not (4, 16)" in caught.value.why


def test_what_stands_beside_the_network_is_left_out_and_named(state: State, tmp_path: Path) -> None:
    module = nets.build(nets.Mlp, seed=1)
    beside = {"criterion.weight": torch.ones(7), "total": torch.tensor(0)}
    notes = weights.fit(module, {**state, **beside}, tmp_path / "last.ckpt")
    assert same(module.state_dict(), state)
    assert notes == ["of last.ckpt not the network's, and left out: criterion.weight, total"]
    assert weights.fit(module, state, tmp_path / "last.ckpt") == []


def test_the_weights_of_a_deeper_network_are_refused(state: State, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit") as caught:
        weights.fit(nets.build(nets.Mlp), {**state, "layers.9.weight": torch.ones(2)}, tmp_path)
    assert caught.value.why == "unexpected: layers.9.weight"


def test_a_refused_state_leaves_the_module_as_it_was(state: State, tmp_path: Path) -> None:
    module = nets.build(nets.Mlp)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    state.pop("layers.0.bias")
    with pytest.raises(ModelError):
        weights.fit(module, state, tmp_path)
    assert same(module.state_dict(), before)


def test_many_keys_are_counted_not_listed(tmp_path: Path) -> None:
    many = {f"block.{number}": torch.zeros(1) for number in range(300)}
    with pytest.raises(ModelError) as caught:
        fitted(saved(tmp_path, many))
    assert "block.4 and 295 more" in caught.value.why
    assert len(caught.value.why) < 300


def test_a_counter_from_before_torch_0_4_1_may_be_missing(tmp_path: Path) -> None:
    module = nets.build()
    old = {k: v for k, v in module.state_dict().items() if "num_batches_tracked" not in k}
    weights.fit(nets.build(seed=1), old, tmp_path)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickles_payload_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    content = {"state_dict": {"weight": torch.zeros(1)}, "hook": Payload(trap)}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="more than tensors, and is refused") as caught:
        weights.read(path)
    assert "runs any code" in caught.value.why
    assert "state_dict()" in caught.value.fix
    assert not trap.exists()


def test_a_plain_pickle_does_not_run_either(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = tmp_path / "weights.pt"
    path.write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(ModelError):
        weights.read(path)
    assert not trap.exists()


def test_a_pickled_module_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = saved(tmp_path, nets.build(nets.Mlp))
    with pytest.raises(ModelError, match="more than tensors, and is refused") as caught:
        weights.read(path)
    assert "it holds tests.nets.Mlp" in caught.value.why


def test_a_torchscript_archive_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.trace(nets.build(nets.Mlp), torch.zeros(1, 8)).save(path)
    with pytest.raises(ModelError, match="TorchScript archive"):
        weights.read(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_corrupted(
    share: float, zipped: bool, state: State, tmp_path: Path
) -> None:
    path = saved(tmp_path, state, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="is corrupted"):
        weights.read(path)


@pytest.mark.parametrize(
    "content", [b"hello, world\n", b"\x00" * 64, b"PK\x03\x04 no archive", b"\x80\x02", b"\xff",
                b"<!DOCTYPE html><html>404</html>", b"version https://git-lfs.github.com/spec/v1"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_garbage_is_corrupted_and_not_called_a_pickle(
    name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"is corrupted|cannot be read as safetensors") as caught:
        weights.read(path)
    assert "weights_only" not in str(caught.value)  # torch's advice to open it unsafely


def test_any_damage_is_a_models_error(state: State, tmp_path: Path) -> None:
    import random

    generator = random.Random(0)
    contents = [
        saved(tmp_path, state, _use_new_zipfile_serialization=zipped).read_bytes()
        for zipped in (True, False)
    ]
    path = tmp_path / "damaged.pt"
    for number in range(200):
        content = bytearray(contents[number % 2])
        for _ in range(4):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            weights.read(path)  # damage in the numbers alone is not visible here
        except ModelError as error:
            assert str(path) in error.what


@pytest.mark.parametrize(
    ("content", "held"),
    [({"epoch": 3, "lr": 0.1}, "epoch, lr"), ([torch.zeros(1)], "list"),
     (torch.zeros(3), "Tensor"), ({}, "it holds"), ({"state_dict": {}}, "no state dict")],
)  # fmt: skip
def test_a_file_without_a_state_dict_says_what_it_holds(
    content: Any, held: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="holds no state dict") as caught:
        weights.read(saved(tmp_path, content))
    assert held in str(caught.value)


def test_not_finite_weights_are_named() -> None:
    module = nets.build(nets.Mlp)
    weights.check_finite(module)
    with torch.no_grad():
        module.layers[2].weight[1, 1] = float("nan")  # type: ignore[index, union-attr]
        module.layers[0].bias[0] = float("inf")  # type: ignore[index, union-attr]
    with pytest.raises(ModelError, match=r"NaN or Inf: layers\.0\.bias, layers\.2\.weight"):
        weights.check_finite(module)
