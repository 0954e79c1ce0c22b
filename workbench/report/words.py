"""Figures as text, the same in every form of the report. An absent figure is an en dash."""

from __future__ import annotations

import math
from collections.abc import Mapping

from workbench.intervals import Estimate

NOTHING = "–"
KINDS = 8  # of operators, in a list of them


def size(count: int | None) -> str:
    """Bytes in decimal units, as stores and download sizes count them."""
    if count is None:
        return NOTHING
    if count >= 1e6:
        return f"{count / 1e6:.2f} MB"
    return f"{count / 1e3:.0f} kB" if count >= 1e3 else f"{count} B"


def times(ratio: float | None) -> str:
    """A ratio: `3.83×`."""
    return NOTHING if ratio is None else f"{ratio:.2f}×"


def known(estimate: Estimate) -> bool:
    """A single process gives a value, but no interval."""
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)


def interval(estimate: Estimate, digits: int, sign: str = "") -> str:
    """`[4.10, 4.31]`; of one process there is none."""
    if not known(estimate):
        return "[unknown]"
    return f"[{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"


def milliseconds(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NOTHING
    return f"{value:.{_digits(value)}f}"


def _digits(value: float) -> int:
    return 0 if value <= 0 else max(0, min(4, 2 - math.floor(math.log10(value))))


def milliseconds_interval(estimate: Estimate | None) -> str:
    """`4.20 [4.10, 4.31]`, with as many digits as the value is worth."""
    if estimate is None:
        return NOTHING
    digits = _digits(estimate.value)
    return f"{estimate.value:.{digits}f} {interval(estimate, digits)}"


def faster(ratio: Estimate | None) -> str:
    """A speed-up with its interval; "no difference" where the interval contains 1."""
    if ratio is None:
        return NOTHING
    if known(ratio) and not ratio.excludes(1):
        return f"no difference {interval(ratio, 2)}"
    return f"{ratio.value:.2f}× {interval(ratio, 2)}"


def slower(ratio: Estimate | None) -> bool:
    """Whether a speed-up is the opposite, and the interval says so."""
    return ratio is not None and ratio.excludes(1) and ratio.value < 1


def percent(value: float | None, digits: int = 2) -> str:
    """`98.40 %`."""
    return NOTHING if value is None else f"{value:.{digits}f} %"


def accuracy(value: float | None, metric: str) -> str:
    """Percent for top-1, the bare number for a user's metric."""
    if value is None:
        return NOTHING
    return percent(value) if metric == "top-1" else f"{value:.4g}"


def points(delta: Estimate | None, metric: str = "top-1") -> str:
    """A difference in points of top-1, or in a user's unit to three digits of its interval."""
    if delta is None:
        return NOTHING
    digits = 2
    if metric != "top-1":
        ends = [abs(one) for one in (delta.value, delta.low, delta.high) if math.isfinite(one)]
        digits = _digits(max(ends, default=0.0)) if any(ends) else 2
    return f"{delta.value:+.{digits}f} {interval(delta, digits, '+')}"


def decibels(value: float | None) -> str:
    """`38.1 dB`; equal outputs read `equal`."""
    if value is None:
        return NOTHING
    if math.isinf(value):
        return "equal" if value > 0 else "−∞"
    return f"{value:.1f} dB"


def placement(nodes: Mapping[str, int], left: Mapping[str, int]) -> str:
    """`CUDAExecutionProvider: 41 nodes, CPUExecutionProvider: 3 nodes (Softmax ×2, TopK)`."""
    parts = [
        f"{name}: {count} {'node' if count == 1 else 'nodes'}" for name, count in nodes.items()
    ]
    if parts and left:
        shown = [f"{name} ×{count}" if count > 1 else name for name, count in left.items()]
        more = f" and {len(shown) - KINDS} other operators" if len(shown) > KINDS else ""
        parts[-1] += f" ({', '.join(shown[:KINDS])}{more})"  # what runs on the CPU comes last
    return ", ".join(parts)


def fidelity(agreement: float | None, sqnr: float | None) -> str:
    """How near a device's outputs are to this machine's: `100.00 %, 131.2 dB`."""
    parts = [percent(agreement)] if agreement is not None else []
    parts += [decibels(sqnr)] if sqnr is not None else []
    return ", ".join(parts) or NOTHING


def operators(times: Mapping[str, float]) -> str:
    """`Conv 1.92 ms (71 %), Add 0.31 ms (11 %), …`, the slowest first."""
    total = sum(times.values())
    slowest = sorted(times.items(), key=lambda item: -item[1])
    shown = [
        f"{name} {milliseconds(spent)} ms ({100 * spent / total:.0f} %)"
        for name, spent in slowest[:KINDS]
        if total > 0
    ]
    more = f" and {len(slowest) - KINDS} other operators" if len(slowest) > KINDS else ""
    return ", ".join(shown) + more
