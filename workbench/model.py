"""`Model`: a live torch module in eval mode with what is known of it, and where models come from.

A `ModelSource` is the portable half: plain values that any process can `load` the model from.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.arrays import batch_size, concatenate, split_samples
from workbench.artifact import Artifact, TensorSpec, digest
from workbench.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_INPUT = re.compile(r"(?P<name>[^:]+):(?P<shape>\d{1,9}(x\d{1,9})*)(:(?P<dtype>\w+))?")
_DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
# What --model names: a file of one of these kinds, `prefix:name` of a package, or a factory.
FILES = {".onnx": "onnx", ".pt2": "pt2", ".pt": "torchscript", ".pth": "torchscript",
         ".ts": "torchscript", ".torchscript": "torchscript"}  # fmt: skip
# Prefixes, with the packages whose versions decide what such a name gives.
PACKAGES = {"hf": ("transformers",), "timm": ("timm", "torchvision"),
            "torchvision": ("torchvision",)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """What was asked for with --model, --weights, --sha256, --seed and --task, as plain values.

    task: of an `hf:` model, as `image-classification`; '' where its config tells.
    """

    spec: str
    weights: Path | None = None
    sha256: str | None = None
    folder: Path = Path()
    seed: int = 0
    task: str = ""

    @property
    def kind(self) -> str:
        """onnx, pt2, torchscript, hf, timm, torchvision or factory."""
        prefix, colon, _ = self.spec.partition(":")
        if colon and prefix in PACKAGES:
            return prefix
        return FILES.get(Path(self.spec).suffix.lower(), "factory")

    @property
    def is_file(self) -> bool:
        """Whether the source is one file that holds network and weights."""
        return self.kind in FILES.values()

    @property
    def name(self) -> str:
        """A short name for folders and tables: `mobilenetv1-025`, `digits`."""
        if self.is_file:
            return Path(self.spec).stem
        if self.kind in PACKAGES:
            place = self.spec.partition(":")[2].partition("@")[0].rstrip("/\\")
            last = re.split(r"[/\\:]", place)[-1]
            if last in ("", ".", "..", "~"):
                last = (self.folder / Path(place).expanduser()).resolve().name
            return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "model"
        place, _, function = self.spec.rpartition(":")
        parts = re.split(r"[./\\]", place.removesuffix(".py"))
        plain = [part for part in parts if part and part not in ("model", "models", "net", "..")]
        word = plain[-1] if plain else function
        if place.endswith(".py") and parts[-1] in ("model", "models", "net"):
            word = (self.folder / place).resolve().parent.name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-.") or "model"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the source names itself."""
        own = [self.folder / self.spec] if self.is_file else []
        if self.kind == "hf":
            from workbench.sources.hf import local_files

            own = local_files(self)
        return tuple(own + ([self.weights] if self.weights else []))

    def _hint(self, path: Path) -> str:
        if self.kind != "torchscript" or path == self.weights:
            return ""
        return "--model takes TorchScript; weights go to --weights, with their factory as --model"

    def check(self) -> None:
        """That named files are there and have the digest asked for, before anything opens them.

        Raises ModelError.
        """
        for path in self.files:
            if not path.is_file():
                raise ModelError(f"there is no file {path}", "", self._hint(path))
        if self.sha256 is not None:
            if not self.files:
                raise ModelError("--sha256 is given, but no file to check", "", "give --weights")
            found = digest(self.files[-1])
            if found != self.sha256.lower().removeprefix("sha256:"):
                raise ModelError(
                    f"{self.files[-1]} is not the file expected",
                    f"its SHA-256 is {found}",
                    "fetch the file again, or correct --sha256",
                )


@dataclass(frozen=True, kw_only=True)
class Model:
    """A torch module in eval mode, with example inputs [N, ...] by name in call order.

    batch: 1 where the module takes one sample at a time, as a program exported so; None for any.
    """

    module: torch.nn.Module
    example_inputs: Mapping[str, NDArray[Any]]
    output_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    batch: int | None = None

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self.example_inputs)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the module's structure and every parameter and buffer."""
        hashed = hashlib.sha256(repr(self.module).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            hashed.update(tensor.detach().cpu().contiguous().flatten().view(_bytes()).numpy())
        return hashed.hexdigest()

    @property
    def state_bytes(self) -> int:
        """Bytes of all parameters and buffers: the size of an ideal state dict."""
        return sum(t.numel() * t.element_size() for t in self.module.state_dict().values())

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Outputs for named inputs [N, ...], flattened in the exporter's order."""
        import torch

        if self.batch == 1 and batch_size(inputs) > 1:
            return concatenate([self(sample) for sample in split_samples(inputs)])
        with torch.inference_mode():
            given = [torch.from_numpy(inputs[name]) for name in self.input_names]
            return [tensor.numpy() for _, tensor in flatten(self.module(*given))]


def _bytes() -> Any:
    import torch

    return torch.uint8


def flatten(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """The tensors in a model's output with their names, in the ONNX exporter's order."""
    import torch

    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flatten(item, str(key))]
    if isinstance(value, tuple | list):
        return [pair for item in value for pair in flatten(item, "")]
    if value is None:
        return []
    raise ModelError(
        f"the model returns a {type(value).__name__}",
        "",
        "return tensors, or tuples or dicts of them",
    )


def parse_inputs(texts: list[str]) -> tuple[TensorSpec, ...]:
    """`--input name:1x3x224x224[:dtype]` as specs; the first axis is the batch."""
    specs: list[TensorSpec] = []
    for text in texts:
        match = _INPUT.fullmatch(text)
        dtype = (match and match["dtype"]) or "float32"
        if match is None or dtype not in _DTYPES:
            raise ModelError(
                f"--input does not understand '{text}'",
                "",
                f"write name:1x3x224x224 or name:1x128:int64 (dtypes: {', '.join(_DTYPES)})",
            )
        sizes = [int(size) for size in match["shape"].split("x")]
        if 0 in sizes or max(sizes) > 1 << 24:
            raise ModelError(f"--input {text}: sizes must be between 1 and {1 << 24}")
        if any(spec.name == match["name"] for spec in specs):
            raise ModelError(f"--input {match['name']} is given twice")
        specs.append(TensorSpec(name=match["name"], dtype=dtype, shape=(None, *sizes[1:])))
    return tuple(specs)


def declared_inputs(source: ModelSource) -> tuple[TensorSpec, ...]:
    """The inputs that an ONNX or `.pt2` file declares, for a run without samples.

    Raises ModelError where the file cannot be read, or leaves an axis besides the batch open.
    """
    source.check()
    path = source.files[0]
    specs = _pt2_inputs(path) if source.kind == "pt2" else _onnx_inputs(path)
    for spec in specs:
        if None in spec.shape[1:]:
            raise ModelError(
                f"{path}: input {spec} has open axes",
                "without samples there is nothing to fill them",
                f"give --data FILE.toml, or --input {spec.name}:1x…",
            )
    return specs


def _onnx_inputs(path: Path) -> tuple[TensorSpec, ...]:
    import onnx

    from workbench.onnxgraph import signature

    try:
        return signature.signature(onnx.load(path, load_external_data=False))[0]
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as ONNX", f"{type(error).__name__}: {error}"
        ) from error


def _pt2_inputs(path: Path) -> tuple[TensorSpec, ...]:
    from workbench.sources import pt2_archive

    specs = pt2_archive.read(path).inputs
    return tuple(replace(spec, shape=(None, *spec.shape[1:])) for spec in specs)


def load(
    source: ModelSource, examples: Mapping[str, NDArray[Any]], folder: Path
) -> Model | Artifact:
    """The model that a source names: a live module, or an ONNX file (copied into `folder`).

    `examples` are named inputs [N, ...] that it must take. Raises ModelError.
    """
    source.check()
    if source.kind == "onnx":
        from workbench.sources.onnx_model import load_onnx

        return load_onnx(source, examples, folder)
    from workbench.sources.live import load_module

    return load_module(source, examples)
