"""Small networks, datasets and ONNX files that many tests share. Everything is seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workbench.artifact import Artifact, Format
from workbench.dataset import Dataset
from workbench.dataset.arrays import Arrays
from workbench.dataset.core import Split
from workbench.dataset.preprocess import Preprocess
from workbench.device.profile import Device, load
from workbench.model import Model
from workbench.recipe import Context
from workbench.steps import Export

Array = NDArray[Any]

VNNI = ("avx2", "avx512f", "avx512_vnni")
# Whether INT8 kernels of 8-bit weights are exact here: see `Device.quantization`.
EXACT = load("cpu").quantization == "u8s8"
PLAIN_X86 = ("avx2",)


class ConvNet(nn.Module):
    """Images [N, 3, H, W] to [N, 10]: convolution, BatchNorm, ReLU6, depthwise, linear."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(2 * channels * 4, 10)

    def forward(self, image: Tensor) -> Tensor:
        # Halves of rows and of columns apart: a network that height and width swapped would pass
        # by could not show a wrong permutation.
        found = self.features(image)
        rows, columns = found.mean(3), found.mean(2)
        top = rows[:, :, : rows.shape[2] // 2].mean(2), rows[:, :, rows.shape[2] // 2 :].mean(2)
        left = (
            columns[:, :, : columns.shape[2] // 4].mean(2),
            columns[:, :, columns.shape[2] // 4 :].mean(2),
        )
        result: Tensor = self.classifier(torch.cat([*top, *left], 1))
        return result


class TwoInputs(nn.Module):
    """An image `zebra` and a vector `apple`: in call order, which is not the alphabet's."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, 2, 1)
        self.linear = nn.Linear(5, 6)

    def forward(self, zebra: Tensor, apple: Tensor) -> Tensor:
        found = self.convolution(zebra).relu()
        left, right = found[:, :, :, :3].mean((2, 3)), found[:, :, :, 3:].mean((2, 3))
        result: Tensor = left - 2 * right - self.linear(apple)
        return result


class Difference(nn.Module):
    """Two inputs of one shape, called `second` and `first`: swapped, the sign is wrong."""

    def forward(self, second: Tensor, first: Tensor) -> Tensor:
        return 2 * second - first


class Outputs(nn.Module):
    """A dict of two outputs, `scores` [N, 4] and `embedding` [N, 6]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        embedding = self.body(x).relu()
        return {"scores": self.head(embedding), "embedding": embedding}


class Mlp(nn.Module):
    """[N, 8] to [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class Noisy(nn.Module):
    """Adds fresh noise, in eval mode too."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Branching(nn.Module):
    """Another formula for a negative mean: tracing keeps one of the two."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            return 2 * x
        return -3 * x


class Conditional(nn.Module):
    """The two formulas of Branching, as torch.cond has them."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = torch.cond(x.mean() > 0, lambda y: 2 * y, lambda y: -3 * y, (x,))
        return found


class Scaled(nn.Module):
    """Divides by the largest element, read as a Python number: a trace keeps the first one."""

    def forward(self, x: Tensor) -> Tensor:
        return x / float(x.max())


class Unscriptable(nn.Module):
    """Decides by its data through numpy, which neither a trace nor torch.jit.script keeps."""

    def forward(self, x: Tensor) -> Tensor:
        if np.sign(x.mean().numpy()) > 0:
            return 2 * x
        return -3 * x


class Constants(nn.Module):
    """Python reads a shape and a constant tensor: the same for all inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] > 4 and float(self.factor) > 2:
            return x * float(self.factor)
        return x


class BakedBatch(nn.Module):
    """The batch as a Python number, which tracing takes for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(int(x.shape[0]), 4, 2).sum(2)


class Unexportable(nn.Module):
    """Singular values: no ONNX operator gives them."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x)


class Foldable(nn.Module):
    """A linear layer with a bias that is computed from constants every time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.offset = nn.Parameter(torch.linspace(-1, 1, 8))

    def forward(self, x: Tensor) -> Tensor:
        offset = (self.offset.exp() + self.offset.sin()).reshape(2, 4).transpose(0, 1).reshape(8)
        result: Tensor = self.linear(x) + offset
        return result


class Gelu(nn.Module):
    """GELU as Erf below opset 20, which TFLite does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = nn.functional.gelu(self.linear(x))
        return result


class TwoWayLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.lstm(x)[0]
        return result


def build(kind: type[nn.Module] = ConvNet, seed: int = 0, **options: Any) -> nn.Module:
    """The network in eval mode; its BatchNorm statistics are not the initial ones."""
    torch.manual_seed(seed)
    module = kind(**options)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
    return module.eval()


def normal(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def split_of(name: str = "calibration", **arrays: Array) -> Split:
    source = Arrays(arrays, None, f"{name}.npz")
    return Split(name, source, np.arange(len(source)), Preprocess())


def dataset_of(**arrays: Array) -> Dataset:
    """All of the arrays' rows as calibration samples."""
    return Dataset("testing", split_of(**arrays), None)


def images(count: int = 12, height: int = 32, width: int = 32) -> Dataset:
    return dataset_of(image=normal(count, 3, height, width))


def context(folder: Path, dataset: Dataset, **more: Any) -> Context:
    """A context whose device is an x86 with VNNI, unless `device` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    device = more.pop("device", Device(name="testing", isa=VNNI))
    return Context(folder=folder, dataset=dataset, device=device, **more)


def model_of(module: nn.Module, dataset: Dataset, outputs: tuple[str, ...] = ("output",)) -> Model:
    return Model(module=module, example_inputs=dataset.examples(8), output_names=outputs)


def exported(
    folder: Path,
    module: nn.Module,
    dataset: Dataset,
    outputs: tuple[str, ...] = ("output",),
    **options: Any,
) -> Artifact:
    """The module as the Export step writes it, at opset 17 unless told otherwise."""
    made = Export(**options).run(model_of(module, dataset, outputs), context(folder, dataset))
    assert made.format is Format.ONNX
    return made


def saturates(file: bytes) -> bool:
    """Whether INT8 kernels of this CPU would not add a file's products exactly.

    Without VNNI they add in 16 bits, which 8-bit weights saturate; what is tested are files for
    CPUs that have it.
    """
    return not EXACT and b"QuantizeLinear" in file


def run_onnx(path: Path, *arrays: Array, optimized: bool = True) -> list[Array]:
    """The file's outputs in a plain ONNX Runtime session, inputs given in the file's order.

    Without its fusions where they saturate.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized or saturates(path.read_bytes()):
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))


def run_torch(module: nn.Module, *arrays: Array) -> Any:
    with torch.inference_mode():
        return module(*(torch.from_numpy(array) for array in arrays))


def decibels(reference: Array, found: Array) -> float:
    """The SQNR, computed apart from the package's own."""
    noise = float(np.sum((reference.astype(np.float64) - found) ** 2))
    return float("inf") if noise == 0 else 10 * np.log10(float(np.sum(reference**2)) / noise)
