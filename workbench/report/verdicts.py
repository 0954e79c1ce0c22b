"""The verdict and the evidence on one artifact, for each line of the deployment checklist.

Each function takes a report and one of its rows and gives a verdict with what it rests on; those on
rows give a line's headline.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench.measure.robustness import ACCEPTED, CRASHED, NOT_TRIED, REFUSED
from workbench.report import words
from workbench.report.data import PRECISION
from workbench.report.formats import NOT_MEASURED

if TYPE_CHECKING:
    from workbench.inspect.facts import Facts
    from workbench.measure.robustness import Misuse
    from workbench.report.data import Block, Row

YES, ATTENTION, NO = "yes", "attention", "no"

# The least SQNR in dB of outputs that match, by the precision of the weights and activations:
# float32 loses its last bits (each conversion is held to 1e-3 of the values, 60 dB), float16 has 11
# bits (66 dB a value, less what sums lose), 8 bits give networks that keep their accuracy 20 to 40.
MATCHES = {"float32": 60.0, "float16": 40.0, "int16": 30.0}
MATCHES_OTHERS = 20.0
# Below it the difference is a third of the outputs' size, and classes are lost.
BROKEN = 10.0
CLASSES = 99.0  # percent of samples with the reference's, where a file gives nothing else
_BETWEEN = {"quantizelinear", "dequantizelinear", "dynamicquantizelinear", "quantize", "dequantize"}
POINTS = 1.0  # of top-1: a loss beyond it, with its interval, wants attention


def least_sqnr(block: Block, rows: list[Row]) -> str:
    """The artifact whose outputs are farthest from the reference's."""
    ratios = [(block.figures[row.key].sqnr, row.label) for row in rows]
    measured = [(sqnr, label) for sqnr, label in ratios if sqnr is not None]
    if not measured:
        return ""
    sqnr, label = min(measured)
    return f"the least SQNR is {words.decibels(sqnr)}, of {label}, on {block.samples} samples"


def best(block: Block, rows: list[Row]) -> str:
    """The smallest and the fastest file."""
    parts = []
    sizes = [(row.bytes, row.label) for row in rows if row.bytes]
    if sizes:
        size, label = min(sizes)
        parts.append(f"the smallest is {label}, {words.size(size)}")
    speeds = [(row.latency.median.value, row.label) for row in rows if row.latency]
    if speeds:
        speed, label = min(speeds)
        parts.append(f"the fastest is {label}, {words.milliseconds(speed)} ms")
    return ", ".join(parts)


def kinds_of_batches(block: Block, rows: list[Row]) -> str:
    """How many artifacts take batches, and how many one sample at a time."""
    tried = [row.checks.robustness.batching for row in rows if row.checks and row.checks.robustness]
    single = sum(batching.fixed == 1 for batching in tried)
    equal = sum(batching.equal for batching in tried)
    parts = [f"{equal} gave each sample its own outputs in a batch"] if equal else []
    parts += (
        [f"{single} {'takes' if single == 1 else 'take'} one sample at a time"] if single else []
    )
    return ", ".join(parts)


def kinds_of_handling(block: Block, rows: list[Row]) -> str:
    """The cases that each file refused, where it refused all of them; crashes by their number."""
    tried = [row.checks.robustness.misuses for row in rows if row.checks and row.checks.robustness]
    wrong = [misuse for misuses in tried for misuse in misuses if misuse.case != "NaN inputs"]
    refused = sum(misuse.outcome == REFUSED for misuse in wrong)
    crashed = sum(misuse.outcome == CRASHED for misuses in tried for misuse in misuses)
    if not wrong:
        return ""
    parts = [f"{refused} of {len(wrong)} wrong inputs were refused with an error"]
    parts += [f"{crashed} ended the process"] if crashed else []
    return ", ".join(parts)


def matches(block: Block, row: Row) -> tuple[str, str]:
    """The outputs against the reference's, judged by what the precision can keep."""
    scores, reference = row.scores, block.row(block.reference)
    if scores is None:
        why = row.error.what if row.error else "its outputs were not scored"
        return NOT_MEASURED, why if block.samples else "there are no evaluation samples"
    if reference is None or row.key == block.reference:
        return NOT_MEASURED, "it is what the others are compared with"
    figures = block.figures[row.key]
    if figures.sqnr is None:
        return _same_classes(block, row, reference.label)
    least = MATCHES.get(row.precision, MATCHES_OTHERS)
    evidence = [f"SQNR {words.decibels(figures.sqnr)} on {block.samples} samples"]
    if figures.agreement is not None:
        evidence.append(f"the class of {reference.label} on {words.percent(figures.agreement)}")
    verdict = YES
    if not figures.sqnr >= least:  # not-a-number too
        verdict = ATTENTION if figures.sqnr >= BROKEN else NO
        kind = PRECISION.get(row.precision, row.precision)
        evidence.append(f"{least:g} dB are expected of {kind}")
    delta = figures.delta
    if delta is not None:
        evidence.append(f"{block.metric} {words.points(delta, block.metric)}")
        lost = block.metric == "top-1" and delta.value < -POINTS and delta.excludes(0)
        if lost and verdict == YES:
            verdict = ATTENTION
    return verdict, "; ".join(evidence)


def _same_classes(block: Block, row: Row, reference: str) -> tuple[str, str]:
    """Of a file that gives only the class: how often it is the reference's."""
    agreement = block.figures[row.key].agreement
    if agreement is None:
        return NOT_MEASURED, "its outputs were not scored"
    same = f"the class of {reference} on {words.percent(agreement)} of {block.samples} samples"
    return (YES if agreement >= CLASSES else ATTENTION), same


def optimized(block: Block, row: Row) -> tuple[str, str]:
    """Nodes, size and speed against FP32 ONNX, or against PyTorch eager for FP32 ONNX itself."""
    figures, checks = block.figures[row.key], row.checks
    evidence = []
    if checks is not None and checks.facts is not None and checks.nodes_before is not None:
        evidence.append(f"{checks.nodes_before} nodes exported, {_operators(checks.facts)} here")
    if figures.smaller is not None:
        base = block.row(block.eager) or block.row(block.onnx)
        assert base is not None
        if base is not row:
            evidence.append(f"{words.times(figures.smaller)} smaller than {base.label}")
    against = block.onnx if row.key != block.onnx else block.eager
    ratio = figures.than_onnx if row.key != block.onnx else figures.than_eager
    base = block.row(against)
    if ratio is None or base is None:
        speed = "speed not measured"
    elif words.known(ratio) and not ratio.excludes(1):
        speed = f"no difference in speed from {base.label} {words.interval(ratio, 2)}"
    else:
        slow = "SLOWER: " if words.slower(ratio) else ""
        speed = f"{slow}{words.faster(ratio)} the speed of {base.label}"
    evidence.append(speed)
    # A float file has the weights it was made from, and a graph around them.
    quantized = row.precision != "float32"
    larger = quantized and figures.smaller is not None and figures.smaller < 1
    if words.slower(ratio):
        smaller = figures.smaller is not None and figures.smaller > 1.1
        verdict = ATTENTION if smaller else NO
    elif larger:
        verdict = ATTENTION
    elif ratio is None:
        verdict = NOT_MEASURED
    else:
        verdict = YES
    return verdict, "; ".join(evidence)


def _operators(facts: Facts) -> str:
    """How many operators a file has, those apart that only go between numbers and integers."""
    total = sum(facts.operators.values())
    between = sum(n for name, n in facts.operators.items() if name.lower() in _BETWEEN)
    return f"{total} ({between} of them to and from integers)" if between else str(total)


def batched(block: Block, row: Row) -> tuple[str, str]:
    """A batch must give each sample the outputs of its own run; a fixed batch of 1 is in order."""
    checks = row.checks
    if checks is None or checks.robustness is None:
        return _nothing(row)
    batching = checks.robustness.batching
    if batching.fixed == 1:
        return YES, "takes one sample at a time: its batch is fixed to 1"
    if batching.fixed:
        return ATTENTION, f"takes batches of {batching.fixed}, no others"
    if not batching.samples:
        return NO, f"its batch axis is open, and a batch did not run: {batching.said}"
    if batching.equal:
        return YES, f"a batch of {batching.samples} gives each sample's own outputs"
    near = words.decibels(batching.sqnr)
    bad = batching.sqnr is None or not batching.sqnr >= MATCHES_OTHERS
    return (
        NO if bad else ATTENTION,
        f"in a batch of {batching.samples} a sample's outputs are not those of its own run: "
        f"SQNR {near}, by up to {_percent(batching.difference)} of the largest output",
    )


def _percent(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return "any part"
    return f"{100 * share:.2g} %"


def handles(block: Block, row: Row) -> tuple[str, str]:
    """Wrong inputs must be refused; a crash is the worst. NaN is a value: it is only told."""
    checks = row.checks
    if checks is None or checks.robustness is None:
        return _nothing(row)
    misuses = checks.robustness.misuses
    outcomes = {misuse.outcome for misuse in misuses if misuse.case != "NaN inputs"}
    verdict = YES
    if NOT_TRIED in outcomes:
        verdict = NOT_MEASURED
    if ACCEPTED in outcomes:
        verdict = ATTENTION
    if any(misuse.outcome == CRASHED for misuse in misuses):
        verdict = NO
    return verdict, "; ".join(_told(misuses))


def _told(misuses: tuple[Misuse, ...]) -> Iterator[str]:
    refused = [misuse.case for misuse in misuses if misuse.outcome == REFUSED]
    if refused:
        yield f"refused with an error: {', '.join(refused)}"
    for misuse in misuses:
        if misuse.outcome == CRASHED:
            yield f"{misuse.case}: THE PROCESS DIED ({misuse.said})"
        elif misuse.outcome == ACCEPTED and misuse.case == "NaN inputs":
            yield f"{misuse.case} are taken: {misuse.said}"
        elif misuse.outcome == ACCEPTED:
            yield f"{misuse.case} taken in silence: {misuse.said}"
        elif misuse.outcome == NOT_TRIED:
            yield f"{misuse.case} not tried: {misuse.said}"


def _nothing(row: Row) -> tuple[str, str]:
    missing = row.checks.missing if row.checks else ()
    return NOT_MEASURED, "; ".join(missing) or "it was not tried"
