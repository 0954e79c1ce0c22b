"""What a report's table says, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.intervals import Estimate
from workbench.report import words

if TYPE_CHECKING:
    from workbench.report.data import Figures, Report

# A device's outputs of the same file, in percent of samples and in dB: other kernels round INT8
# otherwise (30 dB and more were seen), what is less is a fault.
ALIKE, NEAR = 97.0, 20.0


def findings(report: Report) -> tuple[str, ...]:
    """What the table says, in sentences, the unwelcome ones too."""
    said = []
    if report.error is not None:
        said.append(f"{report.device} failed: {report.error.what}.")
    if report.emulated:
        said.append(
            f"{report.device} is emulated: its times say nothing of the hardware, and are "
            "compared with nothing."
        )
    base, eager = report.row(report.onnx), report.row(report.eager)
    for row in report.rows:
        figures = report.figures[row.key]
        if row.error is not None:
            said.append(f"{row.label} failed: {row.error.what}.")
            continue
        if row.key in (report.eager, report.onnx, report.reference):
            continue
        parts = []
        if base is not None and figures.than_onnx is not None:
            parts.append(f"{_speed_words(figures.than_onnx)} {base.label}")
        elif base is None and eager is not None and figures.than_eager is not None:
            parts.append(f"{_speed_words(figures.than_eager)} {eager.label}")
        if figures.delta is not None:
            parts.append(_delta_words(figures.delta, report.metric))
        elif figures.sqnr is not None or figures.agreement is not None:
            parts.append(_closeness(report, figures))
        if parts:
            said.append(f"{row.label}: {'; '.join(parts)}.")
    said += _strays(report)
    unstable = [row.label for row in report.rows if row.latency and row.latency.unstable]
    if unstable and not report.emulated:
        said.append(
            f"The machine was not quiet while {', '.join(unstable)} ran: its processes differ "
            "by more than 10 %. Close other programs, or measure with --strict."
        )
    return tuple(said)


def _strays(report: Report) -> list[str]:
    """The artifacts whose outputs on the device are not this machine's."""
    found = []
    for row in report.rows:
        one = row.fidelity
        near = one is None or one.sqnr is None or one.sqnr >= NEAR
        if one is None or (near and (one.agreement is None or one.agreement >= ALIKE)):
            continue
        found.append(
            f"{row.label}: {report.device} does not give this machine's outputs: "
            f"{words.fidelity(one.agreement, one.sqnr)}."
        )
    return found


def _closeness(report: Report, figures: Figures) -> str:
    """What stands for accuracy where there are no labels."""
    reference = report.row(report.reference)
    near = "" if figures.sqnr is None else f"SQNR {words.decibels(figures.sqnr)}"
    if figures.agreement is None or reference is None:
        return near
    agrees = f"agrees with {reference.label} on {words.percent(figures.agreement)}"
    return ", ".join(one for one in (agrees, near) if one)


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
    said = words.points(delta, metric)
    if words.known(delta) and not delta.excludes(0):
        return f"no difference in {metric} shown, {said}"
    return f"{metric} {said}"
