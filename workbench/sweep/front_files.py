"""A sweep's result as the files of its folder: CSV, JSON, Markdown, a plot and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.cache import write_json
from workbench.sweep import page, plot
from workbench.sweep.result import Result, summary


def as_csv(result: Result) -> str:
    """A line a trial: values and both ends of their intervals in columns of their own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    varied = [dimension.name for dimension in result.record.spec.space]
    ends = [f"{goal.name}{end}" for goal in result.shown for end in ("", "_low", "_high")]
    writer.writerow(["trial", "state", "knee", *varied, *ends, "seconds", "error"])
    for point in result.points:
        trial = point.trial
        values = dict(text.split("=", 1) for text in trial.settings)
        figures: list[Any] = []
        for goal in result.shown:
            figure = trial.figures.get(goal.name)
            figures += ["", "", ""] if figure is None else [figure.value, figure.low, figure.high]
        writer.writerow(
            [trial.number, point.state, int(point.knee), *(values.get(n, "") for n in varied),
             *figures, trial.seconds, trial.error.replace("\n", " ")]
        )  # fmt: skip
    return out.getvalue()


def as_markdown(result: Result) -> str:
    """The summary, the plot and a table of every trial; the errors of those that failed."""
    lines = [f"# {result.record.folder.name}", ""]
    lines += [f"- {line}" for line in summary(result)]
    lines += ["", "![the front](front.svg)", ""]
    lines += _rows([result.headings(), *(result.cells(point) for point in result.points)])
    failed = [point.trial for point in result.points if point.state == "failed"]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [
            f"- trial {trial.number}: {trial.error.replace(chr(10), ' ')}" for trial in failed
        ]
    return "\n".join(lines) + "\n"


def _rows(cells: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def write_front(result: Result, folder: Path) -> None:
    """Write `front.csv`, `.json`, `.md`, `.svg` and `.html`; other files of the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "front.csv": as_csv(result),
        "front.md": as_markdown(result),
        "front.html": page.render(result),
        "front.svg": plot.picture(result),
    }
    for name, text in texts.items():
        part = folder / f".{name}.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / name)
    write_json(folder / "front.json", result.to_json())
