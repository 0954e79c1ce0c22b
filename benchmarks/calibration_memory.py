"""Peak memory of static INT8 calibration with 64 and with 1,024 samples of 3x224x224.

Each in a fresh process, on a MobileNet-like network and a memory-mapped file of samples. Prints
peak resident memory of the quantize step alone, and the ratio; the aim is that they are equal.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

COUNTS = (64, 1024)

CHILD = """
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
from workbench.work import _peak
print(_peak())
"""


def export(path: Path) -> None:
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs), nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU6(),
        ]  # fmt: skip

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), *block(16, 32, 1), *block(32, 64, 2),
        *block(64, 64, 1), *block(64, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(128, 10),
    ).eval()  # fmt: skip
    torch.onnx.export(
        net, (torch.zeros(1, 3, 224, 224),), str(path), opset_version=17, dynamo=False,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip


def main() -> None:
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
        peaks = []
        for count in COUNTS:
            child = [sys.executable, "-c", CHILD, name, str(count)]
            done = subprocess.run(child, check=True, capture_output=True, text=True)
            peaks.append(int(done.stdout.split()[-1]))
            print(f"{count:5} samples: peak {peaks[-1] / 1e6:.0f} MB")
        print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
