"""The networks that `ptq.py` quantizes, as ONNX files with their samples. Made once, then cached.

    python benchmarks/ptq_nets.py --nets shuffle vit --out DIR     # copies DIR/NAME.onnx, NAME.npz

Four are trained here on `../shared/data/cifar10`, seeded, each in five to ten minutes on one core;
ResNet-20 and MobileNetV1 have trained weights there; BERT's are random. Each file has opset 17 and
a dynamic batch. NAME.npz holds `calibration`, `evaluation` and `labels`; a network of several
inputs has `calibration_INPUT` and `evaluation_INPUT`, one without labels holds no `labels`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[Any]

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"
CACHE = Path.home() / ".cache" / "workbench-benchmarks" / "ptq-1"  # +1 when a network changes
CALIBRATION, EVALUATION, SEQUENCES = 300, 2000, 200
MEAN = np.array((0.485, 0.456, 0.406), np.float32)
DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
# Epochs, largest learning rate: five to ten minutes each on one core of 2025.
SCHEDULES = {
    "shuffle": (12, 0.2),
    "mobilenetv2": (9, 0.2),
    "mobilenetv3": (14, 0.2),
    "vit": (13, 1e-3),
}
NETS = (*SCHEDULES, "resnet20", "mobilenetv1", "bert")


@dataclass(frozen=True)
class Net:
    """An FP32 ONNX file and its samples by input name; labels is empty where there are none."""

    name: str
    path: Path
    calibration: Mapping[str, Array]
    evaluation: Mapping[str, Array]
    labels: Array

    @property
    def samples(self) -> int:
        return len(next(iter(self.evaluation.values())))


def load(name: str, folder: Path | None = None) -> Net:
    """A network by name, made and trained first where the cache lacks it."""
    import onnx

    folder = folder or CACHE
    path, arrays = folder / f"{name}.onnx", folder / f"{name}.npz"
    if not (path.exists() and arrays.exists()):
        _make(name, folder)
    inputs = [one.name for one in onnx.load(path).graph.input]
    with np.load(arrays) as found:

        def split(kind: str) -> dict[str, Array]:
            if len(inputs) == 1:
                return {inputs[0]: found[kind]}
            return {one: found[f"{kind}_{one}"] for one in inputs}

        labels = found["labels"] if "labels" in found else np.empty(0, np.int64)
        return Net(name, path, split("calibration"), split("evaluation"), labels)


def _make(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name == "bert":
        module, arrays = _bert()
    elif name == "mobilenetv1":
        module, arrays = _shared("mobilenetv1-025"), _imagenet()
    elif name == "resnet20":
        module, arrays = _shared("cifar10"), _cifar()
    else:
        module, arrays = _trained(name, folder), _cifar()
    _export(module.eval(), arrays, folder / f"{name}.onnx")
    partial = folder / f"{name}.partial.npz"
    np.savez(partial, **arrays)
    partial.replace(folder / f"{name}.npz")


def _export(module: nn.Module, arrays: Mapping[str, Array], path: Path) -> None:
    import onnx
    import onnxsim
    import torch

    inputs = {
        key.removeprefix("calibration").removeprefix("_") or "input": torch.from_numpy(value[:2])
        for key, value in arrays.items()
        if key.startswith("calibration")
    }
    batch = {one: {0: "batch"} for one in (*inputs, "output")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(inputs.values()), str(path), opset_version=17, dynamo=False,
            input_names=list(inputs), output_names=["output"], dynamic_axes=batch,
        )  # fmt: skip
    simple, right = onnxsim.simplify(onnx.load(path))
    assert right, f"onnxsim changed what {path.name} computes"
    onnx.save(simple, path)


def _normal(images: Array) -> Array:
    """uint8 NHWC to normalised float32 NCHW."""
    scaled = (images.astype(np.float32) / 255 - MEAN) / DEVIATION
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _cifar() -> dict[str, Array]:
    train, test = (np.load(SHARED / "cifar10" / f"{one}.npz") for one in ("train", "test"))
    generator = np.random.default_rng(0)
    few = generator.permutation(len(train["x"]))[:CALIBRATION]
    held = generator.permutation(len(test["x"]))[:EVALUATION]
    labels = test["y"][held].astype(np.int64)
    calibration, evaluation = _normal(train["x"][few]), _normal(test["x"][held])
    return {"calibration": calibration, "evaluation": evaluation, "labels": labels}


def _imagenet() -> dict[str, Array]:
    from PIL import Image

    files = sorted((SHARED / "imagenet-sample").glob("*/*"))
    pixels = [np.asarray(Image.open(one).convert("RGB"))[16:240, 16:240] for one in files]
    folders = sorted({one.parent.name for one in files})
    labels = np.array([folders.index(one.parent.name) for one in files])
    order = np.random.default_rng(0).permutation(len(files))
    first, rest = order[:CALIBRATION], order[CALIBRATION:]
    calibration, evaluation = (
        np.concatenate([_normal(pixels[one][None]) for one in part]) for part in (first, rest)
    )
    return {"calibration": calibration, "evaluation": evaluation, "labels": labels[rest]}


def _bert() -> tuple[nn.Module, dict[str, Array]]:
    """The encoder of `dynamic_int8.py`, and sequences of 32 to 128 random tokens."""
    import torch
    from dynamic_int8 import DEPTH, HEADS, LENGTH, WIDTH, WORDS, Encoder

    torch.manual_seed(0)
    module = Encoder(WORDS, LENGTH, WIDTH, DEPTH, HEADS)
    generator = np.random.default_rng(0)
    arrays = {}
    for kind, count in (("calibration", CALIBRATION), ("evaluation", SEQUENCES)):
        lengths = generator.integers(LENGTH // 4, LENGTH + 1, count)
        arrays[f"{kind}_input_ids"] = generator.integers(0, WORDS, (count, LENGTH))
        mask = np.arange(LENGTH) < lengths[:, None]
        arrays[f"{kind}_attention_mask"] = mask.astype(np.int64)
    return module, arrays


def _shared(folder: str) -> nn.Module:
    import importlib.util

    import torch

    place = SHARED / folder
    spec = importlib.util.spec_from_file_location(f"shared_{place.name[:5]}", place / "model.py")
    assert spec is not None and spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    module: nn.Module = code.build()
    module.load_state_dict(torch.load(place / "weights.pt", weights_only=True))
    return module


def _trained(name: str, folder: Path) -> nn.Module:
    import torch

    weights = folder / f"{name}.pt"
    if not weights.exists():
        began, threads = time.monotonic(), torch.get_num_threads()
        torch.set_num_threads(1)  # sums in one order: the same weights on every such machine
        module = _train(name)
        torch.set_num_threads(threads)
        torch.save(module.state_dict(), weights)
        print(f"{name} trained in {time.monotonic() - began:.0f} s", file=sys.stderr)
    from ptq_models import BUILDERS

    module = BUILDERS[name]()
    module.load_state_dict(torch.load(weights, weights_only=True))
    return module


def _train(name: str) -> nn.Module:
    """Cross-entropy on flipped and cropped images, one cycle of learning rates."""
    import torch
    from ptq_models import BUILDERS
    from torch.nn import functional

    torch.manual_seed(0)
    module = BUILDERS[name]().train()
    vit = name == "vit"
    if not vit:
        module = module.to(memory_format=torch.channels_last)
    train = np.load(SHARED / "cifar10" / "train.npz")
    images, labels = torch.from_numpy(_normal(train["x"])), torch.from_numpy(train["y"]).long()
    epochs, rate = SCHEDULES[name]
    steps = len(images) // 128
    optimizer: torch.optim.Optimizer
    if vit:
        optimizer = torch.optim.AdamW(module.parameters(), weight_decay=0.05)
    else:
        optimizer = torch.optim.SGD(
            module.parameters(), rate, 0.9, weight_decay=5e-4, nesterov=True
        )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.25)
    for epoch in range(epochs):
        # Smaller crops first: they cost half. A vision transformer's positions are of one size.
        size = 32 if vit or epoch >= epochs / 2 else 24
        order, total = torch.randperm(len(images)), 0.0
        for part in order[: steps * 128].view(steps, 128):
            batch = _varied(images[part], size)
            if not vit:
                batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=vit):
                logits = module(batch)
            loss = functional.cross_entropy(logits.float(), labels[part])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 2.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"{name} epoch {epoch + 1}/{epochs}: loss {total / steps:.3f}", file=sys.stderr)
    return module


def _varied(images: Tensor, size: int) -> Tensor:
    """Random crops of images padded by 4, half of them mirrored."""
    import torch

    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    corners = torch.randint(0, padded.shape[-1] - size + 1, (len(images), 2)).tolist()
    cropped = torch.stack(
        [one[:, y : y + size, x : x + size] for one, (y, x) in zip(padded, corners, strict=True)]
    )
    mirrored = torch.rand(len(images)) < 0.5
    cropped[mirrored] = cropped[mirrored].flip(-1)
    return cropped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--out", type=Path, help="copy the files there")
    arguments = parser.parse_args()
    for name in arguments.nets:
        net = load(name)
        print(name, net.path, {key: value.shape for key, value in net.evaluation.items()})
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            for one in (net.path, net.path.with_suffix(".npz")):
                shutil.copy(one, arguments.out / one.name)


if __name__ == "__main__":
    main()
