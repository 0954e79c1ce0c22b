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
    from workbench.report.data import Report, Row

Judge = Callable[["Report", "Row"], tuple[str, str]]
Headline = Callable[["Report", "list[Row]"], str]
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
        return {
            "name": self.name,
            "asks": self.asks,
            "verdict": self.verdict,
            "evidence": self.evidence,
            "artifacts": [vars(finding) for finding in self.findings],
        }


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Files of the run folder read back after writing.

    files: how many artifacts and files beside them were compared with the digests of what the
    steps made. differing: those that were not equal.
    """

    files: int
    differing: tuple[str, ...] = ()


def lines(report: Report) -> tuple[ChecklistLine, ...]:
    """The checklist of a run, in the order in which one would go through it."""
    rows = [row for row in report.rows if row.path]

    def line(name: str, asks: str, judge: Judge, headline: Headline) -> ChecklistLine:
        return _line(name, asks, report, rows, judge, headline)

    return (
        _exports(report),
        line("outputs match", "are each file's outputs the original's?",
             verdicts.matches, verdicts.least_sqnr),
        line("optimized", "is no file larger or slower for it?",
             verdicts.optimized, verdicts.best),
        line("batching", "does a batch give each sample its own outputs?",
             verdicts.batched, verdicts.kinds_of_batches),
        line("error handling", "does the runtime refuse wrong inputs?",
             verdicts.handles, verdicts.kinds_of_handling),
        _verified(report),
    )  # fmt: skip


def attention(report: Report) -> tuple[str, ...]:
    """A phrase for each line that is not in order, for the terminal."""
    said = []
    for line in lines(report):
        if line.verdict in (ATTENTION, NO):
            labels = [one.label for one in line.findings if one.verdict in (ATTENTION, NO)]
            which = f" ({few(labels)})" if labels else ""
            said.append(f"{line.name}: {line.verdict}{which}")
    return tuple(said)


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
    name: str, asks: str, report: Report, rows: list[Row], judge: Judge, headline: Headline
) -> ChecklistLine:
    findings = []
    for row in rows:
        verdict, evidence = judge(report, row)
        findings.append(Finding(label=row.label, verdict=verdict, evidence=evidence))
    known = [one.verdict for one in findings if one.verdict in _ORDER]
    verdict = max(known, key=_ORDER.__getitem__) if known else NOT_MEASURED
    said = [_counts(findings), headline(report, rows)]
    return ChecklistLine(
        name=name,
        asks=asks,
        verdict=verdict,
        evidence="; ".join(part for part in said if part),
        findings=tuple(findings),
    )


def _counts(findings: list[Finding]) -> str:
    """How many artifacts have each verdict."""
    if not findings:
        return "there are no artifacts"
    total = len(findings)
    parts = []
    for verdict in (YES, ATTENTION, NO, NOT_MEASURED):
        count = sum(one.verdict == verdict for one in findings)
        if count == total:
            return f"all {total} artifacts" if total > 1 else findings[0].label
        if count:
            parts.append(f"{count} {verdict}")
    return f"of {total} artifacts {', '.join(parts)}"


def _exports(report: Report) -> ChecklistLine:
    findings = []
    for row in report.rows:
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
    failed = [one for one in findings if one.verdict == NO]
    made = [one for one in findings if one.verdict == YES]
    verdict = (ATTENTION if made else NO) if failed else (YES if made else NOT_MEASURED)
    return ChecklistLine(
        name="exports",
        asks="did every step write a file that reads back?",
        verdict=verdict,
        evidence=f"{_counts(findings)}; {len(made)} files were written and read back",
        findings=tuple(findings),
    )


def _verified(report: Report) -> ChecklistLine:
    found = report.verified
    name, asks = "files verified", "are the files in the folder those that were made?"
    if found is None:
        return ChecklistLine(
            name=name, asks=asks, verdict=NOT_MEASURED, evidence="nothing was read back"
        )
    if found.differing:
        evidence = f"{few(list(found.differing))}: not what was written"
        return ChecklistLine(name=name, asks=asks, verdict=NO, evidence=evidence)
    return ChecklistLine(
        name=name,
        asks=asks,
        verdict=YES,
        evidence=f"{found.files} files read back, their SHA-256 that of what the steps made; "
        "wb verify compares them again with manifest.json",
    )
