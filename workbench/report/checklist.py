"""The deployment checklist: each line a question, its verdict and the evidence for it.

A verdict is `yes`, `attention`, `no` or `not measured`; a line for the whole run has the worst of
its artifacts' verdicts, `not measured` apart. Nothing is taken for granted: without evidence a line
says "not measured".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.measure.robustness import BATCH, CASES, EQUAL
from workbench.report import verdicts
from workbench.report.formats import NOT_MEASURED, few, opset_of
from workbench.report.verdicts import ATTENTION, NO, YES

if TYPE_CHECKING:
    from workbench.report.data import Block, Row, Verified

Judge = Callable[["Block", "Row"], tuple[str, str]]
Headline = Callable[["Block", "list[Row]"], str]
_ORDER = {YES: 0, ATTENTION: 1, NO: 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One artifact's part of a line."""

    label: str
    verdict: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class ChecklistLine:
    """One line: what is asked, the run's verdict, its evidence, and each artifact's part."""

    name: str
    asks: str
    verdict: str
    evidence: str
    findings: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "name": self.name,
            "asks": self.asks,
            "verdict": self.verdict,
            "evidence": self.evidence,
            "artifacts": [vars(finding) for finding in self.findings],
        }


def lines(block: Block, verified: Verified | None) -> tuple[ChecklistLine, ...]:
    """The checklist of a run, in the order in which one would go through it.

    verified: what was found of the folder's files, None where none were read back.
    """
    rows = [row for row in block.rows if row.path]

    def line(name: str, asks: str, judge: Judge, headline: Headline) -> ChecklistLine:
        return _line(name, asks, block, rows, judge, headline)

    return (
        _exports(block),
        line("outputs match", "are each file's outputs the original's?",
             verdicts.matches, verdicts.least_sqnr),
        line("optimized", "is no file larger or slower for it?",
             verdicts.optimized, verdicts.best),
        line("batching", "does a batch give each sample its own outputs?",
             verdicts.batched, verdicts.kinds_of_batches),
        line("error handling", "does the runtime refuse wrong inputs?",
             verdicts.handles, verdicts.kinds_of_handling),
        _verified(verified),
    )  # fmt: skip


def attention(block: Block, verified: Verified | None) -> tuple[str, ...]:
    """A phrase for each line that is not in order, for the terminal."""
    phrases = []
    for line in lines(block, verified):
        if line.verdict in (ATTENTION, NO):
            labels = [
                finding.label for finding in line.findings if finding.verdict in (ATTENTION, NO)
            ]
            which = f" ({few(labels)})" if labels else ""
            phrases.append(f"{line.name}: {line.verdict}{which}")
    return tuple(phrases)


def method() -> Iterator[tuple[str, str]]:
    """How the lines are judged, as names and sentences."""
    limits = ", ".join(f"{least:g} dB for {name}" for name, least in verdicts.MATCHES.items())
    yield (
        "Checklist: outputs match",
        f"SQNR of at least {limits}, {verdicts.MATCHES_OTHERS:g} dB for other precisions; below "
        f"{verdicts.BROKEN:g} dB it is a no. A loss of more than {verdicts.POINTS:g} point of "
        "top-1 wants attention, too.",
    )
    yield (
        "Checklist: batching",
        f"A batch of {BATCH} samples against each sample's own run, equal to {EQUAL:g} of the "
        "largest output.",
    )
    yield (
        "Checklist: error handling",
        f"Each file in a process of its own, given through the runtime's Python API: "
        f"{', '.join(CASES)}. What an app's API checks may be less: the C APIs of TensorFlow Lite "
        "compare sizes alone.",
    )


def _line(
    name: str, asks: str, block: Block, rows: list[Row], judge: Judge, headline: Headline
) -> ChecklistLine:
    findings = []
    for row in rows:
        verdict, evidence = judge(block, row)
        findings.append(Finding(label=row.label, verdict=verdict, evidence=evidence))
    judged = [finding.verdict for finding in findings if finding.verdict in _ORDER]
    verdict = max(judged, key=_ORDER.__getitem__) if judged else NOT_MEASURED
    parts = [_counts(findings), headline(block, rows)]
    return ChecklistLine(
        name=name,
        asks=asks,
        verdict=verdict,
        evidence="; ".join(part for part in parts if part),
        findings=tuple(findings),
    )


def _counts(findings: list[Finding]) -> str:
    """How many artifacts have each verdict."""
    if not findings:
        return "there are no artifacts"
    total = len(findings)
    parts = []
    for verdict in (YES, ATTENTION, NO, NOT_MEASURED):
        count = sum(finding.verdict == verdict for finding in findings)
        if count == total:
            return f"all {total} artifacts" if total > 1 else findings[0].label
        if count:
            parts.append(f"{count} {verdict}")
    return f"of {total} artifacts {', '.join(parts)}"


def _exports(block: Block) -> ChecklistLine:
    findings = []
    for row in block.rows:
        if row.path:
            checks = row.checks
            if checks is None or checks.facts is None:
                why = f" ({'; '.join(checks.missing)})" if checks and checks.missing else ""
                evidence = f"written, not read back{why}"
                findings.append(Finding(label=row.label, verdict=NOT_MEASURED, evidence=evidence))
                continue
            steps = " → ".join(checks.history) or "the file that was given"
            opset = opset_of(checks.facts)
            read = [f"read back as {checks.facts.format}"]
            read += [f"opset {opset}"] if opset is not None else []
            read.append(f"{sum(checks.facts.operators.values())} operators")
            findings.append(
                Finding(label=row.label, verdict=YES, evidence=f"{steps}; {', '.join(read)}")
            )
        elif row.error is not None and row.format != "torch":
            findings.append(Finding(label=row.label, verdict=NO, evidence=row.error.what))
    failed = [finding for finding in findings if finding.verdict == NO]
    written = [finding for finding in findings if finding.verdict == YES]
    verdict = (ATTENTION if written else NO) if failed else (YES if written else NOT_MEASURED)
    return ChecklistLine(
        name="exports",
        asks="did every step write a file that reads back?",
        verdict=verdict,
        evidence=f"{_counts(findings)}; {len(written)} files were written and read back",
        findings=tuple(findings),
    )


def _verified(verified: Verified | None) -> ChecklistLine:
    name, asks = "files verified", "are the files in the folder those that were made?"
    if verified is None:
        return ChecklistLine(
            name=name, asks=asks, verdict=NOT_MEASURED, evidence="nothing was read back"
        )
    if verified.differing:
        evidence = f"{few(list(verified.differing))}: not what was written"
        return ChecklistLine(name=name, asks=asks, verdict=NO, evidence=evidence)
    return ChecklistLine(
        name=name,
        asks=asks,
        verdict=YES,
        evidence=f"{verified.files} files read back, their SHA-256 that of what the steps made; "
        "wb verify compares them again with manifest.json",
    )
