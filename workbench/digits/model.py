"""The embedded classifier: MobileNetV2's inverted residual blocks, sized for 96x96 digits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEM = 48
# (channels out, blocks, stride of the first block); every block expands its channels by EXPANSION.
STAGES = ((48, 2, 1), (64, 2, 2), (64, 2, 2), (64, 1, 2))
EXPANSION = 4
HEAD = 256
CLASSES = 10


def _convolution(
    channels_in: int, channels_out: int, *, kernel: int = 1, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution and its BatchNorm. A 3x3 pads one pixel on every side, strided or not."""
    padding = kernel // 2
    return [
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel (3x3 depthwise), narrow (1x1, linear).

    The input is added back where the shapes agree.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        wide = channels_in * EXPANSION
        self.residual = stride == 1 and channels_in == channels_out
        self.layers = nn.Sequential(
            *_convolution(channels_in, wide),
            nn.ReLU6(),
            *_convolution(wide, wide, kernel=3, stride=stride, groups=wide),
            nn.ReLU6(),
            *_convolution(wide, channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] to [N, channels_out, H / stride, W / stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class DigitNet(nn.Module):
    """Grey images float32 [N, 1, 96, 96] to logits float32 [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_convolution(1, STEM, kernel=3, stride=2), nn.ReLU6()]
        channels = STEM
        for channels_out, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, channels_out, stride if block == 0 else 1))
                channels = channels_out
        layers += [*_convolution(channels, HEAD), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 1, 96, 96] to [N, 10]."""
        pooled: Tensor = self.pool(self.features(images))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def build() -> nn.Module:
    """The classifier with PyTorch's initial weights; `weights.safetensors` holds trained ones."""
    return DigitNet()
