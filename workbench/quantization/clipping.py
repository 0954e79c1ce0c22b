"""The range of an activation by its error behind the nonlinearity, weighed by channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.quantization.plan import LEVELS, Range, Scheme

if TYPE_CHECKING:
    import torch

POWER = 3.0  # between the mean square, which clips too much, and the maximum, which clips nothing


def quantized(x: torch.Tensor, found: Range, scheme: Scheme) -> torch.Tensor:
    """Values on the grid of a range, as QuantizeLinear and DequantizeLinear give them."""
    import torch

    scale, zero = found.grid(scheme)
    low, high = (1, 255) if scheme.symmetric else (0, LEVELS)
    return (torch.round(x / float(scale)) + zero).clamp_(low, high).sub_(zero).mul_(float(scale))


def searched(
    floats: torch.Tensor,
    quants: torch.Tensor,
    weights: torch.Tensor,
    extremes: tuple[float, float],
    scheme: Scheme,
    after: Callable[[torch.Tensor], torch.Tensor] | None = None,
    power: float = POWER,
) -> Range:
    """The range that minimises mean(w |g(Q(y_q)) - g(y_f)|^p) over a sample of elements [n].

    floats, quants: the same elements on the float and the quantized path, before the tensor is
    quantized. weights [n]: of each element's channel. after: g, the nonlinearity that follows;
    what it squashes need not be represented. Coordinate descent: 12 points of each end, twice,
    then 8 finer ones.
    """
    import torch

    low, high = min(extremes[0], 0.0), max(extremes[1], 0.0)
    if high - low < 1e-12:
        return Range(low, high)
    aim = after(floats) if after else floats

    def loss(ends: tuple[float, float]) -> float:
        made = quantized(quants, Range(*ends), scheme)
        made = after(made) if after else made
        return float((weights * (made - aim).abs_().pow_(power)).mean())

    best = (low, high)
    least = loss(best)
    # Symmetric grids have one parameter: both ends shrink together.
    wide = torch.linspace(0.15, 1, 12).tolist(), torch.linspace(0.1, 1, 12).tolist()

    def attempt(tried: tuple[float, float]) -> None:
        nonlocal best, least
        found = loss(tried)
        if found < least:
            best, least = tried, found

    for _ in range(2):
        for part in wide[0]:
            attempt((best[0] * part if scheme.symmetric else best[0], high * part))
        for part in wide[1] if low < 0 and not scheme.symmetric else ():
            attempt((low * part, best[1]))
    for step in (0.04, 0.02, 0.01, 0.005):
        for sign in (-1, 1):
            attempt((best[0], best[1] * (1 + sign * step)))
            if low < 0:
                attempt((best[0] * (1 + sign * step), best[1]))
    return Range(*best)
