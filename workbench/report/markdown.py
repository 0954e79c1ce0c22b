"""The report as GitHub-flavoured Markdown, and the texts of its table, which HTML shows too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from workbench.intervals import Estimate
from workbench.report import checklist, formats, quantized, words
from workbench.report.blocks import title
from workbench.report.data import Block, Report, Row

FORMATS = ("artifact", "runs on", "size", "speed against eager", "requires")


def headings(block: Block) -> tuple[str, ...]:
    """The table's columns, in the order of `cells`."""
    return (
        "artifact",
        "size",
        "× smaller",
        "load ms",
        "median ms [95 % interval]",
        "p90 ms [95 % interval]",
        *(("× faster than eager",) if block.eager else ()),
        *((f"× faster than {block.baseline}",) if block.onnx else ()),
        "peak memory",
        block.metric,
        f"{block.metric} delta [95 % interval]",
        "agreement",
        "SQNR",
        *(("as on this machine",) if block.away else ()),
    )


def cells(block: Block, row: Row) -> tuple[str, ...]:
    """A row's texts under `headings`: what was measured before an error stands beside it."""
    figures = block.figures[row.key]
    return (
        f"{row.label} (failed)" if row.error else row.label,
        words.size(figures.bytes),
        words.times(figures.smaller),
        words.milliseconds(figures.load_ms),
        words.milliseconds_interval(figures.median),
        words.milliseconds_interval(figures.p90),
        *((_faster(figures.than_eager),) if block.eager else ()),
        # Of PyTorch eager nobody expects more: it warns of nothing.
        *(
            ((words.faster if row.key == block.eager else _faster)(figures.than_onnx),)
            if block.onnx
            else ()
        ),
        words.size(figures.peak_bytes),
        words.accuracy(figures.accuracy, block.metric),
        words.points(figures.delta, block.metric),
        words.percent(figures.agreement),
        words.decibels(figures.sqnr),
        *((words.fidelity(figures.like_host, figures.like_host_sqnr),) if block.away else ()),
    )


def _faster(ratio: Estimate | None) -> str:
    text = words.faster(ratio)
    return f"SLOWER {text}" if words.slower(ratio) else text


def caption(block: Block) -> str:
    """What the table's figures were taken on, and what its intervals are."""
    runs = [len(row.latency.processes) for row in block.rows if row.latency]
    processes = str(runs[0]) if len(set(runs)) == 1 else "the"
    scored = f"{block.samples} evaluation samples of {block.dataset}"
    parts = [
        f"{block.device}, {block.threads} {'thread' if block.threads == 1 else 'threads'}",
        "batch 1",
        f"preset {block.preset}",
        scored if block.samples else "no evaluation samples: accuracy was not measured",
    ]
    if block.samples and not block.labelled:
        parts.append("no labels")
    if scheme := block.host.get("INT8"):
        parts.append(f"its CPU is best at INT8 as {scheme}")
    text = "; ".join(parts) + "."
    if runs:
        text += f" Intervals are 95 %, by bootstrap over {processes} fresh processes."
    base = block.row(block.eager) or block.row(block.onnx)
    if base is not None:
        text += f" × smaller is against {base.label}."
    reference = block.row(block.reference)
    if reference is not None and block.samples:
        text += f" Delta, agreement and SQNR are against {reference.label}."
    if block.away:
        text += " The device's own outputs were scored here; the last column holds them against "
        text += "this machine's of the same file."
    return text


def render(report: Report) -> str:
    """One Markdown document."""
    first, *others = report.blocks
    lines = [f"# {_text(report.recipe)} on {_text(report.model)}", ""]
    lines += _results(first)
    for block in others:
        lines += [f"## On {_text(title(block))}", "", *_results(block)]
        lines += [f"- {_text(note)}" for note in block.notes]
        lines += [f"- {_text(fact)}" for fact in _pairs(named(block.host))]
        lines += ["", *_failures(block, "### What failed there")]
    lines += decision(report)
    lines += _quantized(first)
    lines += _failures(first, "## What failed")
    lines += ["## Artifacts", ""]
    lines += [f"- **{_text(row.label)}**: {_facts(row)}" for row in first.rows]
    if first.notes:
        lines += ["", "## Notes", "", *(f"- {_text(note)}" for note in first.notes)]
    lines += ["", "## Host and versions", ""]
    dates = _pairs({"created": report.created, "measured": report.measured})
    lines += [f"- {_text(fact)}" for fact in (*_pairs(named(first.host)), *dates)]
    if report.versions:
        lines.append(f"- {_text(', '.join(f'{k} {v}' for k, v in report.versions.items()))}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _results(block: Block) -> list[str]:
    """What a device's table says, the table, and what it was taken on."""
    lines = [f"- {_text(finding)}" for finding in block.findings]
    return [*lines, "", *_table(block), "", _text(caption(block)), ""]


def _facts(row: Row) -> str:
    """What an artifact is and where it ran, in one line."""
    facts = [_code(row.path)] if row.path else []
    facts += (
        [f"{'SHA-256' if row.path else 'fingerprint'} {_code(row.sha256)}"] if row.sha256 else []
    )
    if row.placement:
        facts.append(_text(f"ran on {words.placement(row.placement, row.left)}"))
    if row.operators:
        facts.append(_text(f"time by operator: {words.operators(row.operators)}"))
    if row.samples:
        facts.append(f"samples {', '.join(map(_code, row.samples))}")
    facts += [_text(note) for note in row.notes]
    return "; ".join(facts) or words.NOTHING


def _failures(block: Block, heading: str) -> list[str]:
    """The errors of a device and of its rows; nothing where there are none."""
    errors = [(block.device, block.error)] if block.error else []
    errors += [(row.label, row.error) for row in block.failed if row.error is not None]
    lines = []
    for name, error in errors:
        lines.append(f"- **{_text(name)}**: {_text(error.what)}")
        lines += [f"  - why: {_text(error.why)}"] if error.why else []
        lines += [f"  - fix: {_text(error.fix)}"] if error.fix else []
    return [heading, "", *lines, ""] if lines else []


def decision(report: Report) -> list[str]:
    """The deployment checklist and the formats; nothing where no artifact was looked into."""
    if not any(row.checks for row in report.first.rows):
        return []
    lines = [
        "## Deployment checklist",
        "",
        _line(("", "verdict", "evidence")),
        "| --- | --- | --- |",
    ]
    checklist_lines = checklist.lines(report.first, report.verified)
    for line in checklist_lines:
        lines.append(_line((line.name, line.verdict, line.evidence)))
    for line in checklist_lines:
        if line.findings:
            lines += ["", f"**{_text(line.name)}**: {_text(line.asks)}", ""]
            lines += [
                f"- {_text(finding.label)}: **{finding.verdict}**: {_text(finding.evidence)}"
                for finding in line.findings
            ]
    lines += ["", "## Formats", "", _line(FORMATS), _line(["---"] * len(FORMATS))]
    for entry in formats.entries(report.first, report.versions):
        requires = "; ".join(entry.requires)
        lines.append(_line((entry.label, entry.portability, entry.size, entry.speed, requires)))
    return [*lines, ""]


def _quantized(block: Block) -> list[str]:
    """What each technique gave, and where most noise is left; every layer is in report.json."""
    lines = []
    for section in quantized.sections(block):
        lines += [
            "",
            f"**{_text(section.title)}**: {_text(section.summary)}. {_text(section.caption)}",
            "",
        ]
        lines += [_line(quantized.STAGES), "| --- | ---: | ---: | ---: |"]
        lines += [_line(stage) for stage in section.stages]
        if section.worst:
            lines += ["", _text(f"Most of the noise that is left: {', '.join(section.worst)}.")]
    return ["## Quantization", *lines, ""] if lines else []


def named(host: Mapping[str, Any]) -> dict[str, str]:
    """The host's facts as text, with their units in the names."""
    texts = {}
    for key, value in host.items():
        several = isinstance(value, (list, tuple))
        text = ", ".join(map(str, value)) if several else str(value)
        texts[key.replace("_gib", " (GiB)").replace("_", " ")] = text or words.NOTHING
    return texts


def _pairs(facts: Mapping[str, str]) -> Iterator[str]:
    return (f"{key}: {value}" for key, value in facts.items() if value)


def _table(block: Block) -> Iterator[str]:
    names = headings(block)
    yield _line(names)
    yield _line(["---", *["---:"] * (len(names) - 1)])
    for row in block.rows:
        yield _line(cells(block, row))


def _line(texts: Iterable[str]) -> str:
    return f"| {' | '.join(map(_text, texts))} |"


def _text(text: str) -> str:
    """One line that Markdown shows as it stands: no cell ends early, no tag or emphasis begins."""
    escaped = re.sub(r"([\\|*`~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def _code(text: str) -> str:
    return "`" + " ".join(text.replace("`", "'").split()) + "`"
