"""The report as GitHub-flavoured Markdown, and the texts of its table, which HTML shows too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from workbench.intervals import Estimate
from workbench.report import checklist, formats, quantized, words
from workbench.report.blocks import title
from workbench.report.data import Report, Row

FORMATS = ("artifact", "runs on", "size", "speed against eager", "requires")


def headings(report: Report) -> tuple[str, ...]:
    """The table's columns, in the order of `cells`."""
    return (
        "artifact",
        "size",
        "× smaller",
        "load ms",
        "median ms [95 % interval]",
        "p90 ms [95 % interval]",
        *(("× faster than eager",) if report.eager else ()),
        *((f"× faster than {report.baseline}",) if report.onnx else ()),
        "peak memory",
        report.metric,
        f"{report.metric} delta [95 % interval]",
        "agreement",
        "SQNR",
        *(("as on this machine",) if report.away else ()),
    )


def cells(report: Report, row: Row) -> tuple[str, ...]:
    """A row's texts under `headings`: what was measured before an error stands beside it."""
    figures = report.figures[row.key]
    return (
        f"{row.label} (failed)" if row.error else row.label,
        words.size(figures.bytes),
        words.times(figures.smaller),
        words.milliseconds(figures.load_ms),
        words.milliseconds_interval(figures.median),
        words.milliseconds_interval(figures.p90),
        *((_faster(figures.than_eager),) if report.eager else ()),
        # Of PyTorch eager nobody expects more: it warns of nothing.
        *(
            ((words.faster if row.key == report.eager else _faster)(figures.than_onnx),)
            if report.onnx
            else ()
        ),
        words.size(figures.peak_bytes),
        words.accuracy(figures.accuracy, report.metric),
        words.points(figures.delta, report.metric),
        words.percent(figures.agreement),
        words.decibels(figures.sqnr),
        *((words.fidelity(figures.like_host, figures.like_host_sqnr),) if report.away else ()),
    )


def _faster(ratio: Estimate | None) -> str:
    said = words.faster(ratio)
    return f"SLOWER {said}" if words.slower(ratio) else said


def caption(report: Report) -> str:
    """What the table's figures were taken on, and what its intervals are."""
    runs = [len(row.latency.processes) for row in report.rows if row.latency]
    processes = str(runs[0]) if len(set(runs)) == 1 else "the"
    scored = f"{report.samples} evaluation samples of {report.dataset}"
    parts = [
        f"{report.device}, {report.threads} {'thread' if report.threads == 1 else 'threads'}",
        "batch 1",
        f"preset {report.preset}",
        scored if report.samples else "no evaluation samples: accuracy was not measured",
    ]
    if report.samples and not report.labelled:
        parts.append("no labels")
    if scheme := report.host.get("INT8"):
        parts.append(f"its CPU is best at INT8 as {scheme}")
    said = "; ".join(parts) + "."
    if runs:
        said += f" Intervals are 95 %, by bootstrap over {processes} fresh processes."
    base = report.row(report.eager) or report.row(report.onnx)
    if base is not None:
        said += f" × smaller is against {base.label}."
    reference = report.row(report.reference)
    if reference is not None and report.samples:
        said += f" Delta, agreement and SQNR are against {reference.label}."
    if report.away:
        said += " The device's own outputs were scored here; the last column holds them against "
        said += "this machine's of the same file."
    return said


def render(report: Report) -> str:
    """One Markdown document."""
    lines = [f"# {_text(report.recipe)} on {_text(report.model)}", ""]
    lines += [f"- {_text(finding)}" for finding in report.findings]
    lines += ["", *_table(report), "", _text(caption(report)), ""]
    for other in report.others:
        lines += [f"## On {_text(title(other))}", ""]
        lines += [f"- {_text(finding)}" for finding in other.findings]
        lines += ["", *_table(other), "", _text(caption(other)), ""]
        lines += [f"- {_text(note)}" for note in other.notes]
        lines += [f"- {_text(fact)}" for fact in _pairs(named(other.host))]
        lines += ["", *_failures(other, "### What failed there")]
    lines += decision(report)
    lines += _quantized(report)
    lines += _failures(report, "## What failed")
    lines += ["## Artifacts", ""]
    for row in report.rows:
        facts = [_code(row.path)] if row.path else []
        facts += (
            [f"{'SHA-256' if row.path else 'fingerprint'} {_code(row.sha256)}"]
            if row.sha256
            else []
        )
        if row.placement:
            facts.append(_text(f"ran on {words.placement(row.placement, row.left)}"))
        if row.operators:
            facts.append(_text(f"time by operator: {words.operators(row.operators)}"))
        if row.samples:
            facts.append(f"samples {', '.join(map(_code, row.samples))}")
        facts += [_text(note) for note in row.notes]
        lines.append(f"- **{_text(row.label)}**: {'; '.join(facts) or words.NOTHING}")
    if report.notes:
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in report.notes)]
    lines += ["", "## Host and versions", ""]
    dates = _pairs({"created": report.created, "measured": report.measured})
    lines += [f"- {_text(fact)}" for fact in (*_pairs(named(report.host)), *dates)]
    if report.versions:
        lines.append(f"- {_text(', '.join(f'{k} {v}' for k, v in report.versions.items()))}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _failures(report: Report, heading: str) -> list[str]:
    """The errors of a device and of its rows; nothing where there are none."""
    errors = [(report.device, report.error)] if report.error else []
    errors += [(row.label, row.error) for row in report.failed if row.error is not None]
    lines = []
    for name, error in errors:
        lines.append(f"- **{_text(name)}**: {_text(error.what)}")
        lines += [f"  - why: {_text(error.why)}"] if error.why else []
        lines += [f"  - fix: {_text(error.fix)}"] if error.fix else []
    return [heading, "", *lines, ""] if lines else []


def decision(report: Report) -> list[str]:
    """The deployment checklist and the formats; nothing where no artifact was looked into."""
    if not any(row.checks for row in report.rows):
        return []
    lines = [
        "## Deployment checklist",
        "",
        _line(("", "verdict", "evidence")),
        "| --- | --- | --- |",
    ]
    found = checklist.lines(report)
    for line in found:
        lines.append(_line((line.name, line.verdict, line.evidence)))
    for line in found:
        if line.findings:
            lines += ["", f"**{_text(line.name)}**: {_text(line.asks)}", ""]
            lines += [
                f"- {_text(one.label)}: **{one.verdict}**: {_text(one.evidence)}"
                for one in line.findings
            ]
    lines += ["", "## Formats", "", _line(FORMATS), _line(["---"] * len(FORMATS))]
    for entry in formats.entries(report):
        requires = "; ".join(entry.requires)
        lines.append(_line((entry.label, entry.portability, entry.size, entry.speed, requires)))
    return [*lines, ""]


def _quantized(report: Report) -> list[str]:
    """What each technique gave, and where most noise is left; every layer is in report.json."""
    lines = []
    for one in quantized.sections(report):
        lines += ["", f"**{_text(one.title)}**: {_text(one.summary)}. {_text(one.caption)}", ""]
        lines += [_line(quantized.STAGES), "| --- | ---: | ---: | ---: |"]
        lines += [_line(stage) for stage in one.stages]
        if one.worst:
            lines += ["", _text(f"Most of the noise that is left: {', '.join(one.worst)}.")]
    return ["## Quantization", *lines, ""] if lines else []


def named(host: Mapping[str, Any]) -> dict[str, str]:
    """The host's facts as text, with their units in the names."""
    said = {}
    for key, value in host.items():
        several = isinstance(value, (list, tuple))
        text = ", ".join(map(str, value)) if several else str(value)
        said[key.replace("_gib", " (GiB)").replace("_", " ")] = text or words.NOTHING
    return said


def _pairs(facts: Mapping[str, str]) -> Iterator[str]:
    return (f"{key}: {value}" for key, value in facts.items() if value)


def _table(report: Report) -> Iterator[str]:
    names = headings(report)
    yield _line(names)
    yield _line(["---", *["---:"] * (len(names) - 1)])
    for row in report.rows:
        yield _line(cells(report, row))


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(map(_text, texts))} |"


def _text(text: str) -> str:
    """One line that Markdown shows as it stands: no cell ends early, no tag or emphasis begins."""
    escaped = re.sub(r"([\\|*`~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"
