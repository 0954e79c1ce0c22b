"""What a report's table says, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.intervals import Estimate
from workbench.report import words

if TYPE_CHECKING:
    from workbench.report.data import Block, Figures

# A device's outputs of the same file, in percent of samples and in dB: other kernels round INT8
# otherwise (30 dB and more were seen), what is less is a fault.
ALIKE, NEAR = 97.0, 20.0


def findings(block: Block) -> tuple[str, ...]:
    """What the table says, in sentences, the unwelcome ones too."""
    sentences = []
    if block.error is not None:
        sentences.append(f"{block.device} failed: {block.error.what}.")
    if block.emulated:
        sentences.append(
            f"{block.device} is emulated: its times say nothing of the hardware, and are "
            "compared with nothing."
        )
    base, eager = block.row(block.onnx), block.row(block.eager)
    for row in block.rows:
        figures = block.figures[row.key]
        if row.error is not None:
            sentences.append(f"{row.label} failed: {row.error.what}.")
            continue
        if row.key in (block.eager, block.onnx, block.reference):
            continue
        parts = []
        if base is not None and figures.than_onnx is not None:
            parts.append(f"{_speed_words(figures.than_onnx)} {base.label}")
        elif base is None and eager is not None and figures.than_eager is not None:
            parts.append(f"{_speed_words(figures.than_eager)} {eager.label}")
        if figures.delta is not None:
            parts.append(_delta_words(figures.delta, block.metric))
        elif figures.sqnr is not None or figures.agreement is not None:
            parts.append(_closeness(block, figures))
        if parts:
            sentences.append(f"{row.label}: {'; '.join(parts)}.")
    sentences += _strays(block)
    unstable = [row.label for row in block.rows if row.latency and row.latency.unstable]
    if unstable and not block.emulated:
        sentences.append(
            f"The machine was not quiet while {', '.join(unstable)} ran: its processes differ "
            "by more than 10 %. Close other programs, or measure with --strict."
        )
    return tuple(sentences)


def _strays(block: Block) -> list[str]:
    """The artifacts whose outputs on the device are not this machine's."""
    sentences = []
    for row in block.rows:
        fidelity = row.fidelity
        near = fidelity is None or fidelity.sqnr is None or fidelity.sqnr >= NEAR
        if fidelity is None or (
            near and (fidelity.agreement is None or fidelity.agreement >= ALIKE)
        ):
            continue
        sentences.append(
            f"{row.label}: {block.device} does not give this machine's outputs: "
            f"{words.fidelity(fidelity.agreement, fidelity.sqnr)}."
        )
    return sentences


def _closeness(block: Block, figures: Figures) -> str:
    """What stands for accuracy where there are no labels."""
    reference = block.row(block.reference)
    near = "" if figures.sqnr is None else f"SQNR {words.decibels(figures.sqnr)}"
    if figures.agreement is None or reference is None:
        return near
    agrees = f"agrees with {reference.label} on {words.percent(figures.agreement)}"
    return ", ".join(part for part in (agrees, near) if part)


def _speed_words(ratio: Estimate) -> str:
    interval = words.interval(ratio, 2)
    if not words.known(ratio):
        return f"{ratio.value:.2f}× {interval} the speed of"
    if not ratio.excludes(1):
        return f"no difference in speed {interval} from"
    if ratio.value > 1:
        return f"{ratio.value:.2f}× faster {interval} than"
    return f"SLOWER, {ratio.value:.2f}× {interval} the speed of"


def _delta_words(delta: Estimate, metric: str) -> str:
    points = words.points(delta, metric)
    if words.known(delta) and not delta.excludes(0):
        return f"no difference in {metric} shown, {points}"
    return f"{metric} {points}"
