"""Small networks whose channels hang together in the ways that pruning meets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """In eval mode, with statistics of its own in BatchNorm."""
    torch.manual_seed(seed)
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.3, 0.3)
            nn.init.uniform_(part.running_mean, -0.3, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.eval()


class Plain(nn.Module):
    """Two convolutions, a map that is flattened, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 24, 3, 2, 1)
        self.linear = nn.Linear(24 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        return self.linear(torch.relu(self.second(x)).flatten(1))


class Padded(nn.Module):
    """A shortcut with channels of zeros before and behind, as in ResNets for CIFAR."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(8, 24, 3, 2, 1), nn.Conv2d(24, 16, 3, padding=1)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.outer(torch.relu(self.inner(x)))
        x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.linear(torch.relu(x + y).mean((2, 3)))


class Shuffled(nn.Module):
    """Channels that are shuffled as ShuffleNet does, without a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.linear = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.linear(torch.relu(self.second(x)).mean((2, 3)))


class Joined(nn.Module):
    """Two inputs, a depthwise convolution, and maps one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
        self.depth = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.point, self.linear = nn.Conv2d(24, 16, 1), nn.Linear(16, 5)

    def forward(self, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        x = torch.cat([torch.relu(self.left(image)), torch.relu(self.right(depth))], 1)
        x = torch.relu(self.point(torch.relu(self.depth(x))))
        return {"classes": self.linear(x.mean((2, 3))), "strength": x.mean((1, 2, 3))}


class Grouped(nn.Module):
    """A grouped convolution in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.last, self.linear = nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.middle(torch.relu(self.first(x))))
        return self.linear(torch.relu(self.last(x)).mean((2, 3)))


class Unused(nn.Module):
    """A layer that forward leaves out, and one whose parameter stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.never = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1)
        self.shift = nn.Parameter(torch.randn(1, 16, 1, 1))
        self.second, self.linear = nn.Conv2d(16, 16, 1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x) + self.shift)
        return self.linear(torch.relu(self.second(x)).mean((2, 3)))


def image(count: int = 4, channels: int = 3, size: int = 8, seed: int = 1) -> Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))
