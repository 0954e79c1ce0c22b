"""Which format a file has, by its content: a suffix may lie."""

from __future__ import annotations

import mmap
import stat
import zipfile
from pathlib import Path

from workbench.artifact import Format
from workbench.errors import ModelError

# Files that people give by mistake: what they begin with (at an offset), what they are.
_KNOWN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n", "Keras or HDF5 weights"),
    (4, b"ET12", "an ExecuTorch program"),
    (0, b"GGUF", "a GGUF model"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program or library"),
    (0, b"%PDF", "a PDF"),
)
_READABLE = "give a .onnx, .ort, .tflite, .pt2 or TorchScript .pt file"
_STATE_DICT = "weights saved with torch.save"
_USE_FACTORY = "name its factory: wb recipe NAME --model file.py:build --weights FILE"


def format_of(path: Path) -> Format:
    """The format of a model file. Raises ModelError that says what the file seems to be."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read", f"{error}") from error
    if stat.S_ISDIR(mode):
        raise _folder(path)
    if not stat.S_ISREG(mode):  # reading a pipe could wait for ever
        raise ModelError(f"{path} is not a regular file", "", _READABLE)
    try:
        return _by_content(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read", f"{error.strerror or error}") from error


def _by_content(path: Path) -> Format:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise ModelError(f"{path} is empty", "", _READABLE)
    if head[4:8] == b"ORTM":
        return Format.ORT
    if head[4:8] == b"TFL3":
        return Format.TFLITE
    if head[:4] == b"PK\x03\x04":
        return _archive(path)
    if _is_onnx(path):
        return Format.ONNX
    raise _unknown(path, head)


def _archive(path: Path) -> Format:
    """The format of a zip archive, by its entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # Cut short, an archive can end with the end of one inside it, which then is all of it.
            if min((info.header_offset for info in archive.infolist()), default=0):
                raise zipfile.BadZipFile("its end is missing")
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{path} is a damaged zip archive",
            f"it begins as a .pt2, TorchScript or weights file does, but: {error}",
            "get the file again",
        ) from error
    # PyTorch puts everything under one folder, named after the file.
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "serialized_exported_program.json" in inner or "models/model.json" in inner:
        return Format.PT2
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Format.TORCHSCRIPT
    if "data.pkl" in inner:
        raise ModelError(
            f"{path} is {_STATE_DICT}, not a model",
            "weights alone do not say what network they are of",
            _USE_FACTORY,
        )
    kinds = {
        "model.weights.h5": "a Keras model",
        "archive_format": "a torch.export archive without a program",
        "AndroidManifest.xml": "an Android package",
    }
    if any(name.endswith(".npy") for name in inner):
        raise ModelError(f"{path} is numpy arrays (.npz), not a model", "", _READABLE)
    kind = next((text for name, text in kinds.items() if name in inner), "a zip archive")
    raise ModelError(f"{path} is {kind}, which wb does not read", "", _READABLE)


def _is_onnx(path: Path) -> bool:
    """Whether the file is a whole protobuf message with the fields of an ONNX model.

    Protobuf has no magic bytes; random ones practically never pass. Only lengths are read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        fields = _fields(data)
    return fields is not None and 7 in fields  # the graph


# Field numbers of ModelProto with their wire types: 0 is a varint, 2 is length-delimited.
_MODEL = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}


def _fields(data: bytes | mmap.mmap, *, cut: bool = False) -> set[int] | None:
    """The fields at the top of an ONNX model; None where it is none.

    With `cut`, the last field may reach beyond the end, as in a file that was truncated.
    """
    position, numbers = 0, set[int]()
    while position < len(data):
        tag, position = _varint(data, position)
        if tag < 0:
            return numbers if cut else None
        number, wire = tag >> 3, tag & 7
        if _MODEL.get(number) != wire:
            return None
        value, position = _varint(data, position)
        if value < 0:
            return numbers if cut else None
        numbers.add(number)
        position += value if wire == 2 else 0
    return numbers if position == len(data) or cut else None


def _varint(data: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    """A varint and the place after it; -1 where it does not end within the data."""
    value = 0
    for shift, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    return -1, len(data)


def _folder(path: Path) -> ModelError:
    if (path / "saved_model.pb").is_file():
        return ModelError(f"{path} is a TensorFlow SavedModel", "wb does not read these", _READABLE)
    if path.suffix in (".mlpackage", ".mlmodelc"):
        return ModelError(f"{path} is a CoreML model", "wb does not read these", _READABLE)
    if (path / "config.json").is_file():
        return ModelError(
            f"{path} is a model folder, as transformers writes them",
            "it is not one file",
            "run a recipe on it: wb recipe NAME --model hf:FOLDER",
        )
    return ModelError(f"{path} is a folder", "", _READABLE)


def _unknown(path: Path, head: bytes) -> ModelError:
    for offset, magic, kind in _KNOWN:
        if head[offset : offset + len(magic)] == magic:
            return ModelError(f"{path} is {kind}, which wb does not read", "", _READABLE)
    if head[0] == 0x80 and head[1] in range(2, 6):  # the PROTO opcode of pickle
        return ModelError(
            f"{path} is a pickle, as old versions of torch.save wrote weights",
            "weights alone do not say what network they are of",
            _USE_FACTORY,
        )
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return ModelError(
            f"{path} is weights (.safetensors), not a model",
            "weights alone do not say what network they are of",
            _USE_FACTORY,
        )
    if head.startswith(b"version https://git-lfs"):
        return ModelError(f"{path} is a pointer of Git LFS, not the file", "", "run 'git lfs pull'")
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 512 else "ignore")
        readable = all(letter.isprintable() or letter.isspace() for letter in text)
    except UnicodeDecodeError:
        readable = False
    if readable:
        return ModelError(f"{path} is a text file", "", _READABLE)
    partly = _fields(head, cut=True)
    if partly and ({1, 7} & partly) and len(head) > 8:
        return ModelError(f"{path} is a truncated or damaged ONNX file", "", "get the file again")
    return ModelError(f"{path} is no model that wb knows, or a damaged one", "", _READABLE)
