"""How long `wb inspect` of a 14 MB ONNX file takes against a process that only loads it.

Prints the medians of interleaved whole processes and their ratio; the aim is less than 3.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
WB = str(Path(sys.executable).parent / "wb")
# MobileNetV2's inverted residuals: channels out, blocks, stride of the first one; each widens 6 ×.
STAGES = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))


def export(path: Path) -> None:
    """A network of MobileNetV2's size, with a dynamic batch."""
    import torch
    from torch import nn

    def convolution(inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> nn.Module:
        padding = kernel // 2
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups)

    layers: list[nn.Module] = [convolution(3, 16, 3, 2, 1), nn.ReLU6()]
    channels = 16
    for outputs, blocks, first in STAGES:
        for block in range(blocks):
            wide = 6 * channels
            stride = first if block == 0 else 1
            layers += [
                convolution(channels, wide, 1, 1, 1), nn.ReLU6(),
                convolution(wide, wide, 3, stride, wide), nn.ReLU6(),
                convolution(wide, outputs, 1, 1, 1),
            ]  # fmt: skip
            channels = outputs
    layers += [convolution(channels, 1280, 1, 1, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1)]
    torch.manual_seed(0)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(1280, 1000)).eval()
    torch.onnx.export(
        net, (torch.zeros(1, 3, 224, 224),), str(path), opset_version=17, dynamo=False,
        input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(path)
        print(f"{path.stat().st_size / 1e6:.1f} MB")
        bare = "import sys, onnx; onnx.load(sys.argv[1])"
        commands = {
            "onnx.load": [sys.executable, "-c", bare, str(path)],
            "wb inspect": [WB, "inspect", str(path)],
        }
        for command in commands.values():  # the disk cache and the compiled modules
            seconds(command)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(seconds(command))
        base = statistics.median(times["onnx.load"])
        for name, taken in times.items():
            middle = statistics.median(taken)
            print(f"{name:12} {1000 * middle:6.1f} ms   {middle / base:.2f}×")


if __name__ == "__main__":
    main()
