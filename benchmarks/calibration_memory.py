"""Memory of static INT8 calibration on a MobileNetV2-like network at 224x224.

Peak resident memory of the quantize step with 64 and with 1,024 samples, each in a fresh process
over a memory-mapped file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COUNTS = (64, 1024)

STEP = """
import sys
from pathlib import Path
from workbench import dataset
from workbench.artifact import Artifact, Format, TensorSpec
from workbench.device.profile import load
from workbench.recipe import Context
from workbench.steps import QuantizeStatic

folder, samples = Path(sys.argv[1]), int(sys.argv[2])
batch = (None, 3, 224, 224)
model = Artifact(path=folder / "model.onnx", format=Format.ONNX, precision="float32",
                 inputs=(TensorSpec(name="input", dtype="float32", shape=batch),),
                 outputs=(TensorSpec(name="output", dtype="float32", shape=(None, 10)),))
out = folder / f"out-{samples}"
out.mkdir()
context = Context(folder=out, dataset=dataset.load(str(folder / "data.toml")), device=load("cpu"))
QuantizeStatic(samples=samples).run(model, context)
from workbench.jobs.timing import peak_memory
print(peak_memory())
"""


def export(path: Path) -> None:
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
            super().__init__()
            wide = inputs * expand
            widen = [nn.Conv2d(inputs, wide, 1), nn.ReLU6()] if expand > 1 else []
            self.body = nn.Sequential(
                *widen, nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.ReLU6(),
                nn.Conv2d(wide, outputs, 1),
            )  # fmt: skip
            self.skips = stride == 1 and inputs == outputs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.body(x)
            return x + found if self.skips else found

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU6()]
    inputs = 32
    for expand, outputs, count, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for index in range(count):
            layers.append(Block(inputs, outputs, stride if index == 0 else 1, expand))
            inputs = outputs
    net = nn.Sequential(
        *layers, nn.Conv2d(320, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(1280, 10),
    ).eval()  # fmt: skip
    torch.onnx.export(
        net, (torch.zeros(1, 3, 224, 224),), str(path), opset_version=17, dynamo=False,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip


def memory(folder: Path) -> None:
    """Print the peaks of both counts, and their ratio."""
    peaks = []
    for count in COUNTS:
        child = [sys.executable, "-c", STEP, str(folder), str(count)]
        done = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True)
        peaks.append(int(done.stdout.split()[-1]))
        print(f"quantize step, {count:5} samples: peak {peaks[-1] / 1e6:.0f} MB", flush=True)
    print(f"quantize step: ratio {peaks[1] / peaks[0]:.3f}", flush=True)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export(folder / "model.onnx")
        samples = np.lib.format.open_memmap(
            folder / "x.npy", "w+", np.float32, (max(COUNTS), 3, 224, 224)
        )
        generator = np.random.default_rng(0)
        for index in range(len(samples)):
            samples[index] = generator.standard_normal((3, 224, 224), np.float32)
        samples.flush()
        (folder / "data.toml").write_text('[calibration]\nsource = "numpy"\npath = "x.npy"\n')
        memory(folder)


if __name__ == "__main__":
    main()
