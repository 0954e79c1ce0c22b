"""The networks of `ptq.py` that are trained here: small ones of 32x32 RGB to ten classes.

Each has what makes its kind hard to quantize: channel shuffle with grouped and depthwise
convolutions and sigmoid gates; inverted residuals with ReLU6; hard-swish with hard-sigmoid gates; a
transformer. All but the last have a BatchNorm after every convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def _convolution(
    inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:  # fmt: skip
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(layer, norm, *([activation] if activation else []))


class Gate(nn.Module):
    """Squeeze-and-excite: channels scaled by `squash` of two linear maps of their means."""

    def __init__(self, channels: int, squash: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
        )
        self.squash = squash

    def forward(self, x: Tensor) -> Tensor:
        weight = self.expand(self.reduce(x.mean((2, 3), keepdim=True)).relu())
        result: Tensor = x * self.squash(weight)
        return result


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, gate; beside it x, or its average."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int = 4) -> None:
        super().__init__()
        self.stride, self.groups, middle = stride, groups, outputs // 2
        added = outputs - inputs if stride == 2 else outputs
        self.first = _convolution(inputs, middle, groups=groups, activation=nn.ReLU())
        self.depthwise = _convolution(middle, middle, 3, stride, groups=middle)
        self.last = _convolution(middle, added, groups=groups)
        self.gate = Gate(added, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        c, h, w = y.shape[1:]
        y = y.view(-1, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(-1, c, h, w)
        y = self.gate(self.last(self.depthwise(y)))
        if self.stride == 1:
            return torch.relu(x + y)
        pooled = nn.functional.avg_pool2d(x, 3, 2, 1)
        return torch.relu(torch.cat([pooled, y], 1))


class Inverted(nn.Module):
    """An inverted residual: 1x1 that widens, depthwise, gate where wanted, linear 1x1."""

    def __init__(
        self, inputs: int, wide: int, outputs: int, stride: int,
        activation: type[nn.Module] = nn.ReLU6, size: int = 3, gated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.residual = stride == 1 and inputs == outputs
        widen = [_convolution(inputs, wide, activation=activation())] if wide != inputs else []
        self.body = nn.Sequential(
            *widen,
            _convolution(wide, wide, size, stride, wide, activation()),
            *([Gate(wide, nn.Hardsigmoid())] if gated else []),
            _convolution(wide, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class Head(nn.Module):
    """The mean of every channel to the classes' logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.mean((2, 3)))
        return result


def shuffle() -> nn.Module:
    """A ShuffleNet-like net of grouped 1x1 convolutions with sigmoid gates."""
    units = [
        ShuffleUnit(*one)
        for one in (
            (32, 96, 2), (96, 96, 1), (96, 96, 1), (96, 192, 2), (192, 192, 1), (192, 192, 1),
            (192, 192, 1), (192, 384, 2), (384, 384, 1), (384, 384, 1),
        )
    ]  # fmt: skip
    return nn.Sequential(_convolution(3, 32, 3, activation=nn.ReLU()), *units, Head(384))


def mobilenetv2() -> nn.Module:
    """MobileNetV2-like: inverted residuals that widen six times, ReLU6."""
    blocks = [
        Inverted(inputs, inputs * widening, outputs, stride)
        for inputs, widening, outputs, stride in (
            (24, 1, 16, 1), (16, 4, 24, 2), (24, 6, 24, 1), (24, 6, 40, 2), (40, 6, 40, 1),
            (40, 6, 64, 1), (64, 6, 64, 1), (64, 6, 96, 2), (96, 6, 96, 1),
        )
    ]  # fmt: skip
    last = _convolution(96, 320, activation=nn.ReLU6())
    return nn.Sequential(_convolution(3, 24, 3, activation=nn.ReLU6()), *blocks, last, Head(320))


def mobilenetv3() -> nn.Module:
    """MobileNetV3-like: ReLU, later hard-swish; gates of hard-sigmoid; 3x3 and 5x5."""
    rows: tuple[tuple[int, int, int, int, type[nn.Module], int, bool], ...] = (
        (16, 16, 16, 1, nn.ReLU, 3, True), (16, 64, 24, 2, nn.ReLU, 3, False),
        (24, 88, 24, 1, nn.ReLU, 3, False), (24, 96, 40, 2, nn.Hardswish, 5, True),
        (40, 240, 40, 1, nn.Hardswish, 5, True), (40, 240, 40, 1, nn.Hardswish, 5, True),
        (40, 120, 48, 1, nn.Hardswish, 5, True), (48, 288, 96, 2, nn.Hardswish, 5, True),
        (96, 576, 96, 1, nn.Hardswish, 5, True),
    )  # fmt: skip
    stem = _convolution(3, 16, 3, activation=nn.Hardswish())
    last = _convolution(96, 384, activation=nn.Hardswish())
    return nn.Sequential(stem, *[Inverted(*row) for row in rows], last, Head(384))


class Block(nn.Module):
    """A pre-norm encoder layer, its attention written out so that it exports as MatMuls."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.together, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens, width = x.shape[1:]
        parts = self.together(self.norm1(x)).view(-1, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(-1, tokens, width))
        result: Tensor = x + self.down(nn.functional.gelu(self.up(self.norm2(x))))
        return result


class Vit(nn.Module):
    """A vision transformer: patches of 4, mean of the tokens."""

    def __init__(self, width: int = 128, depth: int = 6, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.places
        result: Tensor = self.linear(self.norm(self.blocks(x)).mean(1))
        return result


BUILDERS = {"shuffle": shuffle, "mobilenetv2": mobilenetv2, "mobilenetv3": mobilenetv3, "vit": Vit}
