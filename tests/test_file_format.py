"""A file's format by its content, and what is said of a file that is none."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import nets
from tests.inspect.files import dense, graph, save_onnx, save_ort
from workbench.artifact import Format
from workbench.errors import ModelError
from workbench.file_format import format_of

RELU = graph("g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Format, Path]:
    """A small model in every format, under a name without a suffix."""
    folder = tmp_path_factory.mktemp("models")
    module, example = nets.build(nets.Mlp), torch.zeros(2, 8)
    torch.export.save(torch.export.export(module, (example,)), folder / "made.pt2")
    torch.jit.save(torch.jit.trace(module, example), folder / "traced.pt")
    paths = {
        Format.ONNX: save_onnx(folder, RELU),
        Format.ORT: save_ort(save_onnx(folder, RELU, "other.onnx")),
        Format.TFLITE: dense(folder / "dense.tflite"),
        Format.PT2: folder / "made.pt2",
        Format.TORCHSCRIPT: folder / "traced.pt",
    }
    return {kind: path.rename(path.with_suffix("")) for kind, path in paths.items()}


@pytest.mark.parametrize("kind", [one for one in Format if one is not Format.TORCH])
def test_the_content_tells_whatever_the_suffix(
    kind: Format, models: dict[Format, Path], tmp_path: Path
) -> None:
    assert format_of(models[kind]) is kind
    (tmp_path / "wrong.ort").write_bytes(models[kind].read_bytes())
    assert format_of(tmp_path / "wrong.ort") is kind


@pytest.mark.parametrize("kind", [Format.ONNX, Format.PT2, Format.TORCHSCRIPT])
@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_called_so(
    kind: Format, share: float, models: dict[Format, Path], tmp_path: Path
) -> None:
    data = models[kind].read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"truncated|damaged"):
        format_of(cut)


def _zip(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")


MISTAKES = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("def build():\n    pass\n" * 60), "is a text file"),
    "state dict": (
        lambda path: torch.save(nets.build(nets.Mlp).state_dict(), path),
        "weights saved with torch.save, not a model",
    ),
    "old state dict": (
        lambda path: torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False),
        "is a pickle, as old versions of torch.save",
    ),
    "pickle": (lambda path: path.write_bytes(pickle.dumps([1, 2])), "is a pickle"),
    "safetensors": (
        lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}" + b"\0" * 8),
        r"weights \(\.safetensors\)",
    ),
    "npz": (lambda path: np.savez(path.open("wb"), x=np.ones(3)), "numpy arrays"),
    "npy": (lambda path: np.save(path.open("wb"), np.ones(3)), "a numpy array"),
    "keras": (lambda path: _zip(path, "config.json", "model.weights.h5"), "a Keras model"),
    "zip": (lambda path: _zip(path, "a", "b"), "is a zip archive"),
    "hdf5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90), "HDF5"),
    "image": (lambda path: path.write_bytes(b"\x89PNG\r\n" + b"\0" * 90), "a PNG image"),
    "executorch": (lambda path: path.write_bytes(b"\0\0\0\0ET12" + b"\0" * 90), "ExecuTorch"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid …"),
        "a pointer of Git LFS",
    ),
    "random": (
        lambda path: path.write_bytes(np.random.default_rng(3).bytes(5000)),
        "no model that wb knows",
    ),
    "folder": (Path.mkdir, "is a folder"),
    "pipe": (os.mkfifo, "not a regular file"),
    "absent": (lambda path: None, "there is no file"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_model_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    make, said = MISTAKES[name]
    path = tmp_path / "given"
    make(path)
    with pytest.raises(ModelError, match=said):
        format_of(path)


def test_weights_are_told_how_they_are_used(tmp_path: Path) -> None:
    torch.save(nets.build(nets.Mlp).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"--model file\.py:build --weights"):
        format_of(tmp_path / "w.pt")


def test_a_saved_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ModelError, match="TensorFlow SavedModel"):
        format_of(tmp_path)


def test_random_bytes_never_pass_for_onnx(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for length in (1, 2, 3, 5, 9, 33, 257, 4001) * 10:
        path = tmp_path / "random"
        path.write_bytes(generator.bytes(length))
        with pytest.raises(ModelError):
            format_of(path)
