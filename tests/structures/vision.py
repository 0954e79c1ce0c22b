"""Image networks [N, 3, 64, 64] of the shapes that mobile teams bring: small, seeded, untrained.

The file stands alone, for it is copied as a user's `net.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


def settled(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """The network in eval mode, its BatchNorm statistics those of its own activations.

    With the initial ones an untrained network's signal dies out or explodes from layer to layer,
    and there would be nothing to quantize.
    """
    torch.manual_seed(seed)
    module = make()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # a plain average over the batches below
                nn.init.uniform_(part.weight, 0.7, 1.3)
                nn.init.uniform_(part.bias, -0.2, 0.2)
        module.train()
        for _ in range(2):
            module(torch.randn(8, 3, 64, 64))
    return module.eval()


def conv(
    inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU6,
) -> nn.Sequential:  # fmt: skip
    parts = [nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False),
             nn.BatchNorm2d(outside)]  # fmt: skip
    return nn.Sequential(*parts, act()) if act else nn.Sequential(*parts)


class Head(nn.Sequential):
    """Global average pooling and a linear layer to the classes."""

    def __init__(self, channels: int) -> None:
        linear = nn.Linear(channels, CLASSES)
        # As far apart as a trained network's: of near ties every rounding makes another class.
        nn.init.normal_(linear.weight, std=0.5)
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, gate: Callable[[], nn.Module]) -> None:
        super().__init__()
        inner = max(4, channels // 4)
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1),
                                    nn.ReLU(), nn.Conv2d(inner, channels, 1), gate())  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, (squeeze-excite,) project; added to its input where shapes allow."""

    def __init__(
        self, inside: int, outside: int, stride: int, act: Callable[[], nn.Module],
        gate: Callable[[], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        wide = 4 * inside
        excite = [SqueezeExcite(wide, gate)] if gate else []
        self.layers = nn.Sequential(
            conv(inside, wide, 1, act=act), conv(wide, wide, 3, stride, wide, act), *excite,
            conv(wide, outside, 1, act=None),
        )  # fmt: skip
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return x + found if self.residual else found


def inverted(act: Callable[[], nn.Module], gate: Callable[[], nn.Module] | None) -> nn.Module:
    def block(inside: int, outside: int, stride: int) -> nn.Module:
        return InvertedResidual(inside, outside, stride, act, gate)

    return nn.Sequential(
        conv(3, 16, 3, 2, act=act), block(16, 16, 1), block(16, 24, 2), block(24, 24, 1),
        block(24, 40, 2), conv(40, 96, 1, act=act), Head(96),
    )  # fmt: skip


def mobilenet_v2() -> nn.Module:
    return settled(lambda: inverted(nn.ReLU6, None))


def mobilenet_v3() -> nn.Module:
    """Hard-swish, and squeeze-excite with a hard sigmoid."""
    return settled(lambda: inverted(nn.Hardswish, nn.Hardsigmoid))


def efficientnet() -> nn.Module:
    """SiLU, and squeeze-excite with a sigmoid."""
    return settled(lambda: inverted(nn.SiLU, nn.Sigmoid))


class Basic(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(inside, outside, 3, stride, act=nn.ReLU), conv(outside, outside, 3, act=None)
        )
        same = stride == 1 and inside == outside
        self.shortcut = nn.Identity() if same else conv(inside, outside, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.layers(x) + self.shortcut(x))


def resnet() -> nn.Module:
    def make() -> nn.Module:
        stem = conv(3, 16, 7, 2, act=nn.ReLU), nn.MaxPool2d(3, 2, 1)
        stages = Basic(16, 16, 1), Basic(16, 32, 2), Basic(32, 32, 1), Basic(32, 64, 2)
        return nn.Sequential(*stem, *stages, Head(64))

    return settled(make)


class Shuffle(nn.Module):
    """A ShuffleNet unit: grouped 1×1, channels shuffled between the groups, depthwise, grouped."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.first = conv(channels, channels, 1, groups=groups, act=nn.ReLU)
        self.depthwise = conv(channels, channels, 3, groups=channels, act=None)
        self.last = conv(channels, channels, 1, groups=groups, act=None)

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x)
        n, c, h, w = found.shape
        found = found.view(n, self.groups, c // self.groups, h, w).transpose(1, 2)
        found = found.reshape(n, c, h, w)
        return functional.relu(x + self.last(self.depthwise(found)))


def shufflenet() -> nn.Module:
    def make() -> nn.Module:
        first = conv(3, 24, 3, 2, act=nn.ReLU), Shuffle(24, 3), nn.MaxPool2d(2), Shuffle(24, 3)
        return nn.Sequential(*first, conv(24, 48, 3, 2, act=nn.ReLU), Shuffle(48, 3), Head(48))

    return settled(make)


class UNet(nn.Module):
    """Two levels, bilinear resize on the way up, a mask [N, 2, 64, 64] of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 16, 3, act=nn.ReLU), conv(16, 32, 3, 2, act=nn.ReLU)
        self.bottom = conv(32, 48, 3, 2, act=nn.ReLU)
        self.up_two, self.up_one = conv(80, 32, 3, act=nn.ReLU), conv(48, 16, 3, act=nn.ReLU)
        self.mask = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        def up(small: Tensor) -> Tensor:
            return functional.interpolate(
                small, scale_factor=2, mode="bilinear", align_corners=False
            )

        one = self.one(x)
        two = self.two(one)
        found = self.up_two(torch.cat([up(self.bottom(two)), two], 1))
        mask: Tensor = self.mask(self.up_one(torch.cat([up(found), one], 1)))
        return mask


def unet() -> nn.Module:
    return settled(UNet)


class Detector(nn.Module):
    """Two feature maps with three anchors a cell; boxes decoded as SSD does.

    boxes [N, 240, 4] as (left, top, right, bottom) in 0…1, scores [N, 240, 5] as probabilities.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), conv(32, 48, 3, 2))
        self.deeper = conv(48, 64, 3, 2)
        self.boxes = nn.ModuleList([nn.Conv2d(48, 12, 3, 1, 1), nn.Conv2d(64, 12, 3, 1, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(48, 15, 3, 1, 1), nn.Conv2d(64, 15, 3, 1, 1)])
        places = []
        for size in (8, 4):
            middle = (torch.arange(size) + 0.5) / size
            y, x = torch.meshgrid(middle, middle, indexing="ij")
            for y_, x_ in zip(y.flatten(), x.flatten(), strict=True):
                places += [[x_, y_, w / size, h / size] for w, h in ((1, 1), (2, 1), (1, 2))]
        self.register_buffer("anchors", torch.tensor(places))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        near = self.body(x)
        maps = (near, self.deeper(near))

        def flat(heads: nn.ModuleList, width: int) -> Tensor:
            found = [head(one).permute(0, 2, 3, 1).reshape(one.shape[0], -1, width)
                     for head, one in zip(heads, maps, strict=True)]  # fmt: skip
            return torch.cat(found, 1)

        moved = flat(self.boxes, 4)
        centre = self.anchors[:, :2] + 0.1 * moved[..., :2] * self.anchors[:, 2:]
        size = self.anchors[:, 2:] * torch.exp(0.2 * moved[..., 2:])
        boxes = torch.cat([centre - size / 2, centre + size / 2], -1)
        return {"boxes": boxes, "scores": flat(self.scores, 5).softmax(-1)}


def detector() -> nn.Module:
    return settled(Detector)


class Patches(nn.Module):
    """A vision transformer: patches of 8×8, a class token, pre-norm blocks, exact GELU."""

    def __init__(self, width: int = 64, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.place = nn.Parameter(0.2 * torch.randn(1, 65, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found = self.embed(x).flatten(2).transpose(1, 2)
        found = torch.cat([self.token.expand(x.shape[0], -1, -1), found], 1) + self.place
        for block in self.blocks:
            found = block(found)
        logits: Tensor = self.head(self.norm(found)[:, 0])
        return logits


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


def vit() -> nn.Module:
    return settled(Patches)


class TwoInputs(nn.Module):
    """An image and a vector of 6 measurements, as a camera with sensors gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), nn.AdaptiveAvgPool2d(1),
                                   nn.Flatten())  # fmt: skip
        self.sensors = nn.Sequential(nn.Linear(6, 16), nn.ReLU())
        self.head = nn.Linear(48, CLASSES)

    def forward(self, image: Tensor, sensors: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.image(image), self.sensors(sensors)], 1))
        return logits


def two_inputs() -> nn.Module:
    torch.manual_seed(0)
    module = TwoInputs().train()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
        module(torch.randn(8, 3, 64, 64), torch.randn(8, 6))
    return module.eval()


class Exposure(nn.Module):
    """Dark images take another way than bright ones: the branch hangs on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = nn.Sequential(conv(3, 16, 3, 2), Head(16))
        self.dark = nn.Sequential(conv(3, 16, 5, 2), conv(16, 16, 3, 2), Head(16))

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.mean() > 0):
            found: Tensor = self.bright(x)
        else:
            found = self.dark(x)
        return found


def control_flow() -> nn.Module:
    torch.manual_seed(0)
    module = Exposure().train()
    with torch.no_grad():
        for _ in range(2):
            module(torch.randn(8, 3, 64, 64) + 1)
            module(torch.randn(8, 3, 64, 64) - 1)
    return module.eval()
