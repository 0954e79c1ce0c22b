"""Every structure through every recipe: one run, and the page that tells what came of all of them.

A run's outcome is what `report.json` says of it, or `{"error": ...}` where the whole run ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.cache import Cache
from workbench.device import probe
from workbench.display import Quiet
from workbench.errors import WorkbenchError
from workbench.measure.latency import Preset
from workbench.run.recipe_run import execute
from workbench.run.run_options import RunOptions
from workbench.worker_pool import Pool

PAGE = Path(__file__).resolve().parents[2] / "docs" / "matrix.md"
Outcome = dict[str, Any]

HEAD = """\
# Every structure through every recipe

`make matrix` wrote this on {machine}. A cell is the median latency, of one process, and the SQNR
against PyTorch eager, or the number of the reason why there is no artifact. The networks are small
and untrained (`tests/structures`): the figures show that a file was made, agrees and runs, not how
a trained network would do. –: there was nothing to fuse, so the branch has no FP32 file of its own.
"""

NOTES = {
    "mobile-pruned-int8": "Half the multiply-accumulates: the SQNR is that of the smaller network, "
    "and untrained ones have little\nto recover.\n",
}


def run(project: Path, recipe: str, preset: Preset, cache: Cache, pool: Pool) -> Outcome:
    """A structure's project (`structures.write`) through a recipe, on this machine."""
    request, plan = RunOptions(
        recipe=recipe, model=f"{project}/net.py:build", data=f"{project}/data.toml", preset="quick"
    ).resolve()
    try:
        folder = execute(
            request,
            replace(plan, preset=preset),
            cache,
            Quiet(),
            project / f"run-{recipe}",
            pool=pool,
        ).folder
    except WorkbenchError as error:
        return {"error": str(error)}
    report: Outcome = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return report


def reason(row: Mapping[str, Any]) -> str:
    """Why a row has no artifact; '' where it has one."""
    error = row["error"]
    if error is None:
        return ""
    return f"{error['what']}: {error['why']}" if error["why"] else str(error["what"])


class _Reasons:
    """Reasons by number, the same one under one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _cell(row: Mapping[str, Any] | None, reasons: _Reasons) -> str:
    if row is None:
        return "–"
    if row["error"] is not None:
        return f"({reasons.number(reason(row))})"
    figures = row["figures"]
    median, sqnr = figures["median"], figures["sqnr"]
    parts = [f"{median['value']:.3g} ms"] if median else []
    if isinstance(sqnr, float | int):
        parts.append(f"{sqnr:.0f} dB")
    elif sqnr == "inf":
        parts.append("equal")
    if figures["agreement"] is not None and sqnr is None:
        parts.append(f"{figures['agreement']:.0f} % agree")
    return ", ".join(parts) or "made"


def _row_of(rows: Mapping[str, Any], column: str) -> Mapping[str, Any] | None:
    """A column's row, or the failed one of the same precision that it would have been made from."""
    kind = column.rpartition(" ")[0]
    failed = [
        row for label, row in rows.items() if row["error"] and label.startswith(f"{kind} ONNX")
    ]
    return rows.get(column) or next(iter(failed), None)


def table(recipe: str, outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """A recipe's lines: its table, with a row for each structure and a column for each artifact."""
    reasons = _Reasons()
    rows = {
        name: {row["label"]: row for row in outcome.get("rows", ()) if row["key"] != "eager"}
        for name, outcome in outcomes.items()
    }
    columns = list(dict.fromkeys(label for labelled in rows.values() for label in labelled))
    yield f"## {recipe}"
    yield ""
    if recipe in NOTES:
        yield NOTES[recipe]
    yield f"| structure | {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * len(columns)}"
    for name, outcome in outcomes.items():
        if "rows" in outcome:
            cells = [_cell(_row_of(rows[name], column), reasons) for column in columns]
        else:
            text = " ".join(line.strip() for line in outcome["error"].splitlines())
            cells = [f"({reasons.number(text.partition(' fix:')[0])})"] * len(columns)
        yield f"| {name} | {' | '.join(cells)} |"
    yield ""
    for number, text in enumerate(reasons.texts, 1):
        yield f"({number}) {text}  "
    yield ""


def page(outcomes: Mapping[str, Mapping[str, Outcome]]) -> str:
    """The page of outcomes by recipe and structure."""
    machine = f"{probe.cores()} cores of {probe.cpu_model()}"
    lines = [HEAD.format(machine=machine)]
    for recipe in sorted(outcomes):
        lines += table(recipe, outcomes[recipe])
    return "\n".join(lines).rstrip() + "\n"


def without_figures(text: str) -> str:
    """A page with what differs from machine to machine masked."""
    text = re.sub(r"wrote this on .*?\. A", "wrote this. A", text)
    return re.sub(r"\d[\d.e-]* (ms|dB)", r"# \1", text)
