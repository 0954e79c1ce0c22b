"""The inside of a `.pt2` file, checked and written anew without anything that could run code.

`torch.export.load` trusts its file: it opens pickles (sample inputs, custom objects, weights of
tensor subclasses), loads compiled libraries, evaluates shape expressions and guards, and compiles
names into Python source (torch 2.13: torch/export/pt2_archive/_package.py and
torch/_export/serde/serialize.py). So torch gets a copy of what passed here: the graph with plain
names and PyTorch's own operators, raw weights, and no pickle. What was checked is what is loaded.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.artifact import Format, TensorSpec
from workbench.errors import ModelError
from workbench.file_format import format_of
from workbench.sources.pt2_graph import check_graph, check_tree

_AGAIN = "get the file again, or export it again: torch.export.save(program, FILE)"
_PLAIN = re.compile(r"(weight|tensor)_\d{1,9}")
# torch's ScalarType (torch/_export/serde/schema.py) as numpy's names.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip


_Signature = tuple[tuple[TensorSpec, ...], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A checked program.

    Attributes:
        data: an archive that torch may load.
        inputs: in call order; None in a shape is a dynamic axis.
        keywords: the last inputs' names in the call, where they are not positional.
        pickled: records of old archives, whose pickles are to be opened with weights_only=True
            before torch sees them.
    """

    data: bytes
    inputs: tuple[TensorSpec, ...]
    keywords: tuple[str, ...]
    pickled: tuple[bytes, ...] = ()


def read(path: Path) -> Archive:
    """The checked program of a file. Raises ModelError for what is damaged or refused."""
    kind = format_of(path)
    if kind is not Format.PT2:
        suffix = "pt" if kind is Format.TORCHSCRIPT else kind
        raise ModelError(
            f"{path} is {'TorchScript' if suffix == 'pt' else f'a .{kind} file'}, not a .pt2",
            "its content says so, whatever its name",
            f"rename it to {path.stem}.{suffix}",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # what a record holds that is not what was saved
        raise ModelError(
            f"{path} is damaged",
            f"it is not what torch.export writes: {type(error).__name__}: {error}",
            _AGAIN,
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> Archive:
    records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
    name = _model_name(path, records)
    if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
        raise ModelError(
            f"{path} is compressed", "torch.export.save stores records as they are", _AGAIN
        )
    program = json.loads(archive.read(records[f"models/{name}.json"]))
    inputs, keywords = _sanitized(path, program)
    checked: dict[str, bytes] = {
        f"models/{name}.json": json.dumps(program).encode(),
        f"data/sample_inputs/{name}.pt": b"",  # a pickle in the original; shapes are in the graph
    }
    pickled = []
    for folder, kind in (("weights", "weight"), ("constants", "tensor")):
        legacy = f"data/{folder}/{name}.pt"
        if legacy in records:  # torch 2.8
            checked[legacy] = archive.read(records[legacy])
            pickled.append(checked[legacy])
            continue
        listing = f"data/{folder}/{name}_{folder}_config.json"
        checked[listing] = archive.read(records[listing])
        for record in _payloads(path, json.loads(checked[listing]), kind):
            checked[f"data/{folder}/{record}"] = archive.read(records[f"data/{folder}/{record}"])
    for plain in ("archive_format", "archive_version", "byteorder", ".data/version"):
        if plain in records:
            checked[plain] = archive.read(records[plain])
    return Archive(
        data=_written(checked), inputs=inputs, keywords=keywords, pickled=tuple(pickled)
    )  # fmt: skip


def _model_name(path: Path, records: dict[str, zipfile.ZipInfo]) -> str:
    """The name of the one program in the archive."""
    if any(name.startswith("data/aotinductor/") for name in records):
        raise ModelError(
            f"{path} holds compiled machine code (AOTInductor), and is refused",
            "it would run in this process as it is",
            "give the program that it was compiled from: torch.export.save(program, FILE)",
        )
    programs = [name[7:-5] for name in records if re.fullmatch(r"models/\w+\.json", name)]
    if len(programs) == 1:
        return programs[0]
    if programs:
        raise ModelError(
            f"{path} holds several programs", ", ".join(sorted(programs)), "save each to a file"
        )
    raise ModelError(
        f"{path} is of torch 2.7 or older",
        "such files are pickles, which run any code they like when they are opened",
        "export the model again with a newer torch",
    )


def _sanitized(path: Path, program: dict[str, Any]) -> _Signature:
    """Check a program in place and take out what only serves debugging or runs as code.

    Returns its inputs in call order, and the names of those at the end that go by keyword.
    """
    module = program["graph_module"]
    program["guards_code"] = []  # Python source; shapes are compared with the graph's instead
    module["metadata"] = {}
    if module.get("treespec_namedtuple_fields"):
        raise ModelError(
            f"{path} takes or returns named tuples", "", "return a dict, or a plain tuple"
        )
    module["module_call_graph"] = [
        entry for entry in module["module_call_graph"] if entry["fqn"] == ""
    ]
    (root,) = module["module_call_graph"]
    check_graph(path, program)
    positional, keywords = check_tree(path, root["signature"])
    values = module["graph"]["tensor_values"]
    names = [spec["user_input"]["arg"]["as_tensor"]["name"]
             for spec in module["signature"]["input_specs"] if "user_input" in spec]  # fmt: skip
    if len(names) != positional + len(keywords):
        raise ValueError(f"{len(names)} inputs, {positional + len(keywords)} in the signature")
    return tuple(_spec(name, values[name]) for name in names), keywords


def _spec(name: str, meta: dict[str, Any]) -> TensorSpec:
    dtype = _DTYPES.get(meta["dtype"], "unknown")
    return TensorSpec(name=name, dtype=dtype, shape=tuple(d.get("as_int") for d in meta["sizes"]))


def _payloads(path: Path, listing: dict[str, Any], kind: str) -> set[str]:
    """The records of raw tensors that a listing names. Raises ModelError for pickled ones."""
    referenced = set()
    for name, payload in listing["config"].items():
        record = payload["path_name"]
        matched = _PLAIN.fullmatch(record)
        if payload["use_pickle"] or matched is None or matched[1] != kind:
            raise ModelError(
                f"{path} holds a pickle, and is refused: {name[:80]!r}",
                "custom objects and tensor subclasses are pickled, and a pickle runs any code it "
                "likes when it is opened",
                "export the model with plain tensors for weights",
            )
        check_graph(path, {"buffer_name": name, "tensor_meta": payload["tensor_meta"]})
        referenced.add(record)
    return referenced


def _written(records: dict[str, bytes]) -> bytes:
    """A zip archive as torch reads it: everything stored, in one folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(f"program/{name}", content)
    return buffer.getvalue()
