"""Networks over sequences: a BERT-like encoder, bidirectional LSTM and GRU. Small and seeded.

The file stands alone, for it is copied as a user's `net.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WORDS, LENGTH, FEATURES, CLASSES = 500, 32, 12, 4


class Layer(nn.Module):
    """A post-norm encoder layer, as BERT has."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, c = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(n, t, self.heads, c // self.heads).transpose(1, 2)

        scores = split(self.query(x)) @ split(self.key(x)).transpose(2, 3)
        weights = (scores / (c // self.heads) ** 0.5 + mask).softmax(-1)
        mixed = (weights @ split(self.value(x))).transpose(1, 2).reshape(n, t, c)
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.down(functional.gelu(self.up(x))))


class Bert(nn.Module):
    """Token ids [N, T] and a mask [N, T] of ones and zeros to logits [N, 4]."""

    def __init__(
        self, words: int = WORDS, length: int = LENGTH, width: int = 64, depth: int = 2,
        heads: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(depth)])
        self.pooler, self.head = nn.Linear(width, width), nn.Linear(width, CLASSES)
        for part in self.modules():  # BERT's own initialisation
            if isinstance(part, nn.Linear | nn.Embedding):
                nn.init.normal_(part.weight, std=width**-0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.norm(self.words(input_ids) + self.places(places))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, mask)
        logits: Tensor = self.head(torch.tanh(self.pooler(x[:, 0])))
        return logits


def bert() -> nn.Module:
    torch.manual_seed(0)
    return Bert().eval()


class Recurrent(nn.Module):
    """Features [N, T, 12] through a recurrent layer in both directions to logits [N, 4]."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(FEATURES, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found, _ = self.cell(x)
        logits: Tensor = self.head(found.mean(1))
        return logits


def lstm() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(nn.LSTM).eval()


def gru() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(nn.GRU).eval()
