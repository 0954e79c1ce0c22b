from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import nets
from workbench.device.session import infer, open_session
from workbench.errors import ModelError, StepError
from workbench.model import Model, ModelSource
from workbench.sources.loading import load
from workbench.sources.torchscript import open_archive
from workbench.steps import Export

pytestmark = [
    pytest.mark.filterwarnings("ignore:::torch"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning"),
]
IMAGES = {"image": nets.normal(8, 3, 32, 32)}


class OneSample(nn.Module):
    """A shape that a trace takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view([int(x.shape[0]), 4, 2]).sum(2)


class Running(nn.Module):
    """A loop whose steps depend on the data."""

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for index in range(x.size(1)):
            total = total - x[:, index : index + 1] if bool(total.sum() > 0) else total + x
        return total


class Attention(nn.Module):
    """Sizes that are computed with, from a dict of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.out = nn.Embedding(9, 8), nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        x = self.embedding(ids)
        count, length, width = x.shape
        parts = self.mix(x).reshape(count, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        query, key, value = parts[0], parts[1], parts[2]
        scores = query @ key.transpose(-1, -2) * (width // 2) ** -0.5
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e4)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(count, length, width)
        return {"tags": self.out(mixed), "pooled": mixed.mean(1)}


TEXT = {
    "ids": np.random.default_rng(0).integers(0, 9, (8, 6)),
    "mask": (np.arange(6) < np.arange(1, 9)[:, None]).astype(np.int64),
}


def traced(path: Path, module: nn.Module, *inputs: Tensor) -> Path:
    torch.jit.trace(module, inputs, strict=False, check_trace=False).save(str(path))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchscript")
    return traced(folder / "conv.pt", nets.build(), torch.randn(2, 3, 32, 32))


def loaded(path: Path, **examples: np.ndarray) -> Model:
    source = ModelSource(spec=path.name, folder=path.parent)
    model = load(source, examples or IMAGES, path.parent)
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ts", ".torchscript"])
def test_an_archive_is_known_by_its_suffix_and_gives_its_outputs(
    suffix: str, archive: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(archive.read_bytes())
    model = loaded(path)
    assert model.batch is None
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(model(IMAGES)[0], expected, rtol=1e-5, atol=1e-6)


def test_inputs_go_by_name(tmp_path: Path) -> None:
    sample = torch.randn(2, 6)
    traced(tmp_path / "difference.pt", nets.build(nets.Difference), sample, sample)
    first, second = nets.normal(4, 6), nets.normal(4, 6, seed=1)
    model = loaded(tmp_path / "difference.pt", first=first, second=second)
    assert model.input_names == ("second", "first")
    output = model({"first": first, "second": second})[0]
    np.testing.assert_allclose(output, 2 * second - first, rtol=1e-6)


def test_a_batch_that_the_trace_fixed_is_found_out_in_both_places(tmp_path: Path) -> None:
    path = traced(tmp_path / "one.pt", OneSample(), torch.randn(1, 8))
    x = nets.normal(8, 8)
    model = loaded(path, x=x)
    assert model.batch == 1
    assert any("takes one at a time" in note for note in model.notes)
    expected = x.reshape(8, 4, 2).sum(2)
    np.testing.assert_allclose(model({"x": x})[0], expected, rtol=1e-6)
    session = open_session(ModelSource(spec="one.pt", folder=tmp_path), 1, {"x": x[:1]})
    np.testing.assert_allclose(infer(session, {"x": x})[0], expected, rtol=1e-6)


@pytest.mark.parametrize("opset", [17, pytest.param(18, marks=pytest.mark.process)])
def test_an_archive_is_exported_with_a_dynamic_batch(
    opset: int, archive: Path, tmp_path: Path
) -> None:
    exported = Export(opset=opset).run(loaded(archive), nets.context(tmp_path, nets.images()))
    assert exported.inputs[0].shape == (None, 3, 32, 32)
    (output,) = infer(open_session(exported, 1), IMAGES)
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("opset", [17, pytest.param(20, marks=pytest.mark.process)])
def test_computed_sizes_and_named_outputs_survive(opset: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Attention().eval()
    tensors = tuple(torch.from_numpy(array[:2]) for array in TEXT.values())
    model = loaded(traced(tmp_path / "text.pt", module, *tensors), **TEXT)
    assert model.output_names == ("tags", "pooled")
    exported = Export(opset=opset).run(model, nets.context(tmp_path / "o", nets.dataset_of(**TEXT)))
    expected = nets.run_torch(module, *TEXT.values())
    for output, name in zip(
        infer(open_session(exported, 1), TEXT), ("tags", "pooled"), strict=True
    ):
        np.testing.assert_allclose(output, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", [nets.Branching, Running])
def test_control_flow_is_exported_as_such_and_said(kind: type[nn.Module], tmp_path: Path) -> None:
    torch.jit.script(kind()).save(str(tmp_path / "flow.pt"))
    x = np.stack([np.full(4, value, np.float32) for value in (-1, 3, -2, 1, 0, 2, -3, 4)])
    model = loaded(tmp_path / "flow.pt", x=x)
    exported = Export().run(model, nets.context(tmp_path / "o", nets.dataset_of(x=x)))
    assert any("scripted, not traced" in note for note in exported.notes)
    for sample in x:
        (output,) = nets.run_onnx(exported.path, sample[None])
        np.testing.assert_allclose(output, nets.run_torch(kind(), sample[None]), rtol=1e-5)
    with pytest.raises(StepError, match="decides by its data"):
        Export(opset=21).run(model, nets.context(tmp_path / "p", nets.dataset_of(x=x)))


@pytest.mark.process
def test_a_session_on_an_archive_is_the_archive(archive: Path, tmp_path: Path) -> None:
    from workbench.inspect.artifacts import open_artifact

    outputs = infer(open_session(open_artifact(archive), 1), IMAGES)
    expected = nets.run_torch(nets.build(), IMAGES["image"])
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-5, atol=1e-6)


# What is no archive.


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_sent_to_its_factory(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nets.build().state_dict(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"weights\.pt is .*(weights|pickle)") as caught:
        loaded(path)
    assert "--model file.py:build --weights FILE" in caught.value.fix


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", ["module", "payload"])
def test_a_pickled_module_is_refused_and_does_not_run(
    kind: str, zipped: bool, tmp_path: Path
) -> None:
    trap, path = tmp_path / "trap", tmp_path / "net.pt"
    held = nets.build(nets.Mlp) if kind == "module" else {"x": Payload(trap)}
    torch.save(held, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="pickle of more than tensors, and is refused") as caught:
        loaded(path)
    assert ("tests.nets.Mlp" if kind == "module" else "posix.mkdir") in caught.value.why
    assert not trap.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_is_refused_too(protocol: int, tmp_path: Path) -> None:
    trap, path = tmp_path / "trap", tmp_path / "net.pt"
    path.write_bytes(pickle.dumps(Payload(trap), protocol=protocol))
    with pytest.raises(ModelError):
        loaded(path)
    assert not trap.exists()


def test_a_program_under_this_name_is_told(tmp_path: Path) -> None:
    program = torch.export.export(nets.build(nets.Mlp), (torch.randn(2, 8),))
    torch.export.save(program, tmp_path / "net.pt2")
    (tmp_path / "net.pt2").rename(tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"is a \.pt2 file, not TorchScript") as caught:
        loaded(tmp_path / "net.pt")
    assert caught.value.fix == "rename it to net.pt2"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
def test_a_truncated_archive_is_refused(share: float, archive: Path, tmp_path: Path) -> None:
    content = archive.read_bytes()
    path = tmp_path / "short.pt"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=r"is empty|damaged"):
        loaded(path)


def test_a_byte_of_the_weights_that_changed_is_noticed(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as whole:
        name = next(name for name in whole.namelist() if "/data/" in name or "/constants/" in name)
        record = whole.getinfo(name)
    content = bytearray(archive.read_bytes())
    content[record.header_offset + record.compress_size] ^= 0xFF
    path = tmp_path / "bit.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged"):
        open_archive(path)


def test_any_damage_is_a_models_error(archive: Path, tmp_path: Path) -> None:
    generator = random.Random(0)
    content = archive.read_bytes()
    path = tmp_path / "damaged.pt"
    for _ in range(40):
        broken = bytearray(content)
        for _ in range(generator.randrange(1, 8)):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        path.write_bytes(broken)
        try:
            open_archive(path)
        except ModelError:
            continue


@pytest.mark.parametrize(
    "content", [b"hello, world\n", bytes(range(256)) * 9, b"PK\x03\x04 no archive", b"\x80\x02"]
)
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "garbage.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"garbage\.pt"):
        loaded(tmp_path / "garbage.pt")
