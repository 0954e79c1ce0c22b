"""`Model`: a live torch module in eval mode with its examples, and `ModelSource`: its origin.

The source is the portable half: plain values that any process can load the model from, with
`workbench.sources.loading`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.arrays import batch_size, concatenate, split_samples
from workbench.artifact import TensorSpec
from workbench.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_INPUT = re.compile(r"(?P<name>[^:]+):(?P<shape>\d{1,9}(x\d{1,9})*)(:(?P<dtype>\w+))?")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_DTYPES = ("float32", "float16", "int64", "int32", "int8", "uint8", "bool")
# What --model names: a file of one of these kinds, `prefix:name` of a package, or a factory.
FILES = {".onnx": "onnx", ".pt2": "pt2", ".pt": "torchscript", ".pth": "torchscript",
         ".ts": "torchscript", ".torchscript": "torchscript"}  # fmt: skip
# Prefixes, with the packages whose versions decide what such a name gives.
PACKAGES = {"hf": ("transformers",), "timm": ("timm", "torchvision"),
            "torchvision": ("torchvision",)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from: --model, --weights, --sha256, --seed and --task as plain values.

    Attributes:
        spec: a file, `file.py:factory`, `package.module:factory`, or `hf:`, `timm:` or
            `torchvision:` with a name.
        weights: a state dict's file, for a factory or a package's model.
        sha256: that the last of the source's files must have, as hexadecimal.
        folder: what relative paths in `spec` start from.
        seed: of the random numbers that a bare factory draws its weights from.
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
            path = self.spec.partition(":")[2].partition("@")[0].rstrip("/\\")
            last = re.split(r"[/\\:]", path)[-1]
            if last in ("", ".", "..", "~"):
                last = (self.folder / Path(path).expanduser()).resolve().name
            return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-.") or "model"
        module, _, function = self.spec.rpartition(":")
        parts = re.split(r"[./\\]", module.removesuffix(".py"))
        plain = [part for part in parts if part and part not in ("model", "models", "net", "..")]
        word = plain[-1] if plain else function
        if module.endswith(".py") and parts[-1] in ("model", "models", "net"):
            word = (self.folder / module).resolve().parent.name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", word).strip("-.") or "model"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A torch module in eval mode, with inputs that it takes.

    Attributes:
        module: called with its inputs by position.
        example_inputs: [N, ...] by name, in call order.
        output_names: in the exporter's order, that of `flatten`.
        notes: what a user should know of how it was loaded, a line each.
        batch: 1 where the module takes one sample at a time, as a program exported so; None for
            any number.
    """

    module: torch.nn.Module
    example_inputs: Mapping[str, NDArray[Any]]
    output_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    batch: int | None = None

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' names in call order."""
        return tuple(self.example_inputs)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over structure, parameters and buffers, and all that the module holds besides.

        A flag or a constant that `forward` reads is in neither the state dict nor the repr.
        """
        from workbench.identity import digest_of

        structure = _ADDRESS.sub("", repr(self.module))
        # The state dict beside the module: what TorchScript holds is no attribute of Python's.
        return digest_of(structure, dict(self.module.state_dict()), self.module)

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
            tensors = [torch.from_numpy(inputs[name]) for name in self.input_names]
            return [tensor.numpy() for _, tensor in flatten(self.module(*tensors))]


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
